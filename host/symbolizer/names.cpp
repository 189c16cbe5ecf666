// See names.hpp. Function names come from the symbol table, which stripped libraries have for what they export; lines
// and inlined functions from DWARF, where there is any.
#include "names.hpp"

#include <dwarf.h>
#include <elfutils/libdwfl.h>

#include <cstdlib>
#include <stdexcept>
#include <string_view>
#include <utility>

#include <cxxabi.h>
#include <unistd.h>

namespace symbolizer {
namespace {

constexpr std::size_t name_limit = 1000;

// Separate files of debug information are not looked for: there are none in the sandbox.
int no_other_file(Dwfl_Module*, void**, const char*, Dwarf_Addr, const char*, const char*, GElf_Word, char**) {
  return -1;
}

constexpr Dwfl_Callbacks callbacks = {dwfl_build_id_find_elf, no_other_file, dwfl_offline_section_address, nullptr};

// As people write it: the demangler spells out what std::string is short for.
std::string readable(std::string name) {
  static const std::pair<std::string_view, std::string_view> shorter[] = {
      {"std::__cxx11::", "std::"},
      {"std::basic_string<char, std::char_traits<char>, std::allocator<char> >", "std::string"},
      {"std::basic_string_view<char, std::char_traits<char> >", "std::string_view"},
  };
  for (const auto& [longer, instead] : shorter)
    for (std::size_t at = 0; (at = name.find(longer, at)) != std::string::npos; at += instead.size())
      name.replace(at, longer.size(), instead);
  return name.substr(0, name_limit);
}

// Empty when it is not mangled, or not in a way that this demangler knows.
std::string demangled(const char* name) {
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> plain(abi::__cxa_demangle(name, nullptr, nullptr, &status), std::free);
  return plain ? readable(plain.get()) : "";
}

std::string name_of(Dwarf_Die* die) {
  Dwarf_Attribute attribute;
  for (const unsigned which : {DW_AT_linkage_name, DW_AT_MIPS_linkage_name})
    if (const char* name = dwarf_formstring(dwarf_attr_integrate(die, which, &attribute)))
      if (std::string plain = demangled(name); !plain.empty()) return plain;
  const char* name = dwarf_diename(die);
  return name ? std::string(name).substr(0, name_limit) : "";
}

int number(Dwarf_Die* die, unsigned which) {
  Dwarf_Attribute attribute;
  Dwarf_Word value = 0;
  return dwarf_formudata(dwarf_attr(die, which, &attribute), &value) == 0 ? static_cast<int>(value) : 0;
}

// The chain of what was inlined at an address, as dwarf_getscopes(3) and elfutils' own addr2line go about it.
void add_inlined(std::vector<place>& places, Dwfl_Module* module, Dwarf_Addr address) {
  Dwarf_Addr bias = 0;
  Dwarf_Die* unit = dwfl_module_addrdie(module, address, &bias);
  if (!unit) return;
  Dwarf_Die* found = nullptr;
  int count = dwarf_getscopes(unit, address - bias, &found);
  std::unique_ptr<Dwarf_Die, void (*)(void*)> scopes(found, std::free);
  if (count <= 0) return;
  Dwarf_Die innermost;
  if (!dwarf_offdie(dwfl_module_getdwarf(module, &bias), dwarf_dieoffset(found), &innermost)) return;
  found = nullptr;
  count = dwarf_getscopes_die(&innermost, &found);
  scopes.reset(found);
  Dwarf_Files* files = nullptr;
  if (count <= 0 || dwarf_getsrcfiles(unit, &files, nullptr) != 0) return;
  for (int i = 0; i < count; ++i) {
    if (dwarf_tag(&found[i]) == DW_TAG_subprogram) {
      if (places.back().function.empty()) places.back().function = name_of(&found[i]);
      return;
    }
    if (dwarf_tag(&found[i]) != DW_TAG_inlined_subroutine) continue;
    place caller{std::move(places.back().function), "", number(&found[i], DW_AT_call_line)};
    places.back().function = name_of(&found[i]);
    const char* source =
        dwarf_filesrc(files, static_cast<std::size_t>(number(&found[i], DW_AT_call_file)), nullptr, nullptr);
    if (source) caller.source = source;
    places.push_back(std::move(caller));
  }
}

}  // namespace

struct file::module {
  std::unique_ptr<Dwfl, void (*)(Dwfl*)> session{dwfl_begin(&callbacks), dwfl_end};
  Dwfl_Module* of = nullptr;
  Dwarf_Addr bias = 0;
};

file::file(int descriptor, const std::string& build_id) : module_(std::make_unique<module>()) {
  const auto fail = [&](const char* what) { throw std::runtime_error(std::string(what) + ": " + dwfl_errmsg(-1)); };
  module_->of = dwfl_report_offline(module_->session.get(), "file", "file", descriptor);
  if (!module_->of) ::close(descriptor);
  if (!module_->of) fail("it can't be read");
  dwfl_report_end(module_->session.get(), nullptr, nullptr);
  if (!dwfl_module_getelf(module_->of, &module_->bias)) fail("it is no ELF file");
  const unsigned char* bytes = nullptr;
  GElf_Addr where = 0;
  const int size = dwfl_module_build_id(module_->of, &bytes, &where);
  std::string own;
  for (int i = 0; i < size; ++i) {
    own += "0123456789abcdef"[bytes[i] >> 4];
    own += "0123456789abcdef"[bytes[i] & 15];
  }
  if (!build_id.empty() && !own.empty() && own != build_id) throw std::runtime_error("it is another build");
}

file::~file() = default;

std::vector<place> file::at(std::uint64_t offset) const {
  const Dwarf_Addr address = offset + module_->bias;
  std::vector<place> places(1);
  GElf_Off within = 0;
  GElf_Sym symbol;
  if (const char* name = dwfl_module_addrinfo(module_->of, address, &within, &symbol, nullptr, nullptr, nullptr);
      name && (symbol.st_size == 0 || within < symbol.st_size)) {
    places[0].function = demangled(name);
    if (places[0].function.empty()) places[0].function = std::string(name).substr(0, name_limit);
  }
  if (Dwfl_Line* line = dwfl_module_getsrc(module_->of, address))
    if (const char* source = dwfl_lineinfo(line, nullptr, &places[0].line, nullptr, nullptr, nullptr))
      places[0].source = source;
  add_inlined(places, module_->of, address);
  if (places.size() == 1 && places[0].function.empty() && places[0].source.empty()) places.clear();
  return places;
}

}  // namespace symbolizer
