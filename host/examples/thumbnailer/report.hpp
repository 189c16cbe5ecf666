// All that is known at the end, and how it is told: a table for people, JSON for programs. The contact sheet is made
// from it as well.
#pragma once

#include "comparison.hpp"

#include <map>
#include <optional>

namespace thumbnailer {

struct report {
  std::filesystem::path folder, output;
  unsigned workers = 0, max_side = 0;
  std::vector<image_file> files;
  std::vector<result> results;                                         // one for each file
  double seconds = 0;                                                  // for the job, failures and crashes included
  std::vector<std::shared_ptr<const bulkhead::crash_report>> crashes;  // workers that died, with names in their stacks
  std::optional<comparison> price{};
  std::string no_price{};  // why there is none

  std::size_t thumbnails() const;
  std::map<std::string, std::size_t> failures() const;  // by outcome
  double megapixels() const;                            // of the thumbnails' images
};

// A table: what was done, what failed and how, and the price of isolation.
std::string to_text(const report& report);
std::string to_json(const report& report);

// "worker_lost · SIGSEGV · fragile.decode"
std::string failure_title(const result& failed);
// Text from strangers, fit to be shown: what is no UTF-8, controls and marks that turn the direction of writing around
// (a "photo\u202egpj.exe" would read as photo.exe.jpg) are spelled out. At most `limit` bytes.
std::string printable(const std::string& text, std::size_t limit = 4096);
// "SIGSEGV", "exited", "hung" ...: what a worker died of, in a word.
std::string death_of(const bulkhead::crash_report& crash);
// "931 B", "84 kB", "2.1 MB"
std::string size_text(std::uintmax_t bytes);

}  // namespace thumbnailer
