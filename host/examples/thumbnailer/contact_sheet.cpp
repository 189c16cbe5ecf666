// See contact_sheet.hpp. File names and messages are not to be trusted: everything is escaped.
#include "contact_sheet.hpp"

#include <bulkhead/ipc/message.hpp>

#include <fmt/format.h>
#include <fstream>

namespace thumbnailer {
namespace {

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : bulkhead::ipc::sanitised(text)) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      case '\'': out += "&#39;"; break;
      default: out += c;
    }
  }
  return out;
}

std::string size_text(std::uintmax_t bytes) {
  return bytes < 10'000 ? fmt::format("{} B", bytes) : fmt::format("{} kB", (bytes + 500) / 1000);
}

constexpr std::string_view style = R"(
:root { color-scheme: light dark; --card: #fff; --back: #eef0f3; --text: #1c2733; --dim: #66727f; --bad: #b3261e; }
@media (prefers-color-scheme: dark) {
  :root { --card: #1e242b; --back: #12161a; --text: #e3e8ed; --dim: #93a0ad; --bad: #ff8a80; }
}
body { margin: 0; padding: 2rem; background: var(--back); color: var(--text); font: 15px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.3rem; margin: 0 0 .8rem; }
pre { background: var(--card); padding: 1rem 1.2rem; border-radius: 10px; display: inline-block; margin: 0 0 1.5rem;
      font-size: 13px; max-width: 100%; overflow-x: auto; box-sizing: border-box; }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(220px, 1fr)); gap: 1rem; }
figure { margin: 0; background: var(--card); border-radius: 10px; overflow: hidden; display: flex; flex-direction: column; }
.view { height: 200px; display: flex; align-items: center; justify-content: center; padding: 8px; box-sizing: border-box; }
.view img { max-width: 100%; max-height: 100%; border-radius: 4px; }
figcaption { padding: .6rem .8rem .8rem; overflow-wrap: anywhere; }
.dim { color: var(--dim); font-size: 12.5px; }
.failed .view { flex-direction: column; text-align: center; color: var(--bad); font-weight: 600; }
.failed { outline: 2px solid color-mix(in srgb, var(--bad) 45%, transparent); outline-offset: -2px; }
.failed .view span { font-weight: 400; font-size: 12.5px; color: var(--text); margin-top: .5rem; overflow-wrap: anywhere;
                     max-height: 130px; overflow: hidden; }
)";

}  // namespace

std::string failure_line(const result& result) {
  std::string line(to_string(result.outcome));
  if (result.report && result.report->signal) line += " · " + bulkhead::signal_name(result.report->signal);
  if (!result.method.empty()) line += " · " + result.method;
  return line;
}

void write_contact_sheet(const std::filesystem::path& output, const std::filesystem::path& folder,
                         const std::vector<result>& results, const std::string& summary) {
  std::filesystem::create_directories(output / "thumbs");
  std::ofstream page(output / "index.html");
  page << "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Contact sheet</title>\n"
       << "<meta name=\"viewport\" content=\"width=device-width\"><style>" << style << "</style></head><body>\n"
       << "<h1>Contact sheet of " << escaped(folder.filename().string()) << "</h1>\n<pre>" << escaped(summary) << "</pre>\n<main>\n";
  std::size_t number = 0;
  for (const result& each : results) {
    const std::string name = escaped(std::filesystem::relative(each.file, folder).string());
    ++number;
    if (each.outcome == bulkhead::outcome::ok) {
      const std::string thumb = fmt::format("thumbs/{:04}.jpg", number);  // numbered: names may collide or be hostile
      std::ofstream(output / thumb, std::ios::binary)
          .write(reinterpret_cast<const char*>(each.thumbnail.data()), static_cast<std::streamsize>(each.thumbnail.size()));
      page << fmt::format(
          "<figure><div class=\"view\"><img src=\"{}\" alt=\"{}\" loading=\"lazy\"></div>"
          "<figcaption>{}<div class=\"dim\">{}</div></figcaption></figure>\n",
          thumb, name, name, size_text(each.file_size));
    } else {
      page << fmt::format(
          "<figure class=\"failed\"><div class=\"view\">{}<span>{}</span></div>"
          "<figcaption>{}<div class=\"dim\">{}</div></figcaption></figure>\n",
          escaped(failure_line(each)), escaped(each.message), name, size_text(each.file_size));
    }
  }
  page << "</main></body></html>\n";
  if (!page) throw std::runtime_error("could not write " + (output / "index.html").string());
}

}  // namespace thumbnailer
