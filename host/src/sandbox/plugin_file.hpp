// A plugin's file on its way into a worker: opened once and without following links, checked for who could have written
// it, copied into a sealed memfd, hashed. What is loaded is that copy, whatever becomes of the file.
#pragma once

#include <bulkhead/ipc/system.hpp>

#include <filesystem>
#include <list>
#include <memory>
#include <mutex>
#include <string>

namespace bulkhead::sandbox {

struct plugin_file {
  unique_fd copy;      // sealed
  std::string sha256;  // of its contents
};

// Copies already made, as long as a file is unchanged. Thread-safe.
class plugin_files {
 public:
  // Throws std::runtime_error saying what is wrong with the file or with one of its directories.
  std::shared_ptr<const plugin_file> open(const std::filesystem::path& file);

 private:
  struct known {
    std::string identity;  // device, inode, size, time of change
    std::shared_ptr<const plugin_file> file;
  };
  std::mutex mutex_;
  std::list<known> known_;  // the last used first
};

}  // namespace bulkhead::sandbox
