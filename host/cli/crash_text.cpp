// See crash_text.hpp.
#include "crash_text.hpp"

#include "values/from_msgpack.hpp"
#include <bulkhead/ipc/message.hpp>

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <sstream>

namespace bulkhead::cli {
namespace {

constexpr std::size_t frames_before_gap = 48;  // see crash_report::frames_omitted
constexpr std::size_t request_shown = 400;

std::string module_of(const stack_frame& frame) {
  if (frame.origin == code_origin::unknown) return "?";
  return ipc::sanitised(std::filesystem::path(frame.module).filename().string());
}

std::string text_of(const stack_frame& frame) {
  std::string text = frame.function;
  if (text.empty())
    text = frame.origin == code_origin::unknown ? fmt::format("{:#x}", frame.address)
                                                : fmt::format("+{:#x}", frame.offset);
  if (!frame.source.empty()) text += fmt::format(" at {}:{}", frame.source, frame.line);
  if (frame.inlined) text += " (inlined)";
  return ipc::sanitised(text);
}

// How many frames, from the innermost on, it takes to show all of the plugin's.
std::size_t plugin_depth(const std::vector<stack_frame>& stack) {
  for (std::size_t i = stack.size(); i > 0; --i)
    if (stack[i - 1].origin == code_origin::plugin) return i;
  return stack.size();
}

void print_field(std::string_view name, std::string_view value) {
  constexpr std::size_t indent = 12;
  if (value.empty()) return;
  const std::size_t width = width_of(stream::out);
  fmt::print("  {} {}\n", faint(stream::out, padded(name, indent - 3)),
             wrapped(ipc::sanitised(value), indent, width > indent + 40 ? width - indent : 40));
}

std::string size_text(std::uint64_t bytes) {
  return bytes < (1u << 20) ? fmt::format("{} KiB", bytes >> 10)
                            : fmt::format("{:.1f} MiB", static_cast<double>(bytes) / (1 << 20));
}

std::string request_text(const std::vector<std::uint8_t>& request) {
  if (request.empty()) return "";
  std::string text;
  try {
    text = compact(from_msgpack(ipc::unpack(request).get(), bytes_as::summary));
  } catch (const std::exception&) {
    text = "not MessagePack";
  }
  if (text.size() > request_shown) text = text.substr(0, request_shown) + "...";
  return fmt::format("{} bytes: {}", request.size(), text);
}

std::string signal_text(const crash_report& report) {
  if (!report.signal) return "";
  std::string text = signal_name(report.signal);
  if (report.signal_code) text += fmt::format(", {}", signal_code_name(report.signal, *report.signal_code));
  if (report.fault_address) text += fmt::format(", at address {:#x}", report.fault_address);
  return text;
}

}  // namespace

std::string local_time(std::chrono::system_clock::time_point time) {
  return fmt::format("{:%Y-%m-%d %H:%M:%S}", fmt::localtime(std::chrono::system_clock::to_time_t(time)));
}

void print_stack(stream where, const crash_report& report, frames_shown which) {
  std::FILE* const out = where == stream::out ? stdout : stderr;
  const auto& stack = report.stack;
  const std::size_t shown = which == frames_shown::all ? stack.size() : plugin_depth(stack);
  std::size_t modules = 0, numbered = 0;
  bool guesses = false;
  for (std::size_t i = 0; i < shown; ++i) {
    modules = std::max(modules, columns(module_of(stack[i])));
    guesses = guesses || stack[i].guessed;
  }
  const std::size_t numbers = fmt::format("#{} ", shown + report.frames_omitted).size();
  const std::size_t indent = 4 + numbers + (guesses ? 2 : 0) + modules + 2;
  const std::size_t width = std::max(width_of(where), indent + 40) - indent;
  const auto remark = [&](const std::string& text) { fmt::print(out, "    {}\n", faint(where, text)); };
  std::size_t repeats = 0;
  const auto end_repeats = [&] {
    if (repeats > 0) remark(fmt::format("... {} more of the same ...", repeats));
    repeats = 0;
  };
  for (std::size_t i = 0; i < shown; ++i) {
    const stack_frame& each = stack[i];
    if (i > 0 && each.address == stack[i - 1].address && !stack[i - 1].inlined && !each.inlined) {
      ++repeats;  // recursion
    } else {
      end_repeats();
      const std::string text = wrapped(text_of(each), indent, width);
      fmt::print(out, "    {:<{}}{}{}  {}\n", fmt::format("#{}", numbered), numbers,
                 guesses ? each.guessed ? "? " : "  " : "", faint(where, padded(module_of(each), modules)),
                 each.origin == code_origin::plugin ? text : faint(where, text));
    }
    if (each.inlined) continue;
    if (++numbered == frames_before_gap && report.frames_omitted > 0) {
      end_repeats();
      remark(fmt::format("... {} frames that were not recorded ...", report.frames_omitted));
      numbered += report.frames_omitted;
    }
  }
  end_repeats();
  if (shown < stack.size()) remark(fmt::format("... {} more of the worker's own", stack.size() - shown));
  if (guesses) remark("? its stack is damaged: these addresses were found on it, and may be stale");
}

void print_report(const crash_report& report) {
  fmt::print("{} {}\n\n", bold(stream::out, ipc::sanitised(report.plugin)), ipc::sanitised(report.summary()));
  print_field("when", local_time(report.time));
  print_field("file", report.file);
  print_field("SHA-256", report.sha256);
  print_field("worker",
              fmt::format("pid {}; {:.3f} s of CPU time, {} of memory at most", report.pid,
                          std::chrono::duration<double>(report.cpu_time).count(), size_text(report.peak_memory)));
  print_field("phase", to_string(report.phase));
  print_field("method", report.method);
  print_field("request", request_text(report.request));
  print_field("signal", signal_text(report));
  if (!report.system_call.empty())
    print_field("syscall", fmt::format("{}({}), number {}", report.system_call, report.system_call_arguments,
                                       report.system_call_number));
  if (report.instruction_pointer)
    print_field("registers", fmt::format("ip {:#x}, sp {:#x}", report.instruction_pointer, report.stack_pointer));
  std::string grants = report.policy;
  for (char& c : grants)
    if (c == '\n') c = ' ';
  print_field("policy", grants);
  if (!report.stack.empty()) fmt::print("\n  {}\n", faint(stream::out, "stack, innermost first"));
  print_stack(stream::out, report, frames_shown::all);
  if (report.log_tail.empty()) return;
  fmt::print("\n  {}\n", faint(stream::out, "its last lines"));
  std::istringstream in(report.log_tail);
  for (std::string line; std::getline(in, line);) fmt::print("    {}\n", ipc::sanitised(line));
}

}  // namespace bulkhead::cli
