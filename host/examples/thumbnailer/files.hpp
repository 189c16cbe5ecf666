// Which files there are to do, and what their thumbnails are called. File names are anything that a file system allows.
#pragma once

#include <bulkhead/sdk/typed.hpp>

#include <filesystem>
#include <string>
#include <vector>

namespace thumbnailer {

struct image_file {
  std::filesystem::path path;
  std::string name;       // relative to the folder searched; any bytes
  bool netpbm = false;    // .ppm, .pgm, .pnm: for the plugin `fragile`
  std::string thumbnail;  // file name for its thumbnail: plain ASCII, different for each file
  std::uintmax_t size = 0;
};

// All images below `folder` by their extensions, sorted by name; nothing below `excluded`. Folders that can't be read
// are passed over.
std::vector<image_file> find_images(const std::filesystem::path& folder, const std::filesystem::path& excluded);

// Throws std::runtime_error.
bulkhead::bytes read_file(const std::filesystem::path& file);
void write_file(const std::filesystem::path& file, bulkhead::bytes_view data);

// The folder with image.so: `given` if it is not empty, or else the first that has it of BULKHEAD_PLUGIN_PATH and
// ../plugins as seen from this program. Throws std::runtime_error that lists the places searched.
std::filesystem::path find_plugins(const std::filesystem::path& given);

}  // namespace thumbnailer
