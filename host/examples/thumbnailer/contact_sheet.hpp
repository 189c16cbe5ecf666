// The contact sheet: one HTML page without scripts that shows every thumbnail, and of every file that failed, why.
#pragma once

#include "report.hpp"

namespace thumbnailer {

// The whole page. The thumbnails lie beside it in thumbs/.
std::string contact_sheet(const report& report);

// Text from strangers as HTML: printable(), and with the characters that mean something in HTML escaped.
std::string html(const std::string& text);

}  // namespace thumbnailer
