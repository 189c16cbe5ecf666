// ELF files made by hand: a shared library with nothing but a manifest, every field of it free to be wrong.
#pragma once

#include <bulkhead/ipc/system.hpp>

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include <elf.h>
#include <sys/mman.h>
#include <unistd.h>

namespace bulkhead::testing {

// The parts of the file in the order in which they lie in it.
struct elf_file {
  Elf64_Ehdr header{};
  std::vector<Elf64_Shdr> sections;  // none, the names, the manifest
  std::string names, manifest;

  explicit elf_file(std::string lines) : sections(3), manifest(std::move(lines)) {
    std::memcpy(header.e_ident, ELFMAG, SELFMAG);
    header.e_ident[EI_CLASS] = ELFCLASS64;
    header.e_ident[EI_DATA] = ELFDATA2LSB;
    header.e_type = ET_DYN;
#if defined(__x86_64__)
    header.e_machine = EM_X86_64;
#elif defined(__aarch64__)
    header.e_machine = EM_AARCH64;
#endif
    header.e_shentsize = sizeof(Elf64_Shdr);
    header.e_shnum = 3;
    header.e_shstrndx = 1;
    header.e_shoff = sizeof header;
    using namespace std::string_view_literals;
    names = "\0.shstrtab\0bulkhead_manifest\0"sv;
    sections[1].sh_type = SHT_STRTAB;
    sections[1].sh_name = 1;
    sections[1].sh_size = names.size();
    sections[1].sh_offset = sizeof header + sections.size() * sizeof(Elf64_Shdr);
    sections[2].sh_type = SHT_PROGBITS;
    sections[2].sh_name = 11;
    sections[2].sh_size = manifest.size();
    sections[2].sh_offset = sections[1].sh_offset + names.size();
  }

  std::string content() const {
    std::string file(reinterpret_cast<const char*>(&header), sizeof header);
    file.append(reinterpret_cast<const char*>(sections.data()), sections.size() * sizeof(Elf64_Shdr));
    return file + names + manifest;
  }
};

// A file in memory.
inline unique_fd file_of(std::string_view content) {
  unique_fd fd(::memfd_create("test", MFD_CLOEXEC));
  if (!fd || ::pwrite(fd.get(), content.data(), content.size(), 0) != static_cast<ssize_t>(content.size()))
    throw std::runtime_error("no file in memory");
  return fd;
}

}  // namespace bulkhead::testing
