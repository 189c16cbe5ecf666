// The contact sheet: one page with every thumbnail, and a card that says why for every file that has none.
#pragma once

#include "job.hpp"

namespace thumbnailer {

// Writes `output`/index.html and `output`/thumbs/NNNN.jpg. Names of files are shown relative to `folder`.
void write_contact_sheet(const std::filesystem::path& output, const std::filesystem::path& folder,
                         const std::vector<result>& results, const std::string& summary);

// A file's failure in a few words: outcome, signal if there was one, method.
std::string failure_line(const result& result);

}  // namespace thumbnailer
