// See files.hpp.
#include "files.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <fstream>
#include <set>
#include <sstream>
#include <stdexcept>
#include <system_error>

namespace thumbnailer {
namespace {

namespace fs = std::filesystem;

std::string lower_case(std::string text) {
  for (char& c : text)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return text;
}

// Letters, digits, dots, dashes and underscores stay as they are; whatever else there is becomes an underscore. Two
// names that fall together this way, or on a file system that ignores case, are told apart by a number.
class thumbnail_names {
 public:
  std::string name_for(const std::string& name) {
    std::string plain;
    for (const char c : name.substr(name.size() > length_limit ? name.size() - length_limit : 0)) {
      const bool keep =
          (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '-';
      plain += keep ? c : '_';
    }
    if (plain[0] == '.' || plain[0] == '-') plain[0] = '_';
    std::string unique = plain;
    for (int number = 2; !taken_.insert(lower_case(unique)).second; ++number)
      unique = plain + "-" + std::to_string(number);
    return unique + ".jpg";
  }

 private:
  static constexpr std::size_t length_limit = 120;
  std::set<std::string> taken_;
};

std::string reason() { return std::generic_category().message(errno); }

}  // namespace

std::vector<image_file> find_images(const fs::path& folder, const fs::path& excluded) {
  static const std::set<std::string> netpbm = {".ppm", ".pgm", ".pnm"};
  static const std::set<std::string> others = {".jpg", ".jpeg", ".png", ".webp"};
  std::vector<image_file> files;
  std::error_code ignored;
  fs::recursive_directory_iterator at(folder, fs::directory_options::skip_permission_denied), end;
  for (; at != end; at.increment(ignored)) {
    if (at->is_directory(ignored) && fs::equivalent(at->path(), excluded, ignored)) at.disable_recursion_pending();
    const std::string extension = lower_case(at->path().extension().string());
    if ((!netpbm.contains(extension) && !others.contains(extension)) || !at->is_regular_file(ignored)) continue;
    image_file found;
    found.path = at->path();
    found.name = at->path().lexically_relative(folder).string();
    found.netpbm = netpbm.contains(extension);
    found.size = at->file_size(ignored);
    files.push_back(std::move(found));
  }
  std::sort(files.begin(), files.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  thumbnail_names names;
  for (image_file& file : files) file.thumbnail = names.name_for(file.name);
  return files;
}

bulkhead::bytes read_file(const fs::path& file) {
  std::ifstream in(file, std::ios::binary | std::ios::ate);
  if (!in) throw std::runtime_error("the file can't be opened: " + reason());
  bulkhead::bytes data(static_cast<std::size_t>(std::max(std::streamoff{0}, std::streamoff{in.tellg()})));
  in.seekg(0);
  in.read(reinterpret_cast<char*>(data.data()), static_cast<std::streamsize>(data.size()));
  if (!in) throw std::runtime_error("the file can't be read: " + reason());
  return data;
}

void write_file(const fs::path& file, bulkhead::bytes_view data) {
  std::ofstream out(file, std::ios::binary);
  out.write(reinterpret_cast<const char*>(data.data()), static_cast<std::streamsize>(data.size()));
  out.close();
  if (!out) throw std::runtime_error(file.string() + " can't be written: " + reason());
}

fs::path find_plugins(const fs::path& given) {
  std::vector<fs::path> places;
  if (!given.empty()) {
    places.push_back(given);
  } else {
    const char* list = std::getenv("BULKHEAD_PLUGIN_PATH");
    std::istringstream folders(list ? list : "");
    for (std::string each; std::getline(folders, each, ':');)
      if (!each.empty()) places.emplace_back(each);
    places.push_back(fs::read_symlink("/proc/self/exe").parent_path().parent_path() / "plugins");
  }
  std::string searched;
  for (const fs::path& place : places) {
    if (fs::exists(place / "image.so")) return place;
    searched += "\n  " + place.string();
  }
  throw std::runtime_error("there is no image.so; searched:" + searched + "\nname its folder with --plugins");
}

}  // namespace thumbnailer
