// The program's exit statuses, of which scripts depend: one for each outcome, and as its help says.
#include "exit_codes.hpp"

#include <catch2/catch.hpp>

#include <set>
#include <string>

using namespace bulkhead;

TEST_CASE("each outcome has its own exit status, which the help tells by its name") {
  const std::pair<outcome, int> statuses[] = {
      {outcome::ok, 0},           {outcome::plugin_error, 1}, {outcome::timeout, 10},  {outcome::cancelled, 11},
      {outcome::not_sent, 12},    {outcome::worker_lost, 13}, {outcome::protocol, 14}, {outcome::overloaded, 15},
      {outcome::unavailable, 16}, {outcome::rejected, 17},
  };
  std::set<int> different;
  for (const auto& [value, status] : statuses) {
    CHECK(cli::exit_code(value) == status);
    different.insert(status);
    const std::string number = std::to_string(status), name(to_string(value));
    const std::string line = "\n" + std::string(4 - number.size(), ' ') + number + "  " + name;
    CAPTURE(line);
    CHECK(cli::exit_codes_help.find(line) != std::string_view::npos);
  }
  CHECK(different.size() == 10);
}
