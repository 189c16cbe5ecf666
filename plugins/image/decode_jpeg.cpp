// JPEG by libjpeg-turbo. The library reports errors by longjmp out of its callbacks; nothing with a destructor may live
// between setjmp and the calls, so all state is in one object made before.
#include "image.hpp"

#include <jpeglib.h>

#include <algorithm>
#include <csetjmp>
#include <cstdio>
#include <cstring>

namespace image {
namespace {

struct reader {
  jpeg_decompress_struct cinfo{};
  jpeg_error_mgr errors{};
  std::jmp_buf escape;
  char text[JMSG_LENGTH_MAX] = "";
  bool failed = false;
  std::vector<std::uint8_t> line, rgba;

  reader() {
    cinfo.err = ::jpeg_std_error(&errors);
    cinfo.client_data = this;
    errors.error_exit = [](j_common_ptr info) {
      auto* self = static_cast<reader*>(info->client_data);
      info->err->format_message(info, self->text);
      std::longjmp(self->escape, 1);
    };
    // A warning means that data is missing or corrupt and grey would be shown instead: that is an error here.
    errors.emit_message = [](j_common_ptr info, int level) {
      if (level < 0) info->err->error_exit(info);
    };
    errors.output_message = [](j_common_ptr) {};
  }
  ~reader() { ::jpeg_destroy_decompress(&cinfo); }

  // Each step runs under setjmp and is free of objects with destructors.
  template <class F>
  void guarded(F step) {
    if (setjmp(escape)) throw image_error(std::string("JPEG: ") + text);
    step();
  }
};

void start(reader& in, byte_span file) {
  in.guarded([&] {
    ::jpeg_create_decompress(&in.cinfo);
    ::jpeg_mem_src(&in.cinfo, file.data(), file.size());
    ::jpeg_save_markers(&in.cinfo, JPEG_APP0 + 1, 0xffff);
    ::jpeg_read_header(&in.cinfo, TRUE);
  });
  check_size(in.cinfo.image_width, in.cinfo.image_height);
}

}  // namespace

info jpeg_info(byte_span file) {
  reader in;
  start(in, file);
  info found{"jpeg", in.cinfo.image_width, in.cinfo.image_height, static_cast<unsigned>(in.cinfo.num_components), false,
             1};
  for (jpeg_saved_marker_ptr marker = in.cinfo.marker_list; marker; marker = marker->next)
    if (marker->marker == JPEG_APP0 + 1 && marker->data_length > 6 && std::memcmp(marker->data, "Exif\0\0", 6) == 0)
      found.orientation = exif_orientation({marker->data + 6, marker->data_length - 6});
  return found;
}

void decode_jpeg(byte_span file, unsigned wanted_side, row_sink& sink, const cancelled& stop) {
  reader in;
  start(in, file);
  const bool four = in.cinfo.num_components == 4;
  in.cinfo.out_color_space = four ? JCS_CMYK : JCS_EXT_RGBA;
  // The decoder can halve for free; keep at least twice the wanted size, so that the average still has work to do.
  const unsigned longer = std::max(in.cinfo.image_width, in.cinfo.image_height);
  in.cinfo.scale_num = 1;
  in.cinfo.scale_denom = 1;
  while (wanted_side > 0 && in.cinfo.scale_denom < 8 && longer / (in.cinfo.scale_denom * 2) >= 2 * wanted_side)
    in.cinfo.scale_denom *= 2;
  in.guarded([&] { ::jpeg_start_decompress(&in.cinfo); });
  const unsigned width = in.cinfo.output_width, height = in.cinfo.output_height;
  sink.begin(width, height);
  in.line.resize(std::size_t{4} * width);
  in.rgba.resize(std::size_t{4} * width);
  for (unsigned y = 0; y < height; ++y) {
    if (y % 64 == 0 && stop && stop()) throw image_error("cancelled");
    in.guarded([&] {
      JSAMPROW row = in.line.data();
      ::jpeg_read_scanlines(&in.cinfo, &row, 1);
    });
    if (four) {  // Adobe's CMYK is stored inverted: 255 is no ink
      for (std::size_t i = 0; i < in.line.size(); i += 4) {
        const unsigned k = in.line[i + 3];
        for (std::size_t c = 0; c < 3; ++c) in.rgba[i + c] = static_cast<std::uint8_t>(in.line[i + c] * k / 255);
        in.rgba[i + 3] = 255;
      }
    }
    sink.row(four ? in.rgba.data() : in.line.data());
  }
  in.guarded([&] { ::jpeg_finish_decompress(&in.cinfo); });
}

}  // namespace image
