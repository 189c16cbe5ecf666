// See database.hpp.
#include "database.hpp"

#include "descriptor_vfs.hpp"

#include <sqlite3.h>

namespace sqlite {
namespace {

constexpr int instructions_between = 1000;  // between looks at the call
constexpr int value_limit = 8 << 20;        // bytes, of a text, a blob or a row
constexpr int sql_limit = 1 << 20;
constexpr int cache_kib = 16 << 10;

using statement = std::unique_ptr<sqlite3_stmt, int (*)(sqlite3_stmt*)>;

int bind(sqlite3_stmt* to, int index, const msgpack::object& value) {
  switch (value.type) {
    case msgpack::type::NIL: return sqlite3_bind_null(to, index);
    case msgpack::type::BOOLEAN: return sqlite3_bind_int(to, index, value.via.boolean);
    case msgpack::type::POSITIVE_INTEGER:
      if (value.via.u64 > INT64_MAX) throw sql_error("a parameter is larger than SQLite's integers");
      return sqlite3_bind_int64(to, index, static_cast<sqlite3_int64>(value.via.u64));
    case msgpack::type::NEGATIVE_INTEGER: return sqlite3_bind_int64(to, index, value.via.i64);
    case msgpack::type::FLOAT32:
    case msgpack::type::FLOAT64: return sqlite3_bind_double(to, index, value.via.f64);
    case msgpack::type::STR:
      return sqlite3_bind_text64(to, index, value.via.str.ptr, value.via.str.size, SQLITE_TRANSIENT, SQLITE_UTF8);
    case msgpack::type::BIN:
      return sqlite3_bind_blob64(to, index, value.via.bin.ptr, value.via.bin.size, SQLITE_TRANSIENT);
    default: throw sql_error("a parameter has to be nil, a bool, a number, a text or bytes");
  }
}

void bind_all(sqlite3_stmt* to, const msgpack::object& parameters) {
  const int wanted = sqlite3_bind_parameter_count(to);
  const auto checked = [](int code) {
    if (code != SQLITE_OK) throw sql_error(std::string("a parameter can't be used: ") + sqlite3_errstr(code));
  };
  const auto expect = [&](std::size_t given) {
    if (given != static_cast<std::size_t>(wanted))
      throw sql_error("the statement has " + std::to_string(wanted) + " parameters, got " + std::to_string(given));
  };
  if (parameters.type == msgpack::type::ARRAY) {
    expect(parameters.via.array.size);
    for (int i = 0; i < wanted; ++i) checked(bind(to, i + 1, parameters.via.array.ptr[i]));
  } else if (parameters.type == msgpack::type::MAP) {
    expect(parameters.via.map.size);
    for (std::uint32_t i = 0; i < parameters.via.map.size; ++i) {
      const msgpack::object_kv& pair = parameters.via.map.ptr[i];
      if (pair.key.type != msgpack::type::STR) throw sql_error("names of parameters have to be texts");
      const std::string name = ":" + std::string(pair.key.via.str.ptr, pair.key.via.str.size);
      const int index = sqlite3_bind_parameter_index(to, name.c_str());
      if (index == 0) throw sql_error("the statement has no parameter " + name);
      checked(bind(to, index, pair.val));
    }
  } else if (parameters.type == msgpack::type::NIL) {
    expect(0);
  } else {
    throw sql_error("parameters have to be an array or a map");
  }
}

void pack_row(sqlite3_stmt* from, msgpack::packer<msgpack::sbuffer>& to) {
  const int count = sqlite3_column_count(from);
  to.pack_map(static_cast<std::uint32_t>(count));
  for (int i = 0; i < count; ++i) {
    const char* name = sqlite3_column_name(from, i);
    to.pack(std::string_view(name ? name : ""));
    const auto bytes = [&] { return static_cast<std::uint32_t>(sqlite3_column_bytes(from, i)); };
    switch (sqlite3_column_type(from, i)) {
      case SQLITE_INTEGER: to.pack(static_cast<std::int64_t>(sqlite3_column_int64(from, i))); break;
      case SQLITE_FLOAT: to.pack(sqlite3_column_double(from, i)); break;
      case SQLITE_TEXT: {
        const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(from, i));
        to.pack_str(bytes()).pack_str_body(text ? text : "", bytes());
        break;
      }
      case SQLITE_BLOB: {
        const auto* data = static_cast<const char*>(sqlite3_column_blob(from, i));
        to.pack_bin(bytes()).pack_bin_body(data ? data : "", bytes());
        break;
      }
      default: to.pack_nil();
    }
  }
}

}  // namespace

