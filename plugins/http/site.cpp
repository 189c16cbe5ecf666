// See site.hpp.
#include "site.hpp"

#include <array>
#include <cerrno>
#include <charconv>
#include <system_error>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>

namespace http_plugin {
namespace {

constexpr std::size_t longest_path = 4096;
constexpr std::string_view index_name = "index.html";

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

bool hidden(std::string_view name) { return name.starts_with('.') && name != ".well-known"; }

unsigned status_of_errno() { return errno == EACCES || errno == EPERM ? 403 : 404; }

bool number(std::string_view text, std::uint64_t& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc() && end == text.data() + text.size();
}

}  // namespace

site::site(const std::string& root) : root_(::open(root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC)) {
  if (!root_) throw std::system_error(errno, std::generic_category(), "root " + root);
}

std::optional<std::string> decoded_path(std::string_view target) {
  target = target.substr(0, target.find_first_of("?#"));
  // "//host" would be another site's address when it is sent back as a Location.
  if (!target.starts_with('/') || target.starts_with("//") || target.size() > longest_path) return std::nullopt;
  std::string path;
  for (std::size_t i = 0; i < target.size(); ++i) {
    char c = target[i];
    if (c == '%') {
      if (i + 2 >= target.size()) return std::nullopt;
      const int high = hex_digit(target[i + 1]), low = hex_digit(target[i + 2]);
      if (high < 0 || low < 0) return std::nullopt;
      c = static_cast<char>(high << 4 | low);
      i += 2;
    }
    if (c == '\0') return std::nullopt;
    path += c;
  }
  for (std::size_t begin = 1; begin <= path.size();) {
    const std::size_t end = std::min(path.find('/', begin), path.size());
    if (std::string_view(path).substr(begin, end - begin) == "..") return std::nullopt;
    begin = end + 1;
  }
  return path;
}

found_file site::find(std::string_view target) const {
  found_file out;
  const auto path = decoded_path(target);
  if (!path) {
    out.status = 400;
    return out;
  }
  std::vector<std::string> names;
  for (std::size_t begin = 1; begin < path->size();) {
    const std::size_t end = std::min(path->find('/', begin), path->size());
    const std::string name = path->substr(begin, end - begin);
    if (hidden(name) && name != ".") return out;
    if (!name.empty() && name != ".") names.push_back(name);
    begin = end + 1;
  }
  const bool directory = path->back() == '/' || names.empty();  // "/."
  if (directory) names.emplace_back(index_name);
  descriptor at;
  for (std::size_t i = 0; i + 1 < names.size(); ++i) {
    at = descriptor(
        ::openat(i == 0 ? root_.get() : at.get(), names[i].c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!at) {
      out.status = status_of_errno();
      return out;
    }
  }
  out.file = descriptor(
      ::openat(at ? at.get() : root_.get(), names.back().c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  struct stat about {};
  if (!out.file || ::fstat(out.file.get(), &about) != 0) {
    out.status = status_of_errno();
  } else if (S_ISDIR(about.st_mode) && !directory) {
    out.status = 301;
  } else if (!S_ISREG(about.st_mode)) {
    out.status = 404;
  } else {
    out.status = 200;
    out.size = static_cast<std::uint64_t>(about.st_size);
    out.modified = about.st_mtime;
    out.type = type_of(names.back());
  }
  return out;
}

std::string_view type_of(std::string_view name) {
  struct entry {
    std::string_view ending, type;
  };
  static constexpr entry types[] = {{"html", "text/html; charset=utf-8"},
                                    {"htm", "text/html; charset=utf-8"},
                                    {"css", "text/css; charset=utf-8"},
                                    {"js", "text/javascript; charset=utf-8"},
                                    {"mjs", "text/javascript; charset=utf-8"},
                                    {"json", "application/json"},
                                    {"txt", "text/plain; charset=utf-8"},
                                    {"md", "text/markdown; charset=utf-8"},
                                    {"csv", "text/csv; charset=utf-8"},
                                    {"xml", "application/xml"},
                                    {"svg", "image/svg+xml"},
                                    {"png", "image/png"},
                                    {"jpg", "image/jpeg"},
                                    {"jpeg", "image/jpeg"},
                                    {"gif", "image/gif"},
                                    {"webp", "image/webp"},
                                    {"ico", "image/x-icon"},
                                    {"pdf", "application/pdf"},
                                    {"wasm", "application/wasm"},
                                    {"woff2", "font/woff2"},
                                    {"mp3", "audio/mpeg"},
                                    {"mp4", "video/mp4"},
                                    {"zip", "application/zip"},
                                    {"gz", "application/gzip"}};
  const std::size_t dot = name.rfind('.');
  if (dot != std::string_view::npos)
    for (const entry& each : types)
      if (name.substr(dot + 1) == each.ending) return each.type;
  return "application/octet-stream";
}

range_result parse_range(std::string_view header, std::uint64_t size, byte_range& out) {
  out = {0, size};
  constexpr std::string_view unit = "bytes=";
  if (!header.starts_with(unit)) return range_result::whole;
  header.remove_prefix(unit.size());
  const std::size_t dash = header.find('-');
  if (dash == std::string_view::npos || header.find(',') != std::string_view::npos) return range_result::whole;
  const std::string_view first = header.substr(0, dash), last = header.substr(dash + 1);
  std::uint64_t from = 0, to = 0;
  if (first.empty()) {  // the last so many
    if (!number(last, to)) return range_result::whole;
    if (to == 0 || size == 0) return range_result::unsatisfiable;
    out.begin = size - std::min(size, to);
    return range_result::part;
  }
  if (!number(first, from) || (!last.empty() && (!number(last, to) || to < from))) return range_result::whole;
  if (from >= size) return range_result::unsatisfiable;
  out.begin = from;
  if (!last.empty() && to < size) out.end = to + 1;
  return range_result::part;
}

std::string http_date(std::time_t when) {
  static constexpr std::array<const char*, 7> days = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
  static constexpr std::array<const char*, 12> months = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                                         "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  std::tm parts{};
  ::gmtime_r(&when, &parts);
  char text[64];
  const int size = std::snprintf(text, sizeof text, "%s, %02d %s %04d %02d:%02d:%02d GMT",
                                 days[static_cast<std::size_t>(parts.tm_wday)], parts.tm_mday,
                                 months[static_cast<std::size_t>(parts.tm_mon)], parts.tm_year + 1900, parts.tm_hour,
                                 parts.tm_min, parts.tm_sec);
  return {text, static_cast<std::size_t>(size)};
}

}  // namespace http_plugin
