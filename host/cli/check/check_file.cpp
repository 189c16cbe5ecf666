// What the plugin's file and its first start show: symbols, libraries, manifest, methods.
#include "check/stages.hpp"

#include <fmt/format.h>

#include <fcntl.h>

namespace bulkhead::cli::check {
namespace {

// The plugin of bulkhead's own that reads ELF files lies beside the worker program.
std::filesystem::path elf_reader() {
  std::error_code ignored;
  const auto program = std::filesystem::read_symlink("/proc/self/exe", ignored).parent_path();
  for (const auto& folder : {program, program / BULKHEAD_WORKER_FROM_PROGRAM})
    if (const auto file = folder / "bulkhead-symbolizer.so"; std::filesystem::exists(file, ignored)) return file;
  throw std::runtime_error("bulkhead-symbolizer.so is missing, a part of bulkhead");
}

std::string listed(const std::vector<std::string>& names) {
  std::string text;
  for (std::size_t i = 0; i < names.size() && i < 8; ++i) text += (i ? ", " : "") + names[i];
  return names.size() > 8 ? text + fmt::format(" and {} more", names.size() - 8) : text;
}

struct facts {
  std::vector<std::string> exported, unresolved, needed, missing;
  std::string run_path;
  bool executable_stack = false, text_relocations = false;
  MSGPACK_DEFINE_MAP(exported, unresolved, needed, missing, run_path, executable_stack, text_relocations)
};

// With as many addresses as the plugin may have: a sanitizer's runtime that workers preload needs them here, too.
facts facts_of(const std::filesystem::path& file, std::size_t memory_limit) {
  const unique_fd opened(::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!opened) throw std::runtime_error("can't read " + file.string());
  host reader;
  load_options options;
  options.policy = policy::strict().at_least(sandbox_level::limited);
  options.memory_limit = memory_limit;
  const reply found = reader.load(elf_reader(), options).try_call("facts", pass_fd{opened.get()});
  found.throw_if_failed();
  const msgpack::object_handle unpacked = ipc::unpack(found.raw());
  return unpacked.get().as<facts>();
}

}  // namespace

void check_file(exam& of, result& found) {
  facts read;
  try {
    read = facts_of(of.with.file, of.with.for_load.memory_limit);
  } catch (const call_error& e) {
    found.fail("its file can't be read: " + e.message());
    return;
  }
  std::erase_if(read.exported, [](const std::string& name) {  // AddressSanitizer adds a symbol for each
    return name == "bulkhead_entry" || name == "__odr_asan.bulkhead_entry";
  });
  found.note = fmt::format("symbols, {} libraries", read.needed.size());
  if (!read.exported.empty())
    found.fail("it exports more than bulkhead_entry: " + listed(read.exported) +
               "; compile with -fvisibility=hidden, or make them static");
  if (!read.missing.empty()) found.fail("it needs libraries that can't be loaded: " + listed(read.missing));
  if (!read.unresolved.empty())
    found.fail("no library that it is linked with has these symbols: " + listed(read.unresolved) +
               "; link it with -Wl,--no-undefined to see what is missing");
  if (read.executable_stack) found.fail("it asks for an executable stack; link it with -Wl,-z,noexecstack");
  if (read.text_relocations) found.fail("it has relocations in its code; compile all of it with -fPIC");
  if (!read.run_path.empty()) found.warn("its run path " + read.run_path + " is not there in the sandbox of a worker");
}

bool check_start(exam& of, result& found) {
  try {
    load_options options = of.with.for_load;
    host first(of.with.for_host);
    options.policy = of.with.most;
    const auto begin = std::chrono::steady_clock::now();
    plugin target = first.load(of.with.file, options);
    const auto took = std::chrono::steady_clock::now() - begin;
    of.info = target.describe();
    found.note = fmt::format("ready after {} ms", std::chrono::duration_cast<std::chrono::milliseconds>(took).count());
  } catch (const call_error& e) {
    const std::string how = e.report() ? e.report()->summary() : std::string();
    const bool told = how.empty() || e.message().find(how) != std::string::npos;
    found.fail(e.message() + (told ? "" : " (it " + how + ")"));
    return false;
  }
  const plugin_info& info = of.info;
  if (info.version.empty()) found.fail("its manifest names no version");
  if (info.license.empty()) found.warn("its manifest names no licence: BULKHEAD_MANIFEST(license, \"license=MIT\")");
  if (info.description.empty()) found.warn("its manifest has no description");
  for (const std::string& request : info.requests) {
    try {
      policy{}.add(request);
    } catch (const std::invalid_argument& e) {
      found.fail("its manifest asks for '" + request + "', which means nothing: " + e.what());
    }
  }
  of.rules = of.with.most.intersect(info.requests);
  if (info.requests.empty()) of.rules = of.with.most;
  return true;
}

void check_methods(exam& of, result& found) {
  found.note = fmt::format("{} methods", of.info.methods.size());
  if (of.info.methods.empty()) found.fail("it has no methods");
  for (const method_info& each : of.info.methods) {
    method_under_check made{each};
    if (const auto form = parse_signature(each.signature)) {
      made.form = *form;
      made.typed = true;
    } else {
      found.fail(fmt::format("the signature of '{}' is none: '{}'; see bulkhead/plugin.h for how they are written",
                             each.name, each.signature));
    }
    if (each.doc.empty()) found.warn("'" + each.name + "' has no doc");
    of.methods.push_back(std::move(made));
  }
}

}  // namespace bulkhead::cli::check
