// See units.hpp.
#include "units.hpp"

#include <charconv>

namespace bulkhead::cli {
namespace {

// A CLI11 option that is read by `parse`, and refused with `expected` when that gives nothing.
template <class T, class F>
CLI::Option* add(CLI::App& app, const char* name, T& out, F parse, const char* type_name, const char* expected,
                 const char* description) {
  auto read = [&out, parse, name, expected](const CLI::results_t& words) {
    const auto value = parse(words.back());
    if (!value) throw CLI::ValidationError(name, std::string("expected ") + expected + ", got '" + words.back() + "'");
    out = *value;
    return true;
  };
  return app.add_option(name, CLI::callback_t(read), description)->type_name(type_name);
}

}  // namespace

std::optional<std::chrono::nanoseconds> parse_duration(std::string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const std::string_view unit = text.substr(static_cast<std::size_t>(end - text.data()));
  const double seconds = unit == "ms"  ? value / 1e3
                         : unit == "s" ? value
                         : unit == "m" ? value * 60
                         : unit == "h" ? value * 3600
                                       : -1;
  constexpr double century = 100.0 * 365 * 24 * 3600;
  if (error != std::errc() || !(seconds > 0 && seconds < century)) return std::nullopt;
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::duration<double>(seconds));
}

std::optional<std::size_t> parse_size(std::string_view text) {
  std::size_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const std::string_view unit = text.substr(static_cast<std::size_t>(end - text.data()));
  const int shift = unit.empty() ? 0 : unit == "K" ? 10 : unit == "M" ? 20 : unit == "G" ? 30 : -1;
  if (error != std::errc() || shift < 0 || value > (SIZE_MAX >> shift)) return std::nullopt;
  return value << shift;
}

CLI::Option* add_duration(CLI::App& app, const char* name, std::chrono::nanoseconds& out, const char* description) {
  return add(app, name, out, parse_duration, "TIME", "a time such as 500ms, 5s or 2m", description);
}

CLI::Option* add_size(CLI::App& app, const char* name, std::size_t& out, const char* description) {
  return add(app, name, out, parse_size, "SIZE", "a size such as 256M or 1G", description);
}

}  // namespace bulkhead::cli
