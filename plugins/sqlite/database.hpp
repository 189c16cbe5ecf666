// A database behind a descriptor, and queries of it: rows one by one, as MessagePack. The database is not trusted.
#pragma once

#include <msgpack.hpp>

#include <cstdint>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>

struct sqlite3;

namespace sqlite {

class sql_error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

class database {
 public:
  // Opens it for reading. `fd` stays the caller's, and open for as long as this lives. `cancelled` is asked now and then
  // while a query runs. Throws sql_error.
  database(int fd, std::function<bool()> cancelled);
  ~database();
  database(const database&) = delete;
  database& operator=(const database&) = delete;

  // Runs one statement that only reads. `parameters`: nil, an array for ?, or a map for :name. `row` takes each row, a map
  // from column to value, packed. Gives the number of rows. Throws sql_error, and what `row` throws.
  std::uint64_t query(std::string_view sql, const msgpack::object& parameters,
                      const std::function<void(const msgpack::sbuffer&)>& row);

 private:
  [[noreturn]] void fail(int code) const;
  std::function<bool()> cancelled_;
  std::unique_ptr<sqlite3, int (*)(sqlite3*)> handle_;
};

}  // namespace sqlite
