// A granted path in which there is a symbolic link of the plugin's own grants nothing: each case takes two starts.
#include "guest.hpp"

using namespace bulkhead;
using namespace bulkhead::testing;
namespace fs = std::filesystem;

namespace {

// Makes a link at `path`, as a plugin that may.
void plant(const std::string& granted, const std::string& target, const std::string& path) {
  host host;
  guest(host, policy{}.allow_create(granted)).call("make_link", target, path);
}

// What a layer that is in force says of what was not granted.
std::string refusals(const plugin& of) {
  const auto workers = of.workers();
  std::string text;
  for (const sandbox_layer& each : workers.at(0).sandbox.layers)
    if (const auto at = each.detail.find("not granted"); each.in_force && at != std::string::npos)
      text += each.name + " " + each.detail.substr(at) + "\n";
  return text;
}

policy in(const scratch& files, bool rootless) {
  policy made;
  if (rootless) made.without("root");
  return made.allow_create(files.path());
}

}  // namespace

TEST_CASE("a link that a plugin made beneath a grant is not followed when that place is granted") {
  const scratch files, outside;
  const std::string file = files.path() + "/pw", directory = files.path() + "/dir", top = files.path() + "/top";
  plant(files.path(), outside.file(), file);
  plant(files.path(), outside.path(), directory);
  plant(files.path(), "/", top);
  for (const bool rootless : {false, true})
    for (const std::string& granted : {file, directory, directory + "/file", top}) {
      INFO(granted << (rootless ? " without a root of its own" : ""));
      host host;
      for (auto reader :
           {guest(host, in(files, rootless).allow_read(granted)), guest(host, in(files, rootless).allow_write(granted)),
            guest(host, in(files, rootless).allow_create(granted))}) {
        CHECK(error_of(reader.try_call("read_file", outside.file())) == (rootless ? "EACCES" : "ENOENT"));
        CHECK(error_of(reader.try_call("read_file", file)) == (rootless ? "EACCES" : "ENOENT"));
        CHECK(error_of(reader.try_call("read_file", directory + "/file")) == (rootless ? "EACCES" : "ENOENT"));
        CHECK(error_of(reader.try_call("write_file", outside.file(), 0, 1)) != "");
        CHECK_THAT(refusals(reader), Catch::Contains("landlock") && Catch::Contains(granted));
        CHECK((rootless || refusals(reader).find("root ") == 0));
        // What is granted and is no link is there all the same.
        CHECK(reader.call<std::string>("read_file", files.file()) == "content");
      }
    }
}

TEST_CASE("a link of the plugin's is not followed either when a link of the host's leads to it") {
  const scratch files, outside, hosts;
  const std::string alias = hosts.path() + "/alias";
  fs::create_directory_symlink(files.path(), alias);
  plant(files.path(), outside.file(), files.path() + "/pw");
  for (const bool rootless : {false, true}) {
    host host;
    auto reader = guest(host, in(files, rootless).allow_read(alias + "/pw").allow_read(alias + "/file"));
    CHECK(error_of(reader.try_call("read_file", outside.file())) != "");
    CHECK(error_of(reader.try_call("read_file", alias + "/pw")) != "");
    CHECK_THAT(refusals(reader), Catch::Contains(alias + "/pw"));
    if (!rootless) CHECK(reader.call<std::string>("read_file", alias + "/file") == "content");
  }
}

TEST_CASE("links of the host's are followed") {
  const scratch files, hosts;
  fs::create_symlink(files.file(), hosts.path() + "/link");
  host host;
  auto reader = guest(host, policy{}.allow_read(hosts.path() + "/link"));
  CHECK(reader.call<std::string>("read_file", hosts.path() + "/link") == "content");
  CHECK(refusals(reader).empty());
}

TEST_CASE("a grant of what is not there is told of, once in the log, and holds for who starts when it is there") {
  for (const bool rootless : {false, true}) {
    INFO((rootless ? "without a root of its own" : "with a root of its own"));
    const scratch files;
    const std::string later = files.path() + "/later";
    mailbox<log_record> logs;
    const auto tells = [&](const std::string& text) { return text.find("granted but not there: " + later) == 0; };
    host host({.on_log = [&](const log_record& record) { logs.put(record); }});
    policy rules = policy{}.allow_read(later);
    if (rootless) rules.without("root");
    const auto reader = host.load(plugin_path("guest"), {.instances = 2, .policy = rules});
    for (const auto& worker : reader.workers())
      CHECK(std::any_of(worker.sandbox.layers.begin(), worker.sandbox.layers.end(), [&](const sandbox_layer& each) {
        return each.name == "landlock" && each.detail.find("; granted but not there: " + later) != std::string::npos;
      }));
    CHECK(logs.wait([&](const auto& all) {
      return std::any_of(all.begin(), all.end(), [&](const log_record& each) { return tells(each.text); });
    }));
    std::ofstream(later) << "content";
    auto next = guest(host, rules);
    CHECK(next.call<std::string>("read_file", later) == "content");
    std::size_t told = 0;
    for (const log_record& each : logs.values()) told += tells(each.text);
    CHECK(told == 1);
    for (const policy& profile : {policy::files(), policy::network()})
      for (const sandbox_layer& each : host.examine(profile).layers)
        CHECK(each.detail.find("not there") == std::string::npos);
  }
}

TEST_CASE("what a manifest asks for is not granted by a link that a plugin made") {
  const std::string place = BULKHEAD_TEST_ASKED, file = place + "/file";  // that it asks for
  fs::remove_all(place);
  fs::create_directory(place);
  ::chmod(place.c_str(), 0777);
  const scratch outside;
  plant(place, outside.file(), file);
  const load_options granting{.policy = policy{}.allow_create(place)};
  {
    host host;
    auto reader = host.load(plugin_path("asking"), granting);
    CHECK(error_of(reader.try_call("read_file", file)) != "");
    CHECK(error_of(reader.try_call("read_file", outside.file())) != "");
    CHECK_THAT(refusals(reader), Catch::Contains(file));
  }
  fs::remove(file);
  fs::copy_file(outside.file(), file);
  host host;
  auto reader = host.load(plugin_path("asking"), granting);
  CHECK(reader.call<std::string>("read_file", file) == "content");
  CHECK(refusals(reader).empty());
  fs::remove_all(place);
}
