// How output looks on a terminal: styles only where there is one (and NO_COLOR is not set), columns that line up, and a
// line that is redrawn while something goes on.
#pragma once

#include <string>
#include <string_view>

namespace bulkhead::cli {

enum class stream { out = 1, err = 2 };

bool is_terminal(stream where);
// Columns of the terminal; 100 when there is none or it does not say.
std::size_t width_of(stream where);

// Text in bold, and so on, for `where`; the bare text when that is no terminal.
std::string bold(stream where, std::string_view text);
std::string faint(stream where, std::string_view text);
std::string red(stream where, std::string_view text);
std::string green(stream where, std::string_view text);

// How many columns UTF-8 text takes, near enough: one for each code point.
std::size_t columns(std::string_view text);
// The beginning of `text` that takes at most `width` columns; styles count for nothing.
std::string beginning(std::string_view text, std::size_t width);
// `text` with spaces after it, up to `width` columns.
std::string padded(std::string_view text, std::size_t width);
// `text` broken at spaces into lines of at most `width` columns, each but the first after `indent` spaces.
std::string wrapped(std::string_view text, std::size_t indent, std::size_t width);

// One line on stderr that each show() replaces. Does nothing when stderr is no terminal. Not thread-safe.
class status_line {
 public:
  ~status_line() { clear(); }
  void show(std::string_view text);
  void clear();

 private:
  bool shown_ = false;
};

}  // namespace bulkhead::cli
