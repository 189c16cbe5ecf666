// The reader of manifests: whatever a file claims to be, it is a manifest or a clear error.
#include "manifest.hpp"

#include "elf_file.hpp"
#include "plugin_runtime.hpp"

#include <catch2/catch.hpp>

#include <fstream>
#include <functional>
#include <iterator>

#include <fcntl.h>

namespace bulkhead::testing {
namespace {

using Catch::Matchers::Contains;
using Catch::Matchers::Equals;
using Catch::Matchers::StartsWith;
using namespace std::string_literals;

const std::string lines = "abi=1\0id=stats\0version=1.2.0\0"s;

// What read_manifest() says of a file; "" when it is a manifest.
std::string refusal(std::string_view content) {
  try {
    read_manifest(file_of(content).get());
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "";
}

std::string refusal(const std::function<void(elf_file&)>& damage) {
  elf_file file(lines);
  damage(file);
  return refusal(file.content());
}

manifest read(const std::string& text) { return read_manifest(file_of(elf_file(text).content()).get()); }

constexpr const char* not_elf = "not a bulkhead plugin: not an ELF file";
constexpr const char* bad_table = "not a bulkhead plugin: its section table is missing or malformed";
constexpr const char* table_outside = "not a bulkhead plugin: its section table lies outside the file";
constexpr const char* manifest_outside = "not a bulkhead plugin: its manifest lies outside the file";

TEST_CASE("manifest: its lines are read, others are passed over") {
  const manifest found = read(
      "abi=1\0\0\0id=stats\0version=1.2.0\0name=Statistics=good\0request=read:/a\0"
      "no line of ours\0future=yes\0license=MIT\0description=Means\0request=memory:64M"s);
  CHECK(found.id == "stats");
  CHECK(found.abi == 1);
  CHECK(found.version == "1.2.0");
  CHECK(found.name == "Statistics=good");
  CHECK(found.license == "MIT");
  CHECK(found.description == "Means");
  CHECK(found.requests == std::vector<std::string>{"read:/a", "memory:64M"});
}

TEST_CASE("manifest: a value is made fit to be shown, and short") {
  const manifest found = read(lines + "name=\x1b[31mred\0description="s + std::string(5000, 'd'));
  CHECK(found.name == "\\x1b[31mred");
  CHECK(found.description.size() <= 1024);
  CHECK_THAT(found.description, Catch::Matchers::EndsWith("..."));
}

TEST_CASE("manifest: a file cut anywhere is refused") {
  const std::string whole = elf_file(lines).content();
  REQUIRE(refusal(whole).empty());
  const std::size_t table = sizeof(Elf64_Ehdr), names = table + 3 * sizeof(Elf64_Shdr);
  const std::size_t manifest = whole.size() - lines.size();
  for (std::size_t size = 0; size < whole.size(); ++size) {
    INFO(size << " of " << whole.size() << " bytes");
    CHECK(refusal(std::string_view(whole).substr(0, size)) ==
          (size < table      ? not_elf
           : size < names    ? table_outside
           : size < manifest ? "not a bulkhead plugin: its table of section names lies outside the file"
                             : manifest_outside));
  }
}

TEST_CASE("manifest: a file with any byte changed is a manifest or refused") {
  const std::string whole = elf_file(lines).content();
  for (std::size_t at = 0; at < whole.size(); ++at) {
    for (const int change : {0x01, 0x80, 0xff}) {
      std::string odd = whole;
      odd[at] = static_cast<char>(odd[at] ^ change);
      INFO("byte " << at << " ^ " << change);
      const std::string text = refusal(odd);
      if (!text.empty()) CHECK_THAT(text, StartsWith("not a bulkhead plugin: "));
    }
  }
}

TEST_CASE("manifest: a real plugin is read, cut, it is refused") {
  std::ifstream file(BULKHEAD_TEST_PLUGINS "/echo.so", std::ios::binary);
  const std::string whole(std::istreambuf_iterator<char>(file), {});
  REQUIRE(refusal(whole).empty());
  const unique_fd part = file_of(whole);
  CHECK(read_manifest(part.get()).id == "echo");
  // The section table is at the end, so that every length is too short.
  for (std::size_t size = whole.size() - 1; size > 0; size = size > 1009 ? size - 1009 : size - 1) {
    REQUIRE(::ftruncate(part.get(), static_cast<off_t>(size)) == 0);
    CHECK_THROWS_WITH(read_manifest(part.get()), StartsWith("not a bulkhead plugin: "));
  }
}

TEST_CASE("manifest: what is no shared library for this machine is refused") {
  CHECK(refusal("") == not_elf);
  CHECK(refusal(std::string(4096, '\0')) == not_elf);
  CHECK(refusal("#!/bin/sh\necho hello; echo this script is longer than any header of an ELF file\n") == not_elf);
  CHECK(refusal([](elf_file& f) { f.header.e_ident[EI_CLASS] = ELFCLASS32; }) ==
        "not a bulkhead plugin: not a 64-bit ELF file");
  CHECK(refusal([](elf_file& f) { f.header.e_ident[EI_DATA] = ELFDATA2MSB; }) ==
        "not a bulkhead plugin: not a 64-bit ELF file");
  CHECK(refusal([](elf_file& f) { f.header.e_machine = EM_RISCV; }) ==
        "not a bulkhead plugin: built for another processor");
  CHECK(refusal([](elf_file& f) { f.header.e_type = ET_REL; }) == "not a bulkhead plugin: not a shared library");
  const unique_fd folder(::open("/", O_RDONLY | O_CLOEXEC));
  CHECK_THROWS_WITH(read_manifest(folder.get()), Equals(not_elf));
  CHECK_THROWS_WITH(read_manifest(-1), Equals(not_elf));
}

TEST_CASE("manifest: a section table that lies is refused") {
  CHECK(refusal([](elf_file& f) { f.header.e_shentsize = 32; }) == bad_table);
  CHECK(refusal([](elf_file& f) { f.header.e_shnum = 0; }) == bad_table);
  CHECK(refusal([](elf_file& f) { f.header.e_shnum = 0xffff; }) == bad_table);
  CHECK(refusal([](elf_file& f) { f.header.e_shstrndx = 3; }) == bad_table);
  CHECK(refusal([](elf_file& f) { f.header.e_shstrndx = SHN_XINDEX; }) == bad_table);
  CHECK(refusal([](elf_file& f) { f.header.e_shnum = 4096; }) == table_outside);
  for (const std::uint64_t offset :
       {std::uint64_t{1} << 20, UINT64_MAX, UINT64_MAX - 100, std::uint64_t{INT64_MAX}, std::uint64_t{1} << 63}) {
    CHECK(refusal([&](elf_file& f) { f.header.e_shoff = offset; }) == table_outside);
    CHECK(refusal([&](elf_file& f) { f.sections[2].sh_offset = offset; }) == manifest_outside);
  }
}

TEST_CASE("manifest: a section that lies about its size is refused before anything is allocated") {
  constexpr const char* manifest_large = "not a bulkhead plugin: its manifest is too large";
  for (const std::uint64_t size : {std::uint64_t{1} << 40, UINT64_MAX, (std::uint64_t{64} << 10) + 1})
    CHECK(refusal([&](elf_file& f) { f.sections[2].sh_size = size; }) == manifest_large);
  CHECK(refusal([](elf_file& f) { f.sections[2].sh_size = std::uint64_t{64} << 10; }) == manifest_outside);
  CHECK(refusal([](elf_file& f) { f.sections[2].sh_type = SHT_NOBITS; }) == manifest_large);
  CHECK(refusal([](elf_file& f) { f.sections[1].sh_size = std::uint64_t{1} << 40; }) ==
        "not a bulkhead plugin: its table of section names is too large");
}

TEST_CASE("manifest: a library without the section is refused") {
  const char* none =
      "not a bulkhead plugin: it has no manifest (BULKHEAD_PLUGIN or BULKHEAD_MANIFEST_BEGIN writes one)";
  CHECK(refusal([](elf_file& f) { f.names[11] = 'B'; }) == none);
  CHECK(refusal([](elf_file& f) { f.sections[2].sh_name = 12; }) == none);
  CHECK(refusal([](elf_file& f) { f.sections[2].sh_name = static_cast<Elf64_Word>(f.names.size()); }) == none);
  CHECK(refusal([](elf_file& f) { f.sections[2].sh_name = UINT32_MAX; }) == none);
  CHECK(refusal([](elf_file& f) { f.sections[1].sh_size = 0; }) == none);
  CHECK(refusal([](elf_file& f) { f.sections[1].sh_size -= 2; }) == none);  // "bulkhead_manifes" and the end
  CHECK(refusal([](elf_file& f) { f.sections[1].sh_size -= 1; }).empty());  // the whole name, the end for its zero
}

TEST_CASE("manifest: another version of the ABI is refused, and the text says what to do") {
  CHECK(
      refusal(elf_file("abi=2\0id=stats\0"s).content()) ==
      "not a bulkhead plugin: it was built for ABI version 2, this bulkhead speaks 1; rebuild the plugin against this "
      "version's SDK");
  for (const std::string abi : {"0", "", "x", "-1", "99999999999999999999"})
    CHECK_THAT(refusal(elf_file("abi=" + abi + "\0id=stats\0"s).content()), Contains("it was built for ABI version"));
  CHECK_THAT(refusal(elf_file("id=stats\0"s).content()), Contains("ABI version 0"));
}

TEST_CASE("manifest: without an id, or with two, it is refused") {
  CHECK(refusal(elf_file("abi=1\0version=1\0"s).content()) == "not a bulkhead plugin: its manifest names no id");
  CHECK(refusal(elf_file("").content()) == "not a bulkhead plugin: its manifest names no id");
  CHECK(refusal(elf_file(lines + "id=other\0"s).content()) ==
        "not a bulkhead plugin: its manifest states id twice (are two plugins linked into one library?)");
  CHECK_THAT(refusal(elf_file(lines + "abi=1\0"s).content()), Contains("its manifest states abi twice"));
  CHECK_THAT(refusal(elf_file(lines + "version=1.2.0\0"s).content()), Contains("its manifest states version twice"));
}

// --- what the manifest can't show: the plugin's own table of methods ------------------------------------------------

class no_link final : public plugin_runtime::link {
  void answer(bulkhead_call&, ipc::byte_span) override {}
  void fail(bulkhead_call&, ipc::call_failure) override {}
  void progress(bulkhead_call&, ipc::byte_span) override {}
  void log(int, std::string_view) override {}
  bool emit(std::string_view, ipc::byte_span, std::vector<unique_fd>) override { return false; }
  void poll(bulkhead_call&) override {}
  ipc::completion call_host(bulkhead_call*, std::string_view, ipc::byte_span, std::vector<unique_fd>) override {
    return {};
  }
};

void load(const std::string& file) {
  no_link link;
  plugin_runtime runtime(link);
  runtime.load(BULKHEAD_ODD_PLUGINS "/" + file);
}

TEST_CASE("a plugin whose methods are not in order is refused when it is loaded") {
  CHECK_NOTHROW(load("odd_none.so"));
  CHECK_THROWS_WITH(load("odd_duplicate.so"), Equals("it has two methods named 'one'"));
  CHECK_THROWS_WITH(load("odd_unnamed.so"), Equals("its method number 2 has no name"));
  CHECK_THROWS_WITH(load("odd_empty.so"), Equals("its method number 2 has no name"));
  CHECK_THROWS_WITH(load("odd_uninvokable.so"), Equals("its method 'two' has no function"));
  CHECK_THROWS_WITH(load("odd_reserved.so"), Equals("its method '$/ready' has a reserved name"));
}

TEST_CASE("a library that is no plugin is refused when it is loaded") {
  CHECK_THROWS_WITH(load("odd_entryless.so"), Equals("not a bulkhead plugin: it does not export bulkhead_entry"));
  CHECK_THROWS_WITH(load("odd_future.so"), Equals("not a bulkhead plugin: its entry states ABI version 2, expected 1"));
  CHECK_THROWS_WITH(load("odd_nothing.so"), Equals("its create() failed"));
  CHECK_THROWS_WITH(load("missing.so"), StartsWith("could not load it: "));
}

}  // namespace
}  // namespace bulkhead::testing
