// See manifest.hpp. The section is in the manner of the kernel's .modinfo: zero-terminated key=value strings.
#include "manifest.hpp"

#include <bulkhead/ipc/message.hpp>
#include <bulkhead/plugin.h>

#include <charconv>
#include <cstring>
#include <set>
#include <stdexcept>

#include <elf.h>
#include <unistd.h>

namespace bulkhead {
namespace {

constexpr std::size_t section_limit = std::size_t{64} << 10;
constexpr std::size_t names_limit = std::size_t{1} << 20;
constexpr unsigned sections_limit = 4096;

[[noreturn]] void refuse(const std::string& what) { throw not_a_plugin(what); }

void read_exactly(int fd, void* into, std::size_t size, std::uint64_t offset, const char* what) {
  if (offset > static_cast<std::uint64_t>(INT64_MAX) ||
      ::pread(fd, into, size, static_cast<off_t>(offset)) != static_cast<ssize_t>(size))
    refuse(std::string("its ") + what + " lies outside the file");
}

std::vector<char> read_section(int fd, const Elf64_Shdr& header, std::size_t limit, const char* what) {
  if (header.sh_type == SHT_NOBITS || header.sh_size > limit) refuse(std::string("its ") + what + " is too large");
  std::vector<char> bytes(header.sh_size);
  if (!bytes.empty()) read_exactly(fd, bytes.data(), bytes.size(), header.sh_offset, what);
  return bytes;
}

std::vector<char> find_section(int fd) {
  Elf64_Ehdr file{};
  if (::pread(fd, &file, sizeof file, 0) != static_cast<ssize_t>(sizeof file) ||
      std::memcmp(file.e_ident, ELFMAG, SELFMAG) != 0)
    refuse("not an ELF file");
  if (file.e_ident[EI_CLASS] != ELFCLASS64 || file.e_ident[EI_DATA] != ELFDATA2LSB) refuse("not a 64-bit ELF file");
#if defined(__x86_64__)
  if (file.e_machine != EM_X86_64) refuse("built for another processor");
#elif defined(__aarch64__)
  if (file.e_machine != EM_AARCH64) refuse("built for another processor");
#endif
  if (file.e_type != ET_DYN) refuse("not a shared library");
  if (file.e_shentsize != sizeof(Elf64_Shdr) || file.e_shnum == 0 || file.e_shnum > sections_limit ||
      file.e_shstrndx >= file.e_shnum)
    refuse("its section table is missing or malformed");
  std::vector<Elf64_Shdr> sections(file.e_shnum);
  read_exactly(fd, sections.data(), sections.size() * sizeof(Elf64_Shdr), file.e_shoff, "section table");
  const std::vector<char> names = read_section(fd, sections[file.e_shstrndx], names_limit, "table of section names");
  constexpr std::string_view wanted = "bulkhead_manifest";
  for (const Elf64_Shdr& section : sections) {
    if (section.sh_name >= names.size()) continue;
    const char* name = names.data() + section.sh_name;
    if (std::string_view(name, ::strnlen(name, names.size() - section.sh_name)) == wanted)
      return read_section(fd, section, section_limit, "manifest");
  }
  refuse("it has no manifest (BULKHEAD_PLUGIN or BULKHEAD_MANIFEST_BEGIN writes one)");
}

}  // namespace

manifest read_manifest(int fd) {
  const std::vector<char> section = find_section(fd);
  manifest read;
  std::set<std::string_view> stated;
  for (std::size_t at = 0; at < section.size();) {
    const std::string_view line(section.data() + at, ::strnlen(section.data() + at, section.size() - at));
    at += line.size() + 1;
    const std::size_t equals = line.find('=');
    if (equals == std::string_view::npos) continue;  // padding
    const std::string_view key = line.substr(0, equals);
    for (const std::string_view once : {"id", "version", "abi"})
      if (key == once && !stated.insert(key).second)
        refuse("its manifest states " + std::string(key) + " twice (are two plugins linked into one library?)");
    const std::string value = ipc::sanitised(line.substr(equals + 1), 1024);
    if (key == "id") read.id = value;
    else if (key == "version") read.version = value;
    else if (key == "name") read.name = value;
    else if (key == "license") read.license = value;
    else if (key == "description") read.description = value;
    else if (key == "thread_safe") read.thread_safe = value == "yes";
    else if (key == "request") read.requests.push_back(value);
    else if (key == "abi") std::from_chars(value.data(), value.data() + value.size(), read.abi);
  }
  if (read.id.empty()) refuse("its manifest names no id");
  if (read.abi != BULKHEAD_ABI_VERSION)
    refuse("it was built for ABI version " + std::to_string(read.abi) + ", this bulkhead speaks " +
           std::to_string(BULKHEAD_ABI_VERSION) + "; rebuild the plugin against this version's SDK");
  return read;
}

}  // namespace bulkhead
