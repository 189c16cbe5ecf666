// A plugin's file that is what it likes: its manifest is read or the file is refused, and what the manifest asks for gets
// nothing that was not granted.
#include "manifest.hpp"

#include "fuzz.hpp"
#include <bulkhead/ipc/system.hpp>
#include <bulkhead/policy.hpp>

#include <cstdint>

#include <sys/mman.h>
#include <unistd.h>

using namespace bulkhead;

namespace {

const policy& host_grants() {
  static const policy made =
      policy{}.allow_read("/a").allow_write("/b/c").allow_create("/d").allow_connect(443).allow_syscalls("udp").threads(
          8);
  return made;
}

void check(const manifest& read) {
  must(!read.id.empty() && read.abi == 1);
  for (const std::string* text : {&read.id, &read.version, &read.name, &read.license, &read.description})
    must(text->size() <= 1024);
  const policy& most = host_grants();
  const policy given = most.intersect(read.requests);
  must(policy::from_text(given.to_text()) == given);
  for (const auto* paths : {&given.granted().read, &given.granted().write, &given.granted().create})
    for (const std::string& path : *paths) must(most.refused({"read:" + path}).empty());
  for (const std::string& path : given.granted().write) must(most.refused({"write:" + path}).empty());
  for (const std::string& path : given.granted().create) must(most.refused({"create:" + path}).empty());
  for (const auto port : given.granted().connect) must(port == 443);
  must(given.granted().bind.empty() && !given.granted().handles && !given.granted().subprocesses);
  must(given.granted().threads == most.granted().threads && given.granted().memory == 0);
  (void)most.refused(read.requests);
  (void)most.unasked(read.requests);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const unique_fd file(checked(::memfd_create("fuzzed", MFD_CLOEXEC), "memfd_create"));
  checked(::ftruncate(file.get(), 0), "ftruncate");
  checked(::pwrite(file.get(), data, size, 0), "pwrite");
  try {
    check(read_manifest(file.get()));
  } catch (const not_a_plugin&) {
  }
  return 0;
}
