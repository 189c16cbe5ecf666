// A machine's files as Linux has them, gone with this object.
#pragma once

#include <catch2/catch.hpp>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include <unistd.h>

namespace bulkhead::testing {

struct machine {
  std::filesystem::path root;
  machine() {
    std::string name = std::filesystem::temp_directory_path() / "bulkhead-test-XXXXXX";
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    root = name;
  }
  ~machine() { std::filesystem::remove_all(root); }
  machine(const machine&) = delete;
  void put(const std::string& file, const std::string& text) const {
    std::filesystem::create_directories((root / file).parent_path());
    std::ofstream(root / file) << text;
  }
  std::string get(const std::string& file) const {
    std::ostringstream text;
    text << std::ifstream(root / file).rdbuf();
    return text.str();
  }
};

inline const std::string mount_of_proc = "22 1 0:20 / /proc rw,nosuid - proc proc rw\n";

}  // namespace bulkhead::testing
