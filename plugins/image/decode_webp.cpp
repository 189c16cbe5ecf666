// WebP by libwebp, which decodes whole pictures, at a reduced size if asked to.
#include "image.hpp"

#include <webp/decode.h>

#include <algorithm>
#include <cstring>
#include <memory>

namespace image {
namespace {

WebPBitstreamFeatures features(byte_span file) {
  WebPBitstreamFeatures found{};
  if (::WebPGetFeatures(file.data(), file.size(), &found) != VP8_STATUS_OK)
    throw image_error("WebP: the header is damaged or cut short");
  if (found.has_animation) throw image_error("WebP: animations are not supported");
  check_size(static_cast<std::uint64_t>(found.width), static_cast<std::uint64_t>(found.height));
  return found;
}

// RIFF chunks: four letters, a little-endian size, data padded to even.
byte_span chunk(byte_span file, const char* name) {
  for (std::size_t at = 12; at + 8 <= file.size();) {
    const std::uint64_t size =
        file[at + 4] | file[at + 5] << 8 | file[at + 6] << 16 | std::uint64_t{file[at + 7]} << 24;
    if (size > file.size() - at - 8) return {};
    if (std::memcmp(file.data() + at, name, 4) == 0) return file.subspan(at + 8, size);
    at += 8 + size + (size & 1);
  }
  return {};
}

}  // namespace

info webp_info(byte_span file) {
  const auto found = features(file);
  byte_span exif = chunk(file, "EXIF");
  if (exif.size() > 6 && std::memcmp(exif.data(), "Exif\0\0", 6) == 0) exif = exif.subspan(6);
  return {"webp",
          static_cast<unsigned>(found.width),
          static_cast<unsigned>(found.height),
          found.has_alpha ? 4u : 3u,
          found.has_alpha != 0,
          exif_orientation(exif)};
}

void decode_webp(byte_span file, unsigned wanted_side, row_sink& sink, const cancelled& stop) {
  const auto found = features(file);
  WebPDecoderConfig config;
  if (!::WebPInitDecoderConfig(&config)) throw image_error("WebP: the library has another version than its header");
  auto width = static_cast<unsigned>(found.width), height = static_cast<unsigned>(found.height);
  const unsigned longer = std::max(width, height);
  if (wanted_side > 0 && longer >= 4 * wanted_side) {  // keep twice the wanted size, as for JPEG
    width = std::max(1u, static_cast<unsigned>(std::uint64_t{width} * 2 * wanted_side / longer));
    height = std::max(1u, static_cast<unsigned>(std::uint64_t{height} * 2 * wanted_side / longer));
    config.options.use_scaling = 1;
    config.options.scaled_width = static_cast<int>(width);
    config.options.scaled_height = static_cast<int>(height);
  }
  if (stop && stop()) throw image_error("cancelled");
  config.output.colorspace = MODE_RGBA;
  const auto status = ::WebPDecode(file.data(), file.size(), &config);
  const std::unique_ptr<WebPDecBuffer, void (*)(WebPDecBuffer*)> output(&config.output, &::WebPFreeDecBuffer);
  if (status == VP8_STATUS_OUT_OF_MEMORY) throw image_error("WebP: out of memory");
  if (status == VP8_STATUS_NOT_ENOUGH_DATA) throw image_error("WebP: the file is cut short");
  if (status != VP8_STATUS_OK) throw image_error("WebP: the data is damaged");
  sink.begin(width, height);
  for (unsigned y = 0; y < height; ++y)
    sink.row(config.output.u.RGBA.rgba + std::size_t{y} * static_cast<std::size_t>(config.output.u.RGBA.stride));
}

}  // namespace image
