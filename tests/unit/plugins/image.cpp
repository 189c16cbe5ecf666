// The image plugin's core without any worker: what is upright, what keeps its alpha, what sizes and colours come out.
#include "image_files.hpp"

#include <catch2/catch.hpp>

namespace image {
namespace {

using Catch::Matchers::Contains;
using Catch::Matchers::Equals;

rgba pixel(const picture& from, unsigned x, unsigned y) {
  rgba value{};
  for (std::size_t c = 0; c < 4; ++c) value[c] = from.rgba.at(4 * (std::size_t{y} * from.width + x) + c);
  return value;
}

// The letter of a colour that JPEG may have changed a little: w, k, r, g, b, y.
char letter(rgba colour) {
  const std::string letters = "kbgcrmyw";
  return letters[(colour[0] > 127 ? 4u : 0u) + (colour[1] > 127 ? 2u : 0u) + (colour[2] > 127 ? 1u : 0u)];
}

std::string letters(const picture& from) {
  std::string rows;
  for (unsigned y = block / 2; y < from.height; y += block) {
    if (!rows.empty()) rows += '/';
    for (unsigned x = block / 2; x < from.width; x += block) rows += letter(pixel(from, x, y));
  }
  return rows;
}

TEST_CASE("image: every EXIF orientation comes out upright") {
  // What is seen is always "rg/by/wk"; what is stored is that, moved the way the orientation undoes (EXIF 2.3, 4.6.4).
  const std::array<const char*, 9> stored = {"",        "rg/by/wk", "gr/yb/kw", "kw/yb/gr", "wk/by/rg",
                                             "rbw/gyk", "gyk/rbw",  "kyg/wbr",  "wbr/kyg"};
  const bool little = GENERATE(true, false);
  for (unsigned orientation = 1; orientation <= 8; ++orientation) {
    INFO("orientation " << orientation << (little ? ", little-endian" : ", big-endian"));
    const bytes file = jpeg(blocks(stored[orientation]), tiff(orientation, little));
    CHECK(read_info(file).orientation == static_cast<int>(orientation));
    const picture whole = load(file, {});
    CHECK(letters(whole) == "rg/by/wk");
    CHECK(whole.width == 2 * block);
    CHECK(whole.height == 3 * block);
    CHECK(letters(thumbnail(file, 3 * block, {})) == "rg/by/wk");
    const picture small = thumbnail(file, block, {});
    CHECK((small.width == 5 && small.height == 8));
  }
}

TEST_CASE("image: the EXIF orientation of PNG and WebP files comes out upright") {
  const picture stored = blocks("gyk/rbw");  // orientation 6
  const bytes exif = tiff(6, GENERATE(true, false)), webp = encode(stored, "webp", 95);
  bytes as_in_jpeg = {'E', 'x', 'i', 'f', 0, 0};
  as_in_jpeg.insert(as_in_jpeg.end(), exif.begin(), exif.end());
  for (const bytes& file :
       {png_with_exif(encode(stored, "png", 90), exif), webp_with_exif(webp, stored.width, stored.height, exif),
        webp_with_exif(webp, stored.width, stored.height, as_in_jpeg)}) {
    const info found = read_info(file);
    INFO(found.format);
    CHECK(found.orientation == 6);
    CHECK(letters(load(file, {})) == "rg/by/wk");
    CHECK(letters(thumbnail(file, 3 * block, {})) == "rg/by/wk");
  }
}

TEST_CASE("image: an orientation that makes no sense is ignored") {
  CHECK(exif_orientation(tiff(6, true)) == 6);
  CHECK(exif_orientation(tiff(0, true)) == 1);
  CHECK(exif_orientation(tiff(9, false)) == 1);
  CHECK(exif_orientation({}) == 1);
  const bytes whole = tiff(6, false);
  // The directory's entries end at byte 34; what follows is the next directory's offset, which nobody needs.
  for (std::size_t size = 0; size < whole.size(); ++size)
    CHECK(exif_orientation(bytes(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size))) ==
          (size < 34 ? 1 : 6));
  for (std::size_t at = 0; at < whole.size(); ++at) {
    bytes odd = whole;
    odd[at] ^= 0xff;  // among them offsets and counts far outside
    const int found = exif_orientation(odd);
    CHECK((found == 1 || found == 6));
  }
  CHECK(letters(load(jpeg(blocks("rg/by"), {'M', 'M', 0, 42, 0xff, 0xff, 0xff, 0xff}), {})) == "rg/by");
}

TEST_CASE("image: PNG and WebP keep alpha, JPEG puts the picture on white") {
  const picture from = see_through(12, 7);
  for (const bytes& file : {encode(from, "png", 90), encode(from, "webp", 90), webp_lossless(from)}) {
    const info found = read_info(file);
    INFO(found.format);
    CHECK(found.alpha);
    CHECK(found.channels == 4);
    const picture back = load(file, {});
    REQUIRE(back.rgba.size() == from.rgba.size());
    for (std::size_t i = 3; i < from.rgba.size(); i += 4) CHECK(back.rgba[i] == from.rgba[i]);
  }
  CHECK(load(encode(from, "png", 1), {}).rgba == from.rgba);

  picture glass{block, block, {}};
  for (unsigned i = 0; i < block * block; ++i) append(glass.rgba, {0, 0, 0, 51});  // a fifth of black
  const bytes file = encode(glass, "jpeg", 95);
  CHECK_FALSE(read_info(file).alpha);
  const rgba seen = pixel(load(file, {}), 3, 3);
  CHECK(std::abs(seen[0] - 204) <= 2);
  CHECK(seen[3] == 255);
}

TEST_CASE("image: transparent pixels lend no colour to a thumbnail") {
  picture from{4, 2, {}};
  for (unsigned i = 0; i < 8; ++i)
    if (i % 2 == 0) append(from.rgba, {255, 0, 0, 255});
    else append(from.rgba, {0, 255, 0, 0});
  const picture small = thumbnail(encode(from, "png", 90), 2, {});
  REQUIRE(small.width == 2);
  REQUIRE(small.height == 1);
  CHECK(pixel(small, 0, 0) == rgba{255, 0, 0, 128});
}

TEST_CASE("image: info names what a file is") {
  const info of_jpeg = read_info(jpeg(blocks("rgb/ykw"), {}));
  CHECK(of_jpeg.format == "jpeg");
  CHECK((of_jpeg.width == 24 && of_jpeg.height == 16 && of_jpeg.channels == 3 && of_jpeg.orientation == 1));
  const info of_png = read_info(encode(see_through(5, 6), "png", 90));
  CHECK(of_png.format == "png");
  CHECK((of_png.width == 5 && of_png.height == 6));
  const info of_webp = read_info(encode(blocks("rg/by"), "webp", 90));
  CHECK(of_webp.format == "webp");
  CHECK((of_webp.width == 16 && of_webp.height == 16 && of_webp.channels == 3 && !of_webp.alpha));
  CHECK_THROWS_WITH(read_info({}), Equals("not an image: the file is empty"));
  const bytes gif = {'G', 'I', 'F', '8', '9', 'a'};
  CHECK_THROWS_WITH(read_info(gif), Contains("(JPEG, PNG, WebP)") && Contains("47 49 46 38 39 61"));
}

TEST_CASE("image: a thumbnail keeps its aspect and is never enlarged") {
  struct {
    unsigned width, height, max_side, result_width, result_height;
  } const cases[] = {{400, 100, 40, 40, 10}, {100, 400, 40, 10, 40}, {30, 20, 64, 30, 20}, {64, 64, 64, 64, 64},
                     {101, 67, 10, 10, 7},   {900, 2, 30, 30, 1},    {1, 1, 1, 1, 1},      {777, 333, 100, 100, 43}};
  for (const auto& wanted : cases) {
    picture grey{wanted.width, wanted.height, {}};
    grey.rgba.assign(std::size_t{4} * wanted.width * wanted.height, 255);
    for (std::size_t i = 0; i < grey.rgba.size(); ++i)
      if (i % 4 != 3) grey.rgba[i] = 100;
    for (const char* format : {"jpeg", "png", "webp"}) {
      INFO(format << ", " << wanted.width << " x " << wanted.height << " to " << wanted.max_side);
      const picture small = thumbnail(encode(grey, format, 95), wanted.max_side, {});
      CHECK(small.width == wanted.result_width);
      CHECK(small.height == wanted.result_height);
      for (unsigned y = 0; y < small.height; ++y)
        for (unsigned x = 0; x < small.width; ++x)
          if (const rgba at = pixel(small, x, y); std::abs(at[0] - 100) > 2 || at[3] < 254) FAIL(x << ", " << y);
    }
  }
  CHECK_THROWS_WITH(thumbnail(encode(blocks("rg/by"), "png", 90), 0, {}), Equals("max_side must be 1 to 16384"));
  CHECK_THROWS_WITH(thumbnail(encode(blocks("rg/by"), "png", 90), 16385, {}), Equals("max_side must be 1 to 16384"));
}

TEST_CASE("image: a thumbnail of raw pixels") {
  bytes rgb;
  for (unsigned i = 0; i < 8; ++i) append(rgb, {i < 4 ? 200u : 100u, 0, i % 2 * 255});
  const picture small = thumbnail_rgb(4, 2, rgb, 2);
  REQUIRE((small.width == 2 && small.height == 1));
  CHECK(pixel(small, 1, 0) == rgba{150, 0, 128, 255});
  CHECK_THROWS_WITH(thumbnail_rgb(4, 3, rgb, 2), Equals("rgb has 24 bytes, expected 3 x width x height"));
  CHECK_THROWS_WITH(thumbnail_rgb(0, 2, rgb, 2), Contains("no pixels"));
}

TEST_CASE("image: conversion keeps size and colours between all formats") {
  const picture from = blocks("rgb/ykw");
  for (const char* first : {"jpeg", "png", "webp"})
    for (const char* second : {"jpeg", "png", "webp"}) {
      const bytes file = encode(load(encode(from, first, 95), {}), second, 95);
      INFO(first << " to " << second);
      CHECK(read_info(file).format == second);
      CHECK(letters(load(file, {})) == "rgb/ykw");
    }
  CHECK_THROWS_WITH(encode(from, "gif", 90), Equals("unknown format 'gif': jpeg, png or webp"));
  CHECK_THROWS_WITH(encode(from, "png", 0), Equals("quality must be 1 to 100"));
  CHECK_THROWS_WITH(encode(from, "jpeg", 101), Equals("quality must be 1 to 100"));
  picture wide{16384, 1, {}};
  wide.rgba.resize(std::size_t{4} * wide.width);
  CHECK_THROWS_WITH(encode(wide, "webp", 90), Contains("16383"));
}

TEST_CASE("image: a cancelled call ends with its own error") {
  const picture from = see_through(4, 300);
  for (const char* format : {"jpeg", "png", "webp"})
    CHECK_THROWS_WITH(load(encode(from, format, 90), [] { return true; }), Equals("cancelled"));
  int asked = 0;
  CHECK_THROWS_WITH(load(encode(from, "png", 90), [&] { return ++asked == 3; }), Equals("cancelled"));
}

}  // namespace
}  // namespace image
