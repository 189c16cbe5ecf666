// See image.hpp: which decoder, and what is built from the parts.
#include "image.hpp"

#include <cstdio>
#include <cstring>

namespace image {
namespace {

enum class kind { jpeg, png, webp };

kind sniff(byte_span file) {
  auto begins = [&](std::size_t at, const char* magic, std::size_t size) {
    return file.size() >= at + size && std::memcmp(file.data() + at, magic, size) == 0;
  };
  if (begins(0, "\xff\xd8\xff", 3)) return kind::jpeg;
  if (begins(0, "\x89PNG\r\n\x1a\n", 8)) return kind::png;
  if (begins(0, "RIFF", 4) && begins(8, "WEBP", 4)) return kind::webp;
  if (file.empty()) throw image_error("not an image: the file is empty");
  std::string first;
  char hex[4];
  for (std::size_t i = 0; i < file.size() && i < 8; ++i) {
    std::snprintf(hex, sizeof hex, " %02x", file[i]);
    first += hex;
  }
  throw image_error("not an image that is known here (JPEG, PNG, WebP); its first bytes are" + first);
}

// Collects a picture at full size.
class collector final : public row_sink {
 public:
  void begin(unsigned width, unsigned height) override {
    result.width = width;
    result.height = height;
    result.rgba.reserve(std::size_t{4} * width * height);
  }
  void row(const std::uint8_t* rgba) override {
    result.rgba.insert(result.rgba.end(), rgba, rgba + std::size_t{4} * result.width);
  }
  picture result;
};

}  // namespace

void check_size(std::uint64_t width, std::uint64_t height) {
  if (width == 0 || height == 0) throw image_error("the header says that the image has no pixels");
  if (width > pixel_limit || height > pixel_limit || width * height > pixel_limit)
    throw image_error("the header says " + std::to_string(width) + " x " + std::to_string(height) +
                      " pixels; the limit is " + std::to_string(pixel_limit >> 20) + " Mi pixels");
}

info read_info(byte_span file) {
  switch (sniff(file)) {
    case kind::jpeg: return jpeg_info(file);
    case kind::png: return png_info(file);
    case kind::webp: return webp_info(file);
  }
  return {};
}

void decode(byte_span file, unsigned wanted_side, row_sink& sink, const cancelled& stop) {
  switch (sniff(file)) {
    case kind::jpeg: return decode_jpeg(file, wanted_side, sink, stop);
    case kind::png: return decode_png(file, sink, stop);
    case kind::webp: return decode_webp(file, wanted_side, sink, stop);
  }
}

picture thumbnail(byte_span file, unsigned max_side, const cancelled& stop) {
  if (max_side == 0 || max_side > 16384) throw image_error("max_side must be 1 to 16384");
  const int orientation = read_info(file).orientation;
  downscaler scaler(max_side);
  decode(file, max_side, scaler, stop);
  return oriented(scaler.take(), orientation);
}

picture load(byte_span file, const cancelled& stop) {
  const int orientation = read_info(file).orientation;
  collector all;
  decode(file, 0, all, stop);
  return oriented(std::move(all.result), orientation);
}

picture thumbnail_rgb(unsigned width, unsigned height, byte_span rgb, unsigned max_side) {
  check_size(width, height);
  if (rgb.size() != std::uint64_t{3} * width * height)
    throw image_error("rgb has " + std::to_string(rgb.size()) + " bytes, expected 3 x width x height");
  if (max_side == 0 || max_side > 16384) throw image_error("max_side must be 1 to 16384");
  downscaler scaler(max_side);
  scaler.begin(width, height);
  std::vector<std::uint8_t> row(std::size_t{4} * width);
  for (unsigned y = 0; y < height; ++y) {
    const std::uint8_t* from = rgb.data() + std::size_t{3} * width * y;
    for (unsigned x = 0; x < width; ++x, from += 3) {
      std::memcpy(&row[4 * std::size_t{x}], from, 3);
      row[4 * std::size_t{x} + 3] = 255;
    }
    scaler.row(row.data());
  }
  return scaler.take();
}

picture oriented(picture from, int orientation) {
  if (orientation <= 1 || orientation > 8) return from;
  const bool turned = orientation >= 5;
  picture to;
  to.width = turned ? from.height : from.width;
  to.height = turned ? from.width : from.height;
  to.rgba.resize(from.rgba.size());
  const unsigned right = from.width - 1, bottom = from.height - 1;
  for (unsigned y = 0; y < to.height; ++y) {
    for (unsigned x = 0; x < to.width; ++x) {
      unsigned sx = x, sy = y;  // where the upright pixel lies in the stored picture
      switch (orientation) {
        case 2: sx = right - x; break;
        case 3: sx = right - x, sy = bottom - y; break;
        case 4: sy = bottom - y; break;
        case 5: sx = y, sy = x; break;
        case 6: sx = y, sy = bottom - x; break;
        case 7: sx = right - y, sy = bottom - x; break;
        case 8: sx = right - y, sy = x; break;
        default: break;
      }
      std::memcpy(&to.rgba[4 * (std::size_t{y} * to.width + x)], &from.rgba[4 * (std::size_t{sy} * from.width + sx)],
                  4);
    }
  }
  return to;
}

}  // namespace image
