// See debugger.hpp.
#include "debugger.hpp"

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <stdexcept>

#include <unistd.h>

namespace bulkhead::cli {

void run_in_gdb(const std::vector<std::string>& arguments, const std::string& core) {
  std::vector<std::string> words = {"gdb", "-q"};
  if (!::isatty(STDIN_FILENO) || !::isatty(STDOUT_FILENO)) words.emplace_back("-batch");
  for (const char* each : {"-iex", "set debuginfod enabled off", "-ex", "run", "-ex", "bt"}) words.emplace_back(each);
  if (!core.empty())
    for (const std::string& each : {std::string("-ex"), "generate-core-file " + core}) words.push_back(each);
  words.emplace_back("--args");
  words.push_back(std::filesystem::read_symlink("/proc/self/exe").string());
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& each : words) argv.push_back(each.data());
  argv.push_back(nullptr);
  ::setenv("SHELL", "/bin/sh", 1);  // by which gdb starts the program: another, or none, may not be fit for that
  ::execvp("gdb", argv.data());
  throw std::runtime_error(std::string("gdb can't be started: ") + std::strerror(errno) + "; apt-get install gdb");
}

}  // namespace bulkhead::cli
