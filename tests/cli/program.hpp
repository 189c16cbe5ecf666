// Runs a program as a user would and keeps what it printed.
#pragma once

#include "../scratch_folder.hpp"

#include <filesystem>
#include <string>
#include <vector>

#include <sys/types.h>

namespace bulkhead::testing {

struct finished {
  int status = -1;  // exit status; 128 + the signal's number when a signal ended it
  std::string out, err;
};

// A program that runs. Its output is read by wait(); what it prints before must fit into a pipe.
class program {
 public:
  // argv[0] without a '/' is one of the build's programs. `directory` is where it runs.
  explicit program(std::vector<std::string> argv, const std::string& input = "",
                   const std::filesystem::path& directory = std::filesystem::temp_directory_path());
  ~program();
  program(const program&) = delete;
  program& operator=(const program&) = delete;

  void signal(int number) const;
  finished wait();
  // Reads its standard output until `text` has come; what came until then. Empty when it ended without.
  std::string wait_for(const std::string& text);
  pid_t pid() const { return pid_; }

 private:
  pid_t pid_ = -1;
  int out_ = -1, err_ = -1;
  std::string seen_;  // of its standard output
};

finished run(std::vector<std::string> argv, const std::string& input = "");

std::string contents(const std::filesystem::path& file);
std::filesystem::path write(const std::filesystem::path& file, const std::string& text);

}  // namespace bulkhead::testing
