// A folder that is gone with this object.
#pragma once

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <system_error>

namespace bulkhead::testing {

struct scratch_folder {
  const std::filesystem::path path = made();

  scratch_folder() = default;
  ~scratch_folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
  scratch_folder(const scratch_folder&) = delete;
  scratch_folder& operator=(const scratch_folder&) = delete;
  std::filesystem::path operator/(const std::string& name) const { return path / name; }

 private:
  static std::filesystem::path made() {
    std::string name = std::filesystem::temp_directory_path() / "bulkhead-test-XXXXXX";
    if (!::mkdtemp(name.data())) throw std::system_error(errno, std::generic_category(), "mkdtemp");
    return name;
  }
};

}  // namespace bulkhead::testing
