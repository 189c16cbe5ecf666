// The plugin `image`: info, thumbnails and conversion of JPEG, PNG and WebP files.
#include "image.hpp"
#include <bulkhead/sdk.hpp>

BULKHEAD_MANIFEST(license, "license=MIT");
BULKHEAD_MANIFEST(description, "description=Thumbnails and conversion of JPEG, PNG and WebP");

namespace {

using image::cancelled;
using image::info;

cancelled stop_of(bulkhead::context& cx) {
  return [&cx] { return cx.cancelled(); };
}

struct described {
  info found;
  template <class Packer>
  void msgpack_pack(Packer& packer) const {
    packer.pack_map(6)
        .pack("format")
        .pack(found.format)
        .pack("width")
        .pack(found.width)
        .pack("height")
        .pack(found.height);
    packer.pack("channels")
        .pack(found.channels)
        .pack("alpha")
        .pack(found.alpha)
        .pack("orientation")
        .pack(found.orientation);
  }
};

}  // namespace

BULKHEAD_PLUGIN("image", "1.0.0") {
  using bulkhead::bytes_view;
  using bulkhead::context;
  using optional_text = std::optional<std::string>;
  using optional_int = std::optional<int>;

  plugin
      .method("info", [](bytes_view file) { return described{image::read_info(file)}; },
              "Format, size, channels, EXIF orientation", {"image"})
      .idempotent();
  plugin
      .method("thumbnail",
              [](context& cx, bytes_view file, unsigned max_side, optional_text format, optional_int quality) {
                return image::encode(image::thumbnail(file, max_side, stop_of(cx)), format.value_or("jpeg"),
                                     quality.value_or(85));
              },
              "The image, upright, with its longer side at most max_side", {"image", "max_side", "format", "quality"})
      .idempotent();
  plugin
      .method("thumbnail_rgb",
              [](unsigned width, unsigned height, bytes_view rgb, unsigned max_side, optional_text format,
                 optional_int quality) {
                return image::encode(image::thumbnail_rgb(width, height, rgb, max_side), format.value_or("jpeg"),
                                     quality.value_or(85));
              },
              "A thumbnail of raw pixels, three bytes each",
              {"width", "height", "rgb", "max_side", "format", "quality"})
      .idempotent();
  plugin
      .method("convert",
              [](context& cx, bytes_view file, const std::string& format, optional_int quality) {
                return image::encode(image::load(file, stop_of(cx)), format, quality.value_or(85));
              },
              "The image, upright, in another format: jpeg, png or webp", {"image", "format", "quality"})
      .idempotent();
}
