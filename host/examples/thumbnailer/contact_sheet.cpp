// See contact_sheet.hpp. File names come from strangers and messages from plugins: all text goes through html(). Names
// of thumbnails need no encoding, they are made of letters, digits and -._ (files.cpp).
#include "contact_sheet.hpp"

#include "contact_sheet_style.hpp"

#include <fmt/format.h>

namespace thumbnailer {
namespace {

std::string tile(const std::string& name, const std::string& value, const std::string& more = "") {
  return fmt::format("<div><dt>{}</dt><dd>{}{}</dd></div>\n", html(name), html(value),
                     more.empty() ? "" : fmt::format("<small>{}</small>", html(more)));
}

std::string summary(const report& report) {
  const std::size_t failed = report.files.size() - report.thumbnails();
  std::string kinds;
  for (const auto& [outcome, count] : report.failures())
    kinds += fmt::format("{}{} {}", kinds.empty() ? "" : ", ", count, outcome);
  std::string made = "<dl class=\"summary\">\n";
  made += tile("Thumbnails", std::to_string(report.thumbnails()), fmt::format("of {} files", report.files.size()));
  made += tile("Failures", std::to_string(failed), kinds);
  made += tile("Crashes survived", std::to_string(report.crashes.size()));
  made += tile("Time", fmt::format("{:.2f} s", report.seconds),
               fmt::format("with {} worker{}", report.workers, report.workers == 1 ? "" : "s"));
  if (report.price) {
    const comparison& price = *report.price;
    const auto images = static_cast<double>(price.files);
    auto rate = [&](double seconds) {
      return price.megapixels > 0 ? fmt::format("images/s · {:.1f} MPix/s", price.megapixels / seconds) : "images/s";
    };
    made += tile("Isolated", fmt::format("{:.1f}", images / price.isolated_seconds), rate(price.isolated_seconds));
    made +=
        tile("In-process", fmt::format("{:.1f}", images / price.in_process_seconds), rate(price.in_process_seconds));
    made += tile("Price of isolation", fmt::format("{:+.1f} %", 100 * price.price()), "of the time taken");
  }
  return made + "</dl>\n";
}

// <bdi>: a name that is written from right to left changes the direction of nothing but itself.
std::string name_of(const image_file& file) { return fmt::format("<bdi>{}</bdi>", html(file.name)); }

std::string thumbnail_card(const image_file& file, const result& result) {
  const std::string dimensions = result.width > 0 ? fmt::format("{} × {} · ", result.width, result.height) : "";
  return fmt::format(
      "<figure class=\"card\"><div class=\"view\"><img src=\"thumbs/{}\" alt=\"{}\" loading=\"lazy\"></div>"
      "<figcaption><div class=\"name\">{}</div><div class=\"about\">{}{}</div></figcaption></figure>\n",
      file.thumbnail, html(file.name), name_of(file), dimensions, size_text(file.size));
}

std::string failure_card(const image_file& file, const result& result) {
  std::string why = fmt::format("<strong>{}</strong><p>{}</p>", html(failure_title(result)), html(result.message));
  if (result.report && !result.report->log_tail.empty())
    why +=
        fmt::format("<details><summary>its last lines</summary><pre>{}</pre></details>", html(result.report->log_tail));
  return fmt::format(
      "<figure class=\"card\"><div class=\"why\">{}</div>"
      "<figcaption><div class=\"name\">{}</div><div class=\"about\">{}</div></figcaption></figure>\n",
      why, name_of(file), size_text(file.size));
}

std::string section(const char* title, const char* style, std::size_t count, const std::string& cards) {
  if (count == 0) return "";
  return fmt::format(
      "<section><h2>{}<span class=\"count\">{}</span></h2>\n<div class=\"grid {}\">\n{}</div></section>\n", title,
      count, style, cards);
}

}  // namespace

std::string html(const std::string& text) {
  std::string out;
  for (const char c : printable(text)) {
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

std::string contact_sheet(const report& report) {
  std::string thumbnails, failures;
  for (std::size_t i = 0; i < report.files.size(); ++i) {
    if (report.results[i].outcome == bulkhead::outcome::ok)
      thumbnails += thumbnail_card(report.files[i], report.results[i]);
    else failures += failure_card(report.files[i], report.results[i]);
  }
  const std::string name = html(report.folder.filename().string());
  // The policy is a second lock: should text ever get out of its place, it still can't run or load anything.
  return fmt::format(
      "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta http-equiv=\"Content-Security-Policy\" "
      "content=\"default-src 'none'; img-src 'self' file:; style-src 'unsafe-inline'\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<title>{} · contact sheet</title>\n<style>{}</style>\n</head>\n<body>\n<h1>{}</h1>\n{}{}{}"
      "<footer>Made by plugins in worker processes of their own.</footer>\n</body>\n</html>\n",
      name, contact_sheet_style, name, summary(report), section("Images", "", report.thumbnails(), thumbnails),
      section("Failed", "failed", report.files.size() - report.thumbnails(), failures));
}

}  // namespace thumbnailer
