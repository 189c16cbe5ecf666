// The plugin image and files far larger than the memory that it has: what it takes is rows, not pictures.
#include "fixture.hpp"

#include <jpeglib.h>
#include <png.h>
#include <webp/encode.h>

#include <cstdlib>

#ifndef BULKHEAD_SANITIZED  // where memory can't be limited

namespace bulkhead::testing::images {
namespace {

constexpr unsigned width = 8000, height = 7500;  // 60 Mpix of grey
constexpr std::size_t memory = std::size_t{128} << 20;
static_assert(std::size_t{3} * width * height > memory);  // as RGB

bytes large_jpeg() {
  jpeg_compress_struct to{};
  jpeg_error_mgr errors{};
  to.err = ::jpeg_std_error(&errors);
  ::jpeg_create_compress(&to);
  unsigned char* out = nullptr;
  unsigned long size = 0;
  ::jpeg_mem_dest(&to, &out, &size);
  to.image_width = width;
  to.image_height = height;
  to.input_components = 1;
  to.in_color_space = JCS_GRAYSCALE;
  ::jpeg_set_defaults(&to);
  ::jpeg_start_compress(&to, TRUE);
  bytes row(width, 0x60);
  for (unsigned y = 0; y < height; ++y) {
    JSAMPROW line = row.data();
    ::jpeg_write_scanlines(&to, &line, 1);
  }
  ::jpeg_finish_compress(&to);
  bytes file(out, out + size);
  ::jpeg_destroy_compress(&to);
  std::free(out);
  return file;
}

bytes large_png() {
  bytes file;
  png_structp to = ::png_create_write_struct(PNG_LIBPNG_VER_STRING, nullptr, nullptr, nullptr);
  png_infop info = ::png_create_info_struct(to);
  ::png_set_write_fn(
      to, &file,
      [](png_structp png, png_bytep data, std::size_t size) {
        auto& whole = *static_cast<bytes*>(::png_get_io_ptr(png));
        whole.insert(whole.end(), data, data + size);
      },
      nullptr);
  ::png_set_compression_level(to, 1);
  ::png_set_filter(to, 0, PNG_FILTER_NONE);
  ::png_set_IHDR(to, info, width, height, 8, PNG_COLOR_TYPE_GRAY, PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT,
                 PNG_FILTER_TYPE_DEFAULT);
  ::png_write_info(to, info);
  const bytes row(width, 0x60);
  for (unsigned y = 0; y < height; ++y) ::png_write_row(to, row.data());
  ::png_write_end(to, nullptr);
  ::png_destroy_write_struct(&to, &info);
  return file;
}

// Lossy, which alone is decoded by rows. All rows of the picture are the same memory.
bytes large_webp() {
  WebPConfig fast;
  WebPPicture from;
  REQUIRE((::WebPConfigInit(&fast) && ::WebPPictureInit(&from)));
  fast.method = 0;
  bytes row(width, 0x60), file;
  from.width = width;
  from.height = height;
  from.y = from.u = from.v = row.data();
  from.y_stride = from.uv_stride = 0;
  from.custom_ptr = &file;
  from.writer = [](const std::uint8_t* data, std::size_t size, const WebPPicture* picture) {
    auto& whole = *static_cast<bytes*>(picture->custom_ptr);
    whole.insert(whole.end(), data, data + size);
    return 1;
  };
  REQUIRE(::WebPEncode(&fast, &from));
  return file;
}

struct described {
  std::string format;
  unsigned width = 0, height = 0;
  MSGPACK_DEFINE_MAP(format, width, height)
};

}  // namespace

TEST_CASE("image makes thumbnails of pictures that do not fit into its memory limit") {
  const auto [format, file] =
      GENERATE(table<std::string, bytes (*)()>({{"jpeg", large_jpeg}, {"png", large_png}, {"webp", large_webp}}));
  const bytes large = file();
  host host;
  load_options options;
  options.memory_limit = memory;
  options.deadline = 60s;
  auto image = host.load(plugin_path("image"), options);
  const pid_t pid = image.workers().at(0).pid;
  const auto whole = image.call<described>("info", large);
  CHECK(whole.format == format);
  CHECK((whole.width == width && whole.height == height));
  const auto small = image.call<described>("info", image.call<bytes>("thumbnail", large, 80, "png"));
  CHECK((small.width == 80 && small.height == 75));
  CHECK(image.workers().at(0).pid == pid);
  CHECK(image.try_call("convert", large, "png").outcome() != outcome::ok);  // all of it, for which there is no memory
}

}  // namespace bulkhead::testing::images

#endif
