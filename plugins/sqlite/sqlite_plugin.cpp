// The plugin `sqlite`: queries a database that the caller passes as an open file, and streams the rows.
#include "database.hpp"
#include <bulkhead/sdk.hpp>

BULKHEAD_MANIFEST(license, "license=MIT");
BULKHEAD_MANIFEST(description, "description=Queries an SQLite database that is passed as a descriptor");

namespace {

// A row that is packed already; as a type of its own, signatures show it as a map.
struct row {
  const msgpack::sbuffer* packed = nullptr;
  template <class Packer>
  void msgpack_pack(Packer& packer) const {
    packer.pack(msgpack::unpack(packed->data(), packed->size()).get());
  }
};

sqlite::database open(bulkhead::context& cx, const bulkhead::handle& file) {
  return sqlite::database(file.fd(), [&cx] { return cx.cancelled(); });
}

}  // namespace

template <>
struct bulkhead::typed::type_name<row> {
  static std::string get() { return "map"; }
};

BULKHEAD_PLUGIN("sqlite", "1.0.0") {
  using parameters = std::optional<msgpack::object>;

  plugin
      .method("query",
              [](bulkhead::context& cx, bulkhead::handle database, std::string_view sql, parameters values,
                 bulkhead::writer<row> rows) {
                sqlite::database opened = open(cx, database);
                return opened.query(sql, values.value_or(msgpack::object()),
                                    [&](const msgpack::sbuffer& packed) { rows.send({&packed}); });
              },
              "Each row as a map from column to value; gives their number. Parameters: an array for ?, a map for :name",
              {"database", "sql", "parameters"})
      .idempotent();
  plugin
      .method("tables",
              [](bulkhead::context& cx, bulkhead::handle database) {
                std::vector<std::string> names;
                open(cx, database)
                    .query(
                        "SELECT name FROM sqlite_schema WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite_%' "
                        "ORDER BY name",
                        msgpack::object(), [&](const msgpack::sbuffer& packed) {
                          const auto row = msgpack::unpack(packed.data(), packed.size());
                          names.push_back(row.get().via.map.ptr[0].val.as<std::string>());
                        });
                return names;
              },
              "The names of its tables and views", {"database"})
      .idempotent();
}
