// bulkhead new: writes a folder with a plugin that builds, has tests, and is checked by CI.
#include "command.hpp"
#include "exit_codes.hpp"
#include "files.hpp"
#include "templates.hpp"

#include <fmt/format.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <sstream>

#include <unistd.h>

namespace bulkhead::cli {
namespace {

namespace fs = std::filesystem;

struct language {
  std::string_view name;
  std::string_view compiler;
  std::string_view packages;
};
constexpr std::array languages = {language{"c++", "c++", "g++ cmake make"}, language{"c", "cc", "gcc cmake make"},
                                  language{"rust", "rustc", "rustc cmake make"}};

bool installed(std::string_view program) {
  const char* const path = std::getenv("PATH");
  std::istringstream folders(path ? path : "");
  for (std::string folder; std::getline(folders, folder, ':');)
    if (::access((folder + "/" + std::string(program)).c_str(), X_OK) == 0) return true;
  return false;
}

// Names that mean something else to CMake or its generators, where the plugin's name is a target's.
constexpr std::string_view taken[] = {"all",     "check",          "clean",         "edit_cache", "help",   "install",
                                      "package", "package_source", "rebuild_cache", "test",       "plugin", "depend"};

void check_name(const std::string& name) {
  const auto fits = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-'; };
  if (name.empty() || name.size() > 64 || !std::all_of(name.begin(), name.end(), fits) || name[0] < 'a' ||
      name[0] > 'z')
    throw usage_error(
        "a plugin can't be named '" + name +
        "': the name has lower-case letters, digits, '_' and '-', begins with a letter, and has at most 64 "
        "characters");
  if (std::find(std::begin(taken), std::end(taken), name) != std::end(taken))
    throw usage_error("a plugin can't be named '" + name + "': that is the name of a target of CMake's own");
}

std::string filled(std::string_view text, const std::string& name, std::string_view packages) {
  std::string out(text);
  const auto replace = [&](std::string_view what, std::string_view with) {
    for (std::size_t at = 0; (at = out.find(what, at)) != std::string::npos; at += with.size())
      out.replace(at, what.size(), with);
  };
  replace("@NAME@", name);
  replace("@PACKAGES@", packages);
  return out;
}

void write(const fs::path& file, const std::string& text) {
  std::error_code failed;
  fs::create_directories(file.parent_path(), failed);
  if (failed) throw std::runtime_error("can't make " + file.parent_path().string() + ": " + failed.message());
  write_file(file.string(), {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()});
  if (!text.starts_with("#!")) return;
  fs::permissions(file, fs::perms::owner_exec | fs::perms::group_exec | fs::perms::others_exec, fs::perm_options::add);
}

}  // namespace

int run_new(int argc, char** argv) {
  CLI::App app("Writes a folder with a new plugin: it builds, has tests, and is checked by CI.", "bulkhead new");
  std::string name, chosen = "c++", directory;
  app.add_option("NAME", name, "of the plugin: lower-case letters, digits, '_' and '-'")->required();
  app.add_option("--lang", chosen, "c++ (the default), c or rust")->type_name("LANGUAGE");
  app.add_option("--dir", directory, "the folder to write, which must not exist (default: ./NAME)")->type_name("DIR");
  if (const auto done = parse(app, argc, argv)) return *done;
  check_name(name);
  if (chosen == "cpp" || chosen == "cxx") chosen = "c++";
  const auto lang =
      std::find_if(languages.begin(), languages.end(), [&](const language& l) { return l.name == chosen; });
  if (lang == languages.end()) throw usage_error("--lang " + chosen + ": there are c++, c and rust");

  const fs::path folder = directory.empty() ? fs::path(name) : fs::path(directory);
  std::error_code ignored;
  if (fs::symlink_status(folder, ignored).type() != fs::file_type::not_found)
    throw usage_error(folder.string() + " is there already; name another folder with --dir, or move it away");
  for (const template_file& each : template_files)
    if (each.kind == lang->name || each.kind == "common")
      write(folder / filled(each.path, name, lang->packages), filled(each.text, name, lang->packages));

  const std::string shown = folder.string();
  if (!installed(lang->compiler))
    fmt::print(stderr, "bulkhead new: {} is not installed, and it takes that to build the plugin: apt-get install {}\n",
               lang->compiler, lang->packages);
  fmt::print("{} is written. Next:\n\n  cd {}\n  cmake -S . -B build && cmake --build build\n", shown, shown);
  fmt::print("  bulkhead call build/{}.so greet World\n  ci/run\n\nIts README.md tells more.\n", name);
  return exit_ok;
}

}  // namespace bulkhead::cli
