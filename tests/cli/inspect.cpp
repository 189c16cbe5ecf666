// `bulkhead inspect`, and what the program says of itself.
#include "program.hpp"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

using namespace bulkhead::testing;
using Catch::Matchers::Contains;
using nlohmann::json;

TEST_CASE("inspect shows the manifest and the methods with signatures and docs") {
  const finished done = run({"bulkhead", "inspect", "text"});
  CHECK(done.status == 0);
  CHECK_THAT(done.out, Contains("text 1.0.0") && Contains("search") && Contains("replace") && Contains("split"));
  CHECK_THAT(run({"bulkhead", "inspect", "echo"}).out,
             Contains("\n  add   (int a, int b) -> int  The sum (idempotent)\n"));
  CHECK(done.out.find("\033[") == std::string::npos);  // colours are for terminals
}

TEST_CASE("inspect as JSON: each method with signature, doc and whether it may be repeated") {
  const json made = json::parse(run({"bulkhead", "inspect", "echo", "--json"}).out);
  CHECK(made["id"] == "echo");
  CHECK(made["abi"] == 1);
  CHECK(std::filesystem::exists(made["file"].get<std::string>()));
  const json add = {{"name", "add"}, {"signature", "(int a, int b) -> int"}, {"doc", "The sum"}, {"idempotent", true}};
  CHECK(made["methods"][1] == add);
}

TEST_CASE("inspect shows a plugin in plain C like any other") {
  const json made = json::parse(run({"bulkhead", "inspect", "fragile", "--json"}).out);
  CHECK(made["license"] == "MIT");
  CHECK(made["methods"].size() == 2);
}

TEST_CASE("inspect says why a file is no plugin") {
  const scratch_folder folder;
  const auto text = write(folder / "text.so", "no library");
  const finished done = run({"bulkhead", "inspect", text.string()});
  CHECK(done.status == 17);
  CHECK_THAT(done.err, Contains("rejected: plugin text ") && Contains("not an ELF file"));
  const finished as_json = run({"bulkhead", "inspect", "--json", text.string()});
  CHECK(as_json.status == 17);
  CHECK(json::parse(as_json.out)["outcome"] == "rejected");
}

TEST_CASE("a plugin is found by name in BULKHEAD_PLUGIN_PATH") {
  const scratch_folder folder;
  std::filesystem::copy(std::string(BULKHEAD_TEST_PLUGINS) + "/echo.so", folder / "mine.so");
  const std::string inspect = std::string(BULKHEAD_TEST_PROGRAMS) + "/bulkhead inspect mine --json";
  const finished done = run({"/bin/sh", "-c", "BULKHEAD_PLUGIN_PATH=/nowhere:" + folder.path.string() + " " + inspect});
  CHECK(json::parse(done.out)["file"] == (folder / "mine.so").string());
  CHECK(run({"/bin/sh", "-c", inspect}).status == 2);
}

TEST_CASE("the program tells its version and its commands, and what it does not know") {
  CHECK_THAT(run({"bulkhead", "--version"}).out, Contains("bulkhead "));
  CHECK_THAT(run({"bulkhead", "--help"}).out, Contains("inspect") && Contains("call") && Contains("Exit status:"));
  CHECK(run({"bulkhead", "help", "call"}).out == run({"bulkhead", "call", "--help"}).out);
  const finished wrong = run({"bulkhead", "fly"});
  CHECK(wrong.status == 2);
  CHECK_THAT(wrong.err, Contains("there is no command 'fly'"));
  CHECK(run({"bulkhead"}).status == 2);
}
