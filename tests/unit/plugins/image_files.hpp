// Image files made for the tests, with libraries of their own and by hand where the plugin's encoder can't make them.
#pragma once

#include "image.hpp"

#include <jpeglib.h>
#include <webp/encode.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <initializer_list>
#include <string>

namespace image {

using rgba = std::array<std::uint8_t, 4>;

inline constexpr unsigned block = 8;  // pixels; a JPEG's blocks, so that colours do not run into each other

inline rgba colour(char letter) {
  const auto bits = std::string("kbgcrmyw").find(letter);
  auto channel = [&](unsigned bit) { return static_cast<std::uint8_t>(bits & bit ? 255 : 0); };
  return {channel(4), channel(2), channel(1), 255};
}

// "rg/by" is a picture of four blocks: red and green above blue and yellow.
inline picture blocks(const std::string& rows) {
  picture made;
  made.width = block * static_cast<unsigned>(rows.find('/'));
  made.height = block * static_cast<unsigned>((rows.size() + 1) / (rows.find('/') + 1));
  for (unsigned y = 0; y < made.height; ++y)
    for (unsigned x = 0; x < made.width; ++x)
      for (const std::uint8_t c : colour(rows[(made.width / block + 1) * (y / block) + x / block]))
        made.rgba.push_back(c);
  return made;
}

inline void append(bytes& to, std::initializer_list<unsigned> values) {
  for (const unsigned value : values) to.push_back(static_cast<std::uint8_t>(value));
}

// A TIFF header and a directory of two entries: an ImageWidth that has to be skipped, then the orientation.
inline bytes tiff(unsigned orientation, bool little) {
  bytes out;
  auto number = [&](std::uint32_t value, unsigned size) {
    for (unsigned i = 0; i < size; ++i) append(out, {value >> 8 * (little ? i : size - 1 - i) & 0xff});
  };
  append(out, {little ? 0x49u : 0x4du, little ? 0x49u : 0x4du});
  number(42, 2), number(8, 4), number(2, 2);
  number(0x0100, 2), number(4, 2), number(1, 4), number(3, 4);
  number(0x0112, 2), number(3, 2), number(1, 4), number(orientation, 2), number(0, 2);
  number(0, 4);
  return out;
}

inline std::uint32_t crc32(byte_span of) {
  std::uint32_t crc = 0xffffffff;
  for (const std::uint8_t byte : of) {
    crc ^= byte;
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc;
}

inline void put_big(bytes& into, std::size_t at, std::uint32_t value, unsigned size) {
  for (unsigned i = 0; i < size; ++i) into.at(at + i) = static_cast<std::uint8_t>(value >> 8 * (size - 1 - i));
}

// A PNG file with a chunk eXIf after its header.
inline bytes png_with_exif(bytes file, const bytes& exif) {
  bytes chunk = {0, 0, 0, 0, 'e', 'X', 'I', 'f'};
  chunk.insert(chunk.end(), exif.begin(), exif.end());
  const std::uint32_t sum = crc32(byte_span(chunk).subspan(4));
  chunk.resize(chunk.size() + 4);
  put_big(chunk, 0, static_cast<std::uint32_t>(exif.size()), 4), put_big(chunk, chunk.size() - 4, sum, 4);
  constexpr std::ptrdiff_t signature_and_header = 8 + 25;
  file.insert(file.begin() + signature_and_header, chunk.begin(), chunk.end());
  return file;
}

// A simple WebP file made an extended one: a colour profile of odd size, which has to be skipped, what it was, then EXIF.
inline bytes webp_with_exif(const bytes& simple, unsigned width, unsigned height, const bytes& exif) {
  bytes out = {'R', 'I', 'F', 'F', 0, 0, 0, 0, 'W', 'E', 'B', 'P'};
  const auto add = [&](const char* name, const bytes& data) {
    out.insert(out.end(), name, name + 4);
    for (unsigned i = 0; i < 4; ++i) append(out, {static_cast<unsigned>(data.size() >> 8 * i & 0xff)});
    out.insert(out.end(), data.begin(), data.end());
    if (data.size() % 2) out.push_back(0);
  };
  bytes features = {0x20 | 0x08, 0, 0, 0};  // profile and EXIF
  for (const unsigned side : {width - 1, height - 1}) append(features, {side & 0xff, side >> 8 & 0xff, side >> 16});
  add("VP8X", features);
  add("ICCP", {1, 2, 3});
  out.insert(out.end(), simple.begin() + 12, simple.end());
  add("EXIF", exif);
  for (unsigned i = 0; i < 4; ++i) out[4 + i] = static_cast<std::uint8_t>((out.size() - 8) >> 8 * i);
  return out;
}

inline bytes jpeg(const picture& from, const bytes& exif) {
  jpeg_compress_struct cinfo{};
  jpeg_error_mgr errors{};
  cinfo.err = ::jpeg_std_error(&errors);
  ::jpeg_create_compress(&cinfo);
  unsigned char* out = nullptr;
  unsigned long size = 0;
  ::jpeg_mem_dest(&cinfo, &out, &size);
  cinfo.image_width = from.width;
  cinfo.image_height = from.height;
  cinfo.input_components = 4;
  cinfo.in_color_space = JCS_EXT_RGBA;
  ::jpeg_set_defaults(&cinfo);
  ::jpeg_set_quality(&cinfo, 95, TRUE);
  cinfo.comp_info[0].h_samp_factor = cinfo.comp_info[0].v_samp_factor = 1;  // no shared colours between blocks
  ::jpeg_start_compress(&cinfo, TRUE);
  if (!exif.empty()) {
    bytes marker = {'E', 'x', 'i', 'f', 0, 0};
    marker.insert(marker.end(), exif.begin(), exif.end());
    ::jpeg_write_marker(&cinfo, JPEG_APP0 + 1, marker.data(), static_cast<unsigned>(marker.size()));
  }
  for (unsigned y = 0; y < from.height; ++y) {
    auto* row = const_cast<std::uint8_t*>(&from.rgba[std::size_t{4} * from.width * y]);
    ::jpeg_write_scanlines(&cinfo, &row, 1);
  }
  ::jpeg_finish_compress(&cinfo);
  bytes file(out, out + size);
  ::jpeg_destroy_compress(&cinfo);
  std::free(out);
  return file;
}

// Every other pixel is transparent in part, none is uniform.
inline picture see_through(unsigned width, unsigned height) {
  picture made{width, height, {}};
  for (unsigned i = 0; i < width * height; ++i)
    append(made.rgba, {i * 7 & 0xff, i * 13 & 0xff, i * 29 & 0xff, i % 2 == 0 ? 255u : 40 + i % 100});
  return made;
}

inline bytes webp_lossless(const picture& from) {
  std::uint8_t* out = nullptr;
  const std::size_t size =
      ::WebPEncodeLosslessRGBA(from.rgba.data(), static_cast<int>(from.width), static_cast<int>(from.height),
                               static_cast<int>(4 * from.width), &out);
  const bytes file(out, out + size);
  ::WebPFree(out);
  return file;
}

}  // namespace image
