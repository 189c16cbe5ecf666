// Crash reports as JSON, and as files. See bulkhead/crash_report.hpp.
#include "sandbox/argument_text.hpp"
#include <bulkhead/crash_report.hpp>
#include <bulkhead/ipc/message.hpp>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cctype>
#include <cstring>
#include <ctime>
#include <fstream>

#include <fcntl.h>
#include <sys/stat.h>

namespace bulkhead {
namespace {

using json = nlohmann::ordered_json;  // the summary first
namespace fs = std::filesystem;
using sandbox::hexadecimal;

constexpr int format = 1;
constexpr std::size_t name_limit = 64;
constexpr std::uintmax_t size_limit = std::uintmax_t{1} << 30;

std::uint64_t number(const json& hexadecimal_text) {
  return std::stoull(hexadecimal_text.get<std::string>(), nullptr, 16);
}

// 2024-05-01T12:03:01.123Z, or the same without - and : for names.
std::string time_text(std::chrono::system_clock::time_point time, bool for_name) {
  const auto ms = std::chrono::floor<std::chrono::milliseconds>(time.time_since_epoch());
  const std::time_t seconds = std::chrono::floor<std::chrono::seconds>(ms).count();
  std::tm parts{};
  ::gmtime_r(&seconds, &parts);
  char text[64];
  const std::size_t used = std::strftime(text, sizeof text, for_name ? "%Y%m%dT%H%M%S" : "%Y-%m-%dT%H:%M:%S", &parts);
  std::snprintf(text + used, sizeof text - used, ".%03dZ", static_cast<int>(ms.count() % 1000));
  return text;
}

std::chrono::system_clock::time_point read_time(const std::string& text) {
  std::tm parts{};
  const char* rest = ::strptime(text.c_str(), "%Y-%m-%dT%H:%M:%S", &parts);
  if (!rest) throw std::runtime_error("'" + text + "' is no time");
  return std::chrono::system_clock::from_time_t(::timegm(&parts)) +
         std::chrono::milliseconds(*rest == '.' ? std::atoi(rest + 1) : 0);
}

template <class E>
E read_name(const std::string& name, E last) {
  for (int i = 0; i <= static_cast<int>(last); ++i)
    if (to_string(static_cast<E>(i)) == name) return static_cast<E>(i);
  throw std::runtime_error("'" + name + "' is unknown");
}

json to_object(const stack_frame& frame) {
  json made = {{"address", hexadecimal(frame.address)}, {"origin", to_string(frame.origin)}};
  if (frame.origin != code_origin::unknown) {
    made["module"] = frame.module;
    made["offset"] = hexadecimal(frame.offset);
    made["build_id"] = frame.build_id;
  }
  if (!frame.function.empty()) made["function"] = frame.function;
  if (!frame.source.empty()) made["source"] = frame.source;
  if (frame.line) made["line"] = frame.line;
  if (frame.inlined) made["inlined"] = true;
  if (frame.guessed) made["guessed"] = true;
  return made;
}

stack_frame read_frame(const json& from) {
  stack_frame made;
  made.address = number(from.at("address"));
  made.origin = read_name(from.at("origin"), code_origin::library);
  made.module = from.value("module", "");
  if (from.contains("offset")) made.offset = number(from["offset"]);
  made.build_id = from.value("build_id", "");
  made.function = from.value("function", "");
  made.source = from.value("source", "");
  made.line = from.value("line", 0u);
  made.inlined = from.value("inlined", false);
  made.guessed = from.value("guessed", false);
  return made;
}

json to_object(const crash_report& report) {
  json made = {{"format", format},
               {"summary", report.summary()},
               {"time", time_text(report.time, false)},
               {"plugin", report.plugin},
               {"file", report.file},
               {"sha256", report.sha256},
               {"pid", report.pid},
               {"reason", to_string(report.reason)},
               {"phase", to_string(report.phase)},
               {"method", report.method},
               {"message", report.message},
               {"policy", report.policy},
               {"cpu_us", report.cpu_time.count()},
               {"peak_memory", report.peak_memory},
               {"log_tail", report.log_tail}};
  if (report.reason == exit_reason::exited) made["exit_code"] = report.exit_code;
  if (report.signal != 0) {
    made["signal"] = signal_name(report.signal);
    made["signal_number"] = report.signal;
    if (report.signal_code) {
      made["signal_code"] = signal_code_name(report.signal, *report.signal_code);
      made["signal_code_number"] = *report.signal_code;
    }
    made["fault_address"] = hexadecimal(report.fault_address);
  }
  if (!report.system_call.empty()) {
    made["system_call"] = report.system_call;
    made["system_call_number"] = report.system_call_number;
    if (!report.system_call_arguments.empty()) made["system_call_arguments"] = report.system_call_arguments;
  }
  if (!report.request.empty()) made["request_bytes"] = report.request.size();
  made["stack"] = json::array();
  for (const stack_frame& each : report.stack) made["stack"].push_back(to_object(each));
  if (report.stack.empty()) return made;
  made["frames_omitted"] = report.frames_omitted;
  made["instruction_pointer"] = hexadecimal(report.instruction_pointer);
  made["stack_pointer"] = hexadecimal(report.stack_pointer);
  return made;
}

crash_report from_object(const json& from) {
  if (from.at("format") != format) throw std::runtime_error("it has another format, " + from["format"].dump());
  crash_report made;
  made.time = read_time(from.at("time"));
  made.plugin = from.at("plugin");
  made.file = from.at("file");
  made.sha256 = from.at("sha256");
  made.pid = from.at("pid");
  made.reason = read_name(from.at("reason"), exit_reason::unknown);
  made.phase = read_name(from.at("phase"), phase::shutdown);
  made.method = from.at("method");
  made.message = from.at("message");
  made.policy = from.at("policy");
  made.cpu_time = std::chrono::microseconds(from.at("cpu_us").get<std::int64_t>());
  made.peak_memory = from.at("peak_memory");
  made.log_tail = from.at("log_tail");
  made.exit_code = from.value("exit_code", 0);
  made.signal = from.value("signal_number", 0);
  if (from.contains("signal_code_number")) made.signal_code = from["signal_code_number"].get<int>();
  made.system_call = from.value("system_call", "");
  made.system_call_number = from.value("system_call_number", -1);
  made.system_call_arguments = from.value("system_call_arguments", "");
  if (from.contains("fault_address")) made.fault_address = number(from["fault_address"]);
  for (const json& each : from.at("stack")) made.stack.push_back(read_frame(each));
  made.frames_omitted = from.value("frames_omitted", std::uint64_t{0});
  if (from.contains("instruction_pointer")) made.instruction_pointer = number(from["instruction_pointer"]);
  if (from.contains("stack_pointer")) made.stack_pointer = number(from["stack_pointer"]);
  return made;
}

std::string file_name(const crash_report& report) {
  std::string name;
  for (const char c : report.plugin.substr(0, name_limit))
    name += std::isalnum(static_cast<unsigned char>(c)) || c == '_' || (c == '.' && !name.empty()) ? c : '_';
  return name + "-" + time_text(report.time, true) + "-" + std::to_string(report.pid);
}

// The time in the name of a report's file, and the process; empty: it is something else.
std::string order_of(const fs::path& file) {
  if (file.extension() != ".json") return "";
  const std::string name = file.stem().string();
  constexpr std::string_view form = "-00000000T000000.000Z-";
  const std::size_t last = name.rfind('-');
  if (last == std::string::npos || last + 1 < form.size()) return "";
  const std::size_t first = last + 1 - form.size();
  for (std::size_t i = 0; i < form.size(); ++i) {
    const char c = name[first + i];
    if (form[i] == '0' ? !std::isdigit(static_cast<unsigned char>(c)) : c != form[i]) return "";
  }
  return name.substr(first);
}

fs::path request_file(fs::path report) { return report.replace_extension(".msgpack"); }

// Under its final name only when it is complete.
void write_whole(const fs::path& file, std::string_view bytes) {
  const std::string unfinished = file.string() + ".part";
  const unique_fd out(checked(::open(unfinished.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600),
                              ("open " + unfinished).c_str()));
  while (!bytes.empty()) {
    const ssize_t n = ::write(out.get(), bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      const int error = errno;
      ::unlink(unfinished.c_str());
      throw std::system_error(error, std::generic_category(), "write " + unfinished);
    }
    bytes.remove_prefix(static_cast<std::size_t>(n));
  }
  fs::rename(unfinished, file);
}

std::string read_whole(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  std::error_code unknown;
  const auto size = fs::file_size(file, unknown);
  if (!in || unknown) throw std::runtime_error(file.string() + " can't be read: " + std::strerror(errno));
  if (size > size_limit) throw std::runtime_error(file.string() + " is larger than 1 GiB");
  std::string text(size, 0);
  in.read(text.data(), static_cast<std::streamsize>(size));
  if (!in) throw std::runtime_error(file.string() + " can't be read to its end");
  return text;
}

}  // namespace

std::string to_json(const crash_report& report) {
  return to_object(report).dump(2, ' ', false, json::error_handler_t::replace);
}

fs::path write_crash_report(const fs::path& directory, const crash_report& report, std::size_t limit) {
  if (fs::create_directories(directory)) fs::permissions(directory, fs::perms::owner_all);
  const fs::path file = directory / (file_name(report) + ".json");
  if (!report.request.empty())
    write_whole(request_file(file), {reinterpret_cast<const char*>(report.request.data()), report.request.size()});
  write_whole(file, to_json(report) + "\n");
  const auto all = crash_reports_in(directory);
  for (std::size_t i = std::max<std::size_t>(limit, 1); i < all.size(); ++i) {
    std::error_code gone;
    fs::remove(all[i], gone);
    fs::remove(request_file(all[i]), gone);
  }
  return file;
}

crash_report read_crash_report(const fs::path& file) {
  const std::string text = read_whole(file);
  crash_report made;
  try {
    made = from_object(json::parse(text));
  } catch (const std::exception& e) {
    throw std::runtime_error(file.string() + " is no crash report of bulkhead's: " + e.what());
  }
  if (fs::exists(request_file(file))) {
    const std::string request = read_whole(request_file(file));
    made.request.assign(request.begin(), request.end());
  }
  return made;
}

std::vector<fs::path> crash_reports_in(const fs::path& directory) {
  std::vector<std::pair<std::string, fs::path>> found;
  for (const auto& each : fs::directory_iterator(directory))
    if (std::string order = order_of(each.path()); !order.empty()) found.emplace_back(std::move(order), each.path());
  std::sort(found.rbegin(), found.rend());
  std::vector<fs::path> files;
  for (auto& [order, file] : found) files.push_back(std::move(file));
  return files;
}

}  // namespace bulkhead
