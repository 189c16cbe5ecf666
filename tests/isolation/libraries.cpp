// Which libraries a plugin brings into its worker: those of the library roots and of what it may read, whatever its file
// says and whatever the host's environment says.
#include "guest.hpp"

#include <cstdlib>
#include <map>

#include <sys/wait.h>

using namespace bulkhead;
using namespace bulkhead::testing;
namespace fs = std::filesystem;

namespace {

// Variables of this process's environment, for a time.
class variables {
 public:
  explicit variables(const std::map<std::string, std::string>& all) : all_(all) {
    for (const auto& [name, value] : all_) ::setenv(name.c_str(), value.c_str(), 1);
  }
  ~variables() {
    for (const auto& each : all_) ::unsetenv(each.first.c_str());
  }
  variables(const variables&) = delete;

 private:
  const std::map<std::string, std::string> all_;
};

std::string copied(const std::string& library, const std::string& to) {
  const std::string file = to + "/" + fs::path(library).filename().string();
  fs::copy_file(library, file);
  ::chmod(file.c_str(), 0755);
  return file;
}

}  // namespace

TEST_CASE("a library that a plugin's file names is found in the library roots and what is granted and nowhere else") {
  const std::string place = BULKHEAD_TEST_OUTSIDE;  // as the plugins' files have it
  fs::remove_all(place);
  fs::create_directory(place);
  ::chmod(place.c_str(), 0755);
  copied(BULKHEAD_TEST_BY_NAME, place);
  copied(BULKHEAD_TEST_BY_PATH, place);
  host host;
  for (const char* name : {"needing_runpath", "needing_rpath", "needing_path"})
    for (const bool rootless : {false, true}) {
      INFO(name << (rootless ? " without a root of its own" : ""));
      policy rules;
      if (rootless) rules.without("root");
      const auto error = failure_of([&] { host.load(plugin_path(name), {.policy = rules}); });
      CHECK(error.outcome() == outcome::unavailable);
      CHECK_THAT(error.message(), Catch::Contains("phase load") && Catch::Contains("liboutside_by_"));
      rules.allow_read(place);
      CHECK(host.load(plugin_path(name), {.policy = rules}).call<int>("outside") == 42);
    }
  fs::remove_all(place);
}

TEST_CASE("libraries and their places in the host's environment are for nobody else") {
  const scratch files;
  const std::string library = copied(BULKHEAD_TEST_BY_NAME, files.path()), mark = library + ".loaded";
  for (const char* name : {"LD_PRELOAD", "LD_AUDIT"}) {
    INFO(name);
    const variables set({{name, library}, {"LD_LIBRARY_PATH", files.path()}});
    REQUIRE(std::system("exit 0") == 0);  // any other program has it
    REQUIRE(fs::remove(mark));
    host host;
    auto plain = guest(host, policy{}.allow_create(files.path()));
    for (const char* each : {name, "LD_LIBRARY_PATH"}) CHECK(plain.call<std::string>("variable", each).empty());
    CHECK_FALSE(fs::exists(mark));
    const auto error =
        failure_of([&] { host.load(plugin_path("needing_unsaid"), {.policy = policy{}.allow_read(files.path())}); });
    CHECK_THAT(error.message(), Catch::Contains("liboutside_by_name.so"));
    CHECK_FALSE(fs::exists(mark));
  }
}
