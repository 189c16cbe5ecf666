// PNG by libpng, row by row; an interlaced one needs the whole picture. libpng reports errors by longjmp, see
// decode_jpeg.cpp.
#include "image.hpp"

#include <png.h>

#include <csetjmp>
#include <cstring>

namespace image {
namespace {

struct reader {
  png_structp png = nullptr;
  png_infop info = nullptr;
  byte_span file;
  std::size_t at = 0;
  std::string text;
  std::vector<std::uint8_t> buffer;
  std::vector<png_bytep> rows;

  explicit reader(byte_span bytes) : file(bytes) {
    auto on_error = [](png_structp p, png_const_charp message) {
      static_cast<reader*>(::png_get_error_ptr(p))->text = message;
      ::png_longjmp(p, 1);
    };
    png = ::png_create_read_struct(PNG_LIBPNG_VER_STRING, this, on_error, [](png_structp, png_const_charp) {});
    info = png ? ::png_create_info_struct(png) : nullptr;
    if (!info) throw image_error("PNG: out of memory");
    ::png_set_user_limits(png, 0x7fffffff, 0x7fffffff);  // check_size() has its own
    ::png_set_read_fn(png, this, [](png_structp p, png_bytep out, std::size_t size) {
      auto* self = static_cast<reader*>(::png_get_io_ptr(p));
      if (self->file.size() - self->at < size) ::png_error(p, "the file is cut short");
      std::memcpy(out, self->file.data() + self->at, size);
      self->at += size;
    });
  }
  ~reader() { ::png_destroy_read_struct(&png, &info, nullptr); }

  template <class F>
  void guarded(F step) {
    if (setjmp(png_jmpbuf(png))) throw image_error("PNG: " + text);
    step();
  }

  void header() {
    guarded([&] { ::png_read_info(png, info); });
    check_size(::png_get_image_width(png, info), ::png_get_image_height(png, info));
  }
};

}  // namespace

info png_info(byte_span file) {
  reader in(file);
  in.header();
  info found{"png",
             ::png_get_image_width(in.png, in.info),
             ::png_get_image_height(in.png, in.info),
             ::png_get_channels(in.png, in.info),
             false,
             1};
  found.alpha =
      (::png_get_color_type(in.png, in.info) & PNG_COLOR_MASK_ALPHA) || ::png_get_valid(in.png, in.info, PNG_INFO_tRNS);
#ifdef PNG_eXIf_SUPPORTED
  png_bytep exif = nullptr;
  png_uint_32 size = 0;
  if (::png_get_eXIf_1(in.png, in.info, &size, &exif) && exif) found.orientation = exif_orientation({exif, size});
#endif
  return found;
}

void decode_png(byte_span file, row_sink& sink, const cancelled& stop) {
  reader in(file);
  in.header();
  int passes = 1;
  in.guarded([&] {
    ::png_set_expand(in.png);
    ::png_set_scale_16(in.png);
    ::png_set_gray_to_rgb(in.png);
    ::png_set_add_alpha(in.png, 0xff, PNG_FILLER_AFTER);
    passes = ::png_set_interlace_handling(in.png);
    ::png_read_update_info(in.png, in.info);
  });
  const unsigned width = ::png_get_image_width(in.png, in.info), height = ::png_get_image_height(in.png, in.info);
  const std::size_t stride = ::png_get_rowbytes(in.png, in.info);
  sink.begin(width, height);
  if (passes == 1) {
    in.buffer.resize(stride);
    for (unsigned y = 0; y < height; ++y) {
      if (y % 64 == 0 && stop && stop()) throw image_error("cancelled");
      in.guarded([&] { ::png_read_row(in.png, in.buffer.data(), nullptr); });
      sink.row(in.buffer.data());
    }
  } else {
    in.buffer.resize(stride * height);
    for (unsigned y = 0; y < height; ++y) in.rows.push_back(in.buffer.data() + stride * y);
    in.guarded([&] { ::png_read_image(in.png, in.rows.data()); });
    for (unsigned y = 0; y < height; ++y) sink.row(in.rows[y]);
  }
  in.guarded([&] { ::png_read_end(in.png, nullptr); });
}

}  // namespace image
