// See passed.hpp. Contents are compared by pread(): it does not fault where there is nothing any more.
#include "passed.hpp"

#include <algorithm>
#include <stdexcept>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace bulkhead::testing {
namespace {

using content = std::array<std::uint8_t, escape_memory_size>;

constexpr int size_seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
const char* const names[] = {"sealed memory",  "mapped memory", "shared memory", "read-only memory", "", "", "",
                             "returned memory"};

content letters() {
  content made;
  made.fill('a');
  return made;
}

}  // namespace

void passed::make_memory(escape_kind kind, int seals, bool seal) {
  unique_fd& fd = all_[kind];
  fd.reset(checked(::memfd_create("bulkhead-range", MFD_CLOEXEC | MFD_ALLOW_SEALING), "memfd_create"));
  const content all = letters();
  if (::write(fd.get(), all.data(), all.size()) != static_cast<ssize_t>(all.size())) throw_errno("write");
  if (kind == escape_mapped) {
    void* got = ::mmap(nullptr, all.size(), PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
    if (got == MAP_FAILED) throw_errno("mmap");
    mapped_ = static_cast<std::uint8_t*>(got);
  }
  if (seals && seal) checked(::fcntl(fd.get(), F_ADD_SEALS, seals), "fcntl(F_ADD_SEALS)");
}

passed::passed(const plugin& attacker, const std::string& directory, bool returned, bool seal) {
  if (returned) {
    unique_fd& got = all_[escape_returned] = attacker.call<unique_fd>("make_memory", seal);
    // What a host has to see before it maps such memory.
    const int found = checked(::fcntl(got.get(), F_GET_SEALS), "fcntl(F_GET_SEALS)");
    if (seal && (found & (size_seals | F_SEAL_WRITE)) != (size_seals | F_SEAL_WRITE))
      throw std::runtime_error("the plugin's memory is not sealed");
    return;
  }
  make_memory(escape_sealed, size_seals | F_SEAL_WRITE, seal);
  make_memory(escape_mapped, size_seals | F_SEAL_FUTURE_WRITE, seal);
  make_memory(escape_shared, size_seals, seal);
  make_memory(escape_opened, 0, false);
  const auto open_it = [](const std::string& path, int flags) {
    return unique_fd(checked(::open(path.c_str(), flags | O_CLOEXEC), path.c_str()));
  };
  const unique_fd opened = open_it("/proc/self/fd/" + std::to_string(all_[escape_opened].get()), O_RDONLY);
  all_[escape_file] = open_it(directory + "/secret", O_RDONLY);
  all_[escape_path] = open_it(directory + "/secret", O_PATH);
  all_[escape_directory] = open_it(directory, O_RDONLY | O_DIRECTORY);
  for (int kind = 0; kind < escape_returned; ++kind)
    attacker.call("take", kind, pass_fd{kind == escape_opened ? opened.get() : all_[kind].get()});
}

passed::~passed() {
  if (mapped_) ::munmap(mapped_, escape_memory_size);
}

std::string passed::damage() const {
  for (const escape_kind kind : {escape_sealed, escape_mapped, escape_shared, escape_opened, escape_returned}) {
    if (!all_[kind]) continue;
    struct stat status {};
    ::fstat(all_[kind].get(), &status);
    if (status.st_size != escape_memory_size) return std::string(names[kind]) + " has another size";
    content found{};
    if (::pread(all_[kind].get(), found.data(), found.size(), 0) != status.st_size || found != letters())
      return std::string(names[kind]) + " has other bytes";
  }
  if (mapped_) {  // it still serves the one that it is for
    mapped_[0] = 'b';
    std::uint8_t seen = 0;
    if (::pread(all_[escape_mapped].get(), &seen, 1, 0) != 1 || seen != 'b') return "mapped memory is cut off";
    mapped_[0] = 'a';
  }
  return {};
}

}  // namespace bulkhead::testing
