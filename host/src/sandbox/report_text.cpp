// See report_text.hpp.
#include "sandbox/report_text.hpp"

#include <utility>

namespace bulkhead::sandbox {

std::string to_lines(const sandbox_report& report) {
  std::string text = std::to_string(static_cast<int>(report.level)) + "\n";
  for (const sandbox_layer& each : report.layers) text += to_line(each);
  return text;
}

std::string to_line(const sandbox_layer& layer) {
  return layer.name + "\t" + (layer.in_force ? "1" : "0") + "\t" + layer.detail + "\n";
}

sandbox_report from_lines(std::string_view text) {
  sandbox_report report;
  bool first = true;
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    if (std::exchange(first, false)) {
      if (line.size() == 1 && line[0] >= '0' && line[0] <= '3')
        report.level = static_cast<sandbox_level>(line[0] - '0');
      continue;
    }
    const std::size_t tab = line.find('\t');
    if (tab == std::string_view::npos || tab + 2 >= line.size()) continue;
    report.layers.push_back(
        {std::string(line.substr(0, tab)), line[tab + 1] == '1', std::string(line.substr(tab + 3))});
  }
  return report;
}

std::string missing_grants(const sandbox_report& report) {
  for (const sandbox_layer& each : report.layers)
    if (const auto at = each.detail.find(not_there); each.in_force && at != std::string::npos)
      return each.detail.substr(at);
  return "";
}

}  // namespace bulkhead::sandbox
