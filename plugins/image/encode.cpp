// Writing pictures: JPEG (on white), PNG, WebP.
#include "image.hpp"

#include <jpeglib.h>
#include <png.h>
#include <webp/encode.h>

#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <memory>

namespace image {
namespace {

bytes encode_jpeg(const picture& picture, int quality) {
  struct writer {
    jpeg_compress_struct cinfo{};
    jpeg_error_mgr errors{};
    std::jmp_buf escape;
    char text[JMSG_LENGTH_MAX] = "";
    unsigned char* out = nullptr;
    unsigned long size = 0;
    std::vector<std::uint8_t> line;
    ~writer() {
      ::jpeg_destroy_compress(&cinfo);
      std::free(out);
    }
  } to;
  to.cinfo.err = ::jpeg_std_error(&to.errors);
  to.cinfo.client_data = &to;
  to.errors.error_exit = [](j_common_ptr info) {
    auto* self = static_cast<writer*>(info->client_data);
    info->err->format_message(info, self->text);
    std::longjmp(self->escape, 1);
  };
  to.line.resize(std::size_t{3} * picture.width);
  if (setjmp(to.escape)) throw image_error(std::string("JPEG: ") + to.text);
  ::jpeg_create_compress(&to.cinfo);
  ::jpeg_mem_dest(&to.cinfo, &to.out, &to.size);
  to.cinfo.image_width = picture.width;
  to.cinfo.image_height = picture.height;
  to.cinfo.input_components = 3;
  to.cinfo.in_color_space = JCS_RGB;
  ::jpeg_set_defaults(&to.cinfo);
  ::jpeg_set_quality(&to.cinfo, quality, TRUE);
  ::jpeg_start_compress(&to.cinfo, TRUE);
  for (unsigned y = 0; y < picture.height; ++y) {
    const std::uint8_t* from = &picture.rgba[std::size_t{4} * picture.width * y];
    for (unsigned x = 0; x < picture.width; ++x, from += 4)
      for (unsigned c = 0; c < 3; ++c)
        to.line[3 * std::size_t{x} + c] =
            static_cast<std::uint8_t>((from[c] * from[3] + 255 * (255 - from[3]) + 127) / 255);
    JSAMPROW row = to.line.data();
    ::jpeg_write_scanlines(&to.cinfo, &row, 1);
  }
  ::jpeg_finish_compress(&to.cinfo);
  return {to.out, to.out + to.size};
}

bytes encode_png(const picture& picture) {
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  image.width = picture.width;
  image.height = picture.height;
  image.format = PNG_FORMAT_RGBA;
  png_alloc_size_t size = 0;
  if (!::png_image_write_get_memory_size(image, size, 0, picture.rgba.data(), 0, nullptr))
    throw image_error(std::string("PNG: ") + image.message);
  bytes out(size);
  if (!::png_image_write_to_memory(&image, out.data(), &size, 0, picture.rgba.data(), 0, nullptr))
    throw image_error(std::string("PNG: ") + image.message);
  out.resize(size);
  return out;
}

bytes encode_webp(const picture& picture, int quality) {
  std::uint8_t* out = nullptr;
  const std::size_t size =
      ::WebPEncodeRGBA(picture.rgba.data(), static_cast<int>(picture.width), static_cast<int>(picture.height),
                       static_cast<int>(4 * picture.width), static_cast<float>(quality), &out);
  const std::unique_ptr<std::uint8_t, void (*)(void*)> owned(out, &::WebPFree);
  if (size == 0) throw image_error("WebP: the picture can't be encoded (its sides may be at most 16383)");
  return {out, out + size};
}

}  // namespace

bytes encode(const picture& picture, const std::string& format, int quality) {
  if (quality < 1 || quality > 100) throw image_error("quality must be 1 to 100");
  if (format == "jpeg") return encode_jpeg(picture, quality);
  if (format == "png") return encode_png(picture);
  if (format == "webp") return encode_webp(picture, quality);
  throw image_error("unknown format '" + format + "': jpeg, png or webp");
}

}  // namespace image
