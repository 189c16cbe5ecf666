// See terminal.hpp.
#include "terminal.hpp"

#include <fmt/format.h>

#include <cstdlib>

#include <sys/ioctl.h>
#include <unistd.h>

namespace bulkhead::cli {
namespace {

std::string styled(stream where, std::string_view code, std::string_view text) {
  const char* off = std::getenv("NO_COLOR");
  if (!is_terminal(where) || (off && *off)) return std::string(text);
  return fmt::format("\x1b[{}m{}\x1b[0m", code, text);
}

bool starts_a_character(char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }

}  // namespace

bool is_terminal(stream where) { return ::isatty(static_cast<int>(where)) == 1; }

std::size_t width_of(stream where) {
  winsize size{};
  const bool known = ::ioctl(static_cast<int>(where), TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  return known ? size.ws_col : 100;
}

std::string bold(stream where, std::string_view text) { return styled(where, "1", text); }
std::string faint(stream where, std::string_view text) { return styled(where, "2", text); }
std::string red(stream where, std::string_view text) { return styled(where, "31;1", text); }
std::string green(stream where, std::string_view text) { return styled(where, "32", text); }

std::size_t columns(std::string_view text) {
  std::size_t count = 0;
  for (const char c : text) count += starts_a_character(c);
  return count;
}

std::string beginning(std::string_view text, std::size_t width) {
  std::size_t used = 0;
  for (std::size_t at = 0; at < text.size(); ++at) {
    if (text[at] == '\x1b') at = std::min(text.find('m', at), text.size() - 1);  // a style
    else if (starts_a_character(text[at]) && used++ == width) return std::string(text.substr(0, at)) + "\x1b[0m";
  }
  return std::string(text);
}

std::string padded(std::string_view text, std::size_t width) {
  const std::size_t used = columns(text);
  return std::string(text) + std::string(used < width ? width - used : 0, ' ');
}

std::string wrapped(std::string_view text, std::size_t indent, std::size_t width) {
  std::string out;
  std::size_t used = 0;
  while (!text.empty()) {
    const std::size_t space = text.find_first_of(" \n");
    const std::string_view word = text.substr(0, space);
    text.remove_prefix(space == std::string_view::npos ? text.size() : space + 1);
    if (word.empty()) continue;
    if (used > 0 && used + 1 + columns(word) > width) {
      out += "\n" + std::string(indent, ' ');
      used = 0;
    } else if (used > 0) {
      out += ' ';
      ++used;
    }
    out += word;
    used += columns(word);
  }
  return out;
}

void status_line::show(std::string_view text) {
  if (!is_terminal(stream::err)) return;
  const std::size_t width = width_of(stream::err);
  fmt::print(stderr, "\r{}\x1b[K", beginning(text, width > 1 ? width - 1 : 1));
  shown_ = true;
}

void status_line::clear() {
  if (shown_) fmt::print(stderr, "\r\x1b[K");
  shown_ = false;
}

}  // namespace bulkhead::cli
