// Images for the plugin: decoded by content, never by file name; scaled while they are decoded, so that memory stays
// proportional to one row of the source and to the result. Everything here throws image_error with a clear text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace image {

class image_error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

using byte_span = std::span<const std::uint8_t>;
using bytes = std::vector<std::uint8_t>;

// 8 bits per channel, RGBA, rows from top to bottom without padding, alpha not premultiplied.
struct picture {
  unsigned width = 0, height = 0;
  std::vector<std::uint8_t> rgba;
};

struct info {
  std::string format;  // "jpeg", "png", "webp"
  unsigned width = 0, height = 0;
  unsigned channels = 0;
  bool alpha = false;
  int orientation = 1;  // EXIF, 1 to 8
};

inline constexpr std::uint64_t pixel_limit = std::uint64_t{1} << 28;  // 268 MPix

// Asked every few rows; true ends the work with image_error "cancelled".
using cancelled = std::function<bool()>;

// Takes the rows of a picture as they are decoded, RGBA.
class row_sink {
 public:
  virtual ~row_sink() = default;
  virtual void begin(unsigned width, unsigned height) = 0;
  virtual void row(const std::uint8_t* rgba) = 0;
};

info read_info(byte_span file);

// Decodes row by row. `wanted_side`: the decoder may deliver a smaller picture whose longer side is at least this
// (JPEG can scale by powers of two while it decodes); 0 for full size.
void decode(byte_span file, unsigned wanted_side, row_sink& sink, const cancelled& stop);

// The picture scaled so that its longer side is at most `max_side` (never enlarged), upright by its EXIF orientation.
picture thumbnail(byte_span file, unsigned max_side, const cancelled& stop);
// The whole picture, upright.
picture load(byte_span file, const cancelled& stop);
picture thumbnail_rgb(unsigned width, unsigned height, byte_span rgb, unsigned max_side);

// `format`: "jpeg" (transparent parts on white), "png", "webp"; `quality` 1 to 100 for jpeg and webp.
bytes encode(const picture& picture, const std::string& format, int quality);

// --- parts, for the above and for tests -----------------------------------------------------------------------------

// Averages over the area that each result pixel covers, with alpha weighted, row by row.
class downscaler final : public row_sink {
 public:
  explicit downscaler(unsigned max_side) : max_side_(max_side) {}
  void begin(unsigned width, unsigned height) override;
  void row(const std::uint8_t* rgba) override;
  picture take();

 private:
  void finish_row();
  unsigned max_side_, width_ = 0, height_ = 0, y_ = 0, out_y_ = 0;
  std::vector<float> horizontal_, sums_;
  float filled_ = 0;
  picture result_;
};

picture oriented(picture upright, int exif_orientation);
int exif_orientation(byte_span tiff);  // 1 when there is none or it is malformed
void check_size(std::uint64_t width, std::uint64_t height);

info jpeg_info(byte_span file);
info png_info(byte_span file);
info webp_info(byte_span file);
void decode_jpeg(byte_span file, unsigned wanted_side, row_sink& sink, const cancelled& stop);
void decode_png(byte_span file, row_sink& sink, const cancelled& stop);
void decode_webp(byte_span file, unsigned wanted_side, row_sink& sink, const cancelled& stop);

}  // namespace image
