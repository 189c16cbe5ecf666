// Completions and manual pages: they have what the commands' own help has, and the shells take them.
#include "program.hpp"

#include <catch2/catch.hpp>

#include <regex>
#include <set>
#include <sstream>

namespace bulkhead::testing {
namespace {

std::string printed(const std::vector<std::string>& argv) {
  const finished done = run(argv);
  INFO(done.err);
  REQUIRE(done.status == 0);
  return done.out;
}

std::set<std::string> all_of(const std::string& text, const std::string& pattern) {
  const std::regex expression(pattern, std::regex::ECMAScript | std::regex::multiline);
  std::set<std::string> found;
  for (auto at = std::sregex_iterator(text.begin(), text.end(), expression); at != std::sregex_iterator(); ++at)
    found.insert((*at)[1]);
  return found;
}

std::set<std::string> commands() { return all_of(printed({"bulkhead", "--help"}), "^  ([a-z]+) +[a-z]"); }

// What bash offers for the last of these words.
std::set<std::string> bash_offers(const std::vector<std::string>& words) {
  std::string quoted;
  for (const std::string& word : words) quoted += " '" + word + "'";
  std::istringstream out(printed({"/bin/bash", "-c",
                                  "eval \"$(\"$0\" completion bash)\" && COMP_WORDS=(\"$0\"" + quoted +
                                      ") COMP_CWORD=" + std::to_string(words.size()) +
                                      " && _bulkhead && printf '%s\\n' \"${COMPREPLY[@]}\"",
                                  BULKHEAD_TEST_PROGRAMS "/bulkhead"}));
  std::set<std::string> offers;
  for (std::string line; std::getline(out, line);)
    if (!line.empty()) offers.insert(line);
  return offers;
}

}  // namespace

TEST_CASE("bash completes commands, options, plugins and files") {
  CHECK(bash_offers({"ins"}) == std::set<std::string>{"inspect"});
  CHECK(bash_offers({"call", "--de"}) == std::set<std::string>{"--deadline"});
  CHECK(bash_offers({"call", "ech"}) == std::set<std::string>{"echo"});
  CHECK(bash_offers({"call", "--so"}) == std::set<std::string>{"--socket"});
  CHECK(bash_offers({"call", "--ke"}) == std::set<std::string>{"--key"});
  CHECK(bash_offers({"call", "--in", "/etc/passw"}).count("/etc/passwd") == 1);
  CHECK(bash_offers({"call", "--deadline", "e"}).empty());
}

TEST_CASE("completions and manual pages have each option that a command's help has") {
  const std::string zsh = printed({"bulkhead", "completion", "zsh"}),
                    fish = printed({"bulkhead", "completion", "fish"});
  const auto names = commands();
  CHECK(names.count("call") == 1);
  CHECK(bash_offers({""}).size() == names.size() + 3);  // and help, --help, --version
  for (const std::string& name : names) {
    INFO(name);
    const auto options = all_of(printed({"bulkhead", name, "--help"}), "^  (?:-[a-zA-Z],)?(--[a-z-]+)");
    REQUIRE(options.count("--help") == 1);
    const auto offered = bash_offers({name, "-"});
    const std::string page = std::regex_replace(printed({"bulkhead", "manual", name}), std::regex(R"(\\-)"), "-");
    for (const std::string& option : options) {
      INFO(option);
      CHECK(offered.count(option) == 1);
      CHECK(page.find("\\fB" + option + "\\fR") != std::string::npos);
      CHECK(zsh.find(option + "[") != std::string::npos);
      CHECK(fish.find(" -l " + option.substr(2) + " ") != std::string::npos);
    }
  }
}

TEST_CASE("zsh, fish and man take what is printed for them") {
  scratch_folder folder;
  printed({"/usr/bin/zsh", "-n", write(folder / "zsh", printed({"bulkhead", "completion", "zsh"}))});
  printed({"/usr/bin/fish", "--no-execute", write(folder / "fish", printed({"bulkhead", "completion", "fish"}))});
  printed({"bulkhead", "manual", "--all", folder.path});
  for (const std::string& name : commands()) {
    const finished shown =
        run({"/usr/bin/groff", "-man", "-Tutf8", "-P-cbou", "-ww", folder / ("bulkhead-" + name + ".1")});
    CHECK(shown.err == "");
    CHECK(shown.out.find("SYNOPSIS") != std::string::npos);
  }
  CHECK(run({"bulkhead", "manual", "nothing"}).status == 2);
  CHECK(run({"bulkhead", "completion", "tcsh"}).status == 2);
}

}  // namespace bulkhead::testing
