// See facts.hpp. libelf reads; what it gives back is checked before it is used, for the file is as hostile as any.
#include "facts.hpp"

#include <gelf.h>

#include <memory>
#include <stdexcept>

#include <dlfcn.h>

namespace symbolizer {
namespace {

constexpr std::size_t names_limit = 10000, name_length = 512;

void add(std::vector<std::string>& to, const char* name) {
  if (name && *name && to.size() < names_limit) to.push_back(std::string(name).substr(0, name_length));
}

void read_dynamic(Elf* file, Elf_Scn* section, const GElf_Shdr& header, facts& found) {
  Elf_Data* data = elf_getdata(section, nullptr);
  GElf_Dyn entry;
  for (int i = 0; data && gelf_getdyn(data, i, &entry); ++i) {
    const auto text = [&] { return elf_strptr(file, header.sh_link, entry.d_un.d_val); };
    if (entry.d_tag == DT_NEEDED) add(found.needed, text());
    else if (entry.d_tag == DT_TEXTREL) found.text_relocations = true;
    else if (entry.d_tag == DT_FLAGS && (entry.d_un.d_val & DF_TEXTREL)) found.text_relocations = true;
    else if (entry.d_tag == DT_RPATH || entry.d_tag == DT_RUNPATH)
      if (const char* path = text()) found.run_path = std::string(path).substr(0, name_length);
  }
}

struct wanted {
  std::vector<std::string> names;
};

void read_symbols(Elf* file, Elf_Scn* section, const GElf_Shdr& header, facts& found, wanted& undefined) {
  Elf_Data* data = elf_getdata(section, nullptr);
  GElf_Sym symbol;
  for (int i = 0; data && gelf_getsym(data, i, &symbol); ++i) {
    const int binding = GELF_ST_BIND(symbol.st_info), visibility = GELF_ST_VISIBILITY(symbol.st_other);
    const char* name = elf_strptr(file, header.sh_link, symbol.st_name);
    if (binding != STB_GLOBAL) continue;
    if (symbol.st_shndx == SHN_UNDEF) add(undefined.names, name);
    else if (visibility == STV_DEFAULT || visibility == STV_PROTECTED) add(found.exported, name);
  }
}

}  // namespace

facts facts_of(int descriptor) {
  elf_version(EV_CURRENT);
  const std::unique_ptr<Elf, int (*)(Elf*)> file(elf_begin(descriptor, ELF_C_READ, nullptr), elf_end);
  if (!file || elf_kind(file.get()) != ELF_K_ELF) throw std::runtime_error("it is no ELF file");
  facts found;
  wanted undefined;
  std::size_t segments = 0;
  elf_getphdrnum(file.get(), &segments);
  for (std::size_t i = 0; i < segments; ++i) {
    GElf_Phdr header;
    if (gelf_getphdr(file.get(), static_cast<int>(i), &header) && header.p_type == PT_GNU_STACK)
      found.executable_stack = (header.p_flags & PF_X) != 0;
  }
  for (Elf_Scn* section = nullptr; (section = elf_nextscn(file.get(), section));) {
    GElf_Shdr header;
    if (!gelf_getshdr(section, &header)) continue;
    if (header.sh_type == SHT_DYNAMIC) read_dynamic(file.get(), section, header, found);
    if (header.sh_type == SHT_DYNSYM) read_symbols(file.get(), section, header, found, undefined);
  }

  std::vector<void*> libraries = {
      ::dlopen(nullptr, RTLD_LAZY)};  // the worker: it has the C library and the C++ runtime
  for (const std::string& name : found.needed) {
    if (void* library = ::dlopen(name.c_str(), RTLD_LAZY | RTLD_LOCAL)) libraries.push_back(library);
    else if (const char* why = ::dlerror()) found.missing.push_back(std::string(why).substr(0, name_length));
  }
  const auto resolved = [&](const std::string& name) {
    for (void* library : libraries)
      if (::dlsym(library, name.c_str())) return true;
    return false;
  };
  if (found.missing.empty())  // or it may be in what is missing
    for (std::string& name : undefined.names)
      if (!resolved(name)) found.unresolved.push_back(std::move(name));
  return found;
}

}  // namespace symbolizer