database::database(int fd, std::function<bool()> cancelled)
    : cancelled_(std::move(cancelled)), handle_(nullptr, sqlite3_close) {
  const std::string uri = std::string("file:") + descriptor_path(fd).text + "?immutable=1";
  sqlite3* made = nullptr;
  const int code = sqlite3_open_v2(uri.c_str(), &made, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI | SQLITE_OPEN_NOMUTEX,
                                   descriptor_vfs());
  handle_.reset(made);
  if (code != SQLITE_OK) fail(code);
  // As SQLite advises for files that are not trusted.
  sqlite3_db_config(made, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
  sqlite3_db_config(made, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, nullptr);
  sqlite3_limit(made, SQLITE_LIMIT_LENGTH, value_limit);
  sqlite3_limit(made, SQLITE_LIMIT_SQL_LENGTH, sql_limit);
  sqlite3_limit(made, SQLITE_LIMIT_ATTACHED, 0);
  for (const std::string& pragma :
       {std::string("PRAGMA temp_store=MEMORY"), std::string("PRAGMA cell_size_check=ON"),
        std::string("PRAGMA mmap_size=0"), "PRAGMA cache_size=-" + std::to_string(cache_kib)})
    if (const int failed = sqlite3_exec(made, pragma.c_str(), nullptr, nullptr, nullptr); failed != SQLITE_OK)
      fail(failed);
  sqlite3_progress_handler(
      made, instructions_between, [](void* of) { return static_cast<database*>(of)->cancelled_() ? 1 : 0; }, this);
}

database::~database() = default;

void database::fail(int code) const {
  if (code == SQLITE_INTERRUPT) throw sql_error("cancelled");
  throw sql_error(handle_ ? sqlite3_errmsg(handle_.get()) : sqlite3_errstr(code));
}

std::uint64_t database::query(std::string_view sql, const msgpack::object& parameters,
                              const std::function<void(const msgpack::sbuffer&)>& row) {
  if (sql.size() > static_cast<std::size_t>(sql_limit)) throw sql_error("the statement is longer than 1 MiB");
  sqlite3_stmt* made = nullptr;
  const char* rest = nullptr;
  if (const int code = sqlite3_prepare_v2(handle_.get(), sql.data(), static_cast<int>(sql.size()), &made, &rest);
      code != SQLITE_OK)
    fail(code);
  const statement prepared(made, sqlite3_finalize);
  if (!made) throw sql_error("there is no statement");
  if (std::string_view(rest, static_cast<std::size_t>(sql.data() + sql.size() - rest)).find_first_not_of(" \t\r\n;") !=
      std::string_view::npos)
    throw sql_error("there is more than one statement");
  if (!sqlite3_stmt_readonly(made)) throw sql_error("the statement writes, and the database is open for reading");
  bind_all(made, parameters);
  std::uint64_t count = 0;
  msgpack::sbuffer packed;
  for (;;) {
    const int code = sqlite3_step(made);
    if (code == SQLITE_DONE) return count;
    if (code != SQLITE_ROW) fail(code);
    packed.clear();
    msgpack::packer<msgpack::sbuffer> packer(packed);
    pack_row(made, packer);
    row(packed);
    ++count;
  }
}

}  // namespace sqlite
