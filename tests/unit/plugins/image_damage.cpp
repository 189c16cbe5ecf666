// The image plugin's core and hostile files: cut, changed, or lying about their size, they are an error.
#include "image_files.hpp"

#include <catch2/catch.hpp>

#include <stdexcept>

#include <sys/resource.h>

namespace image {
namespace {

using Catch::Matchers::Contains;
using Catch::Matchers::Equals;

std::string error_of(const bytes& file) {
  try {
    load(file, {});
  } catch (const image_error& error) {
    return error.what();
  }
  return "";
}

// Runs with little more address space than now: whoever allocates what a header claims gets std::bad_alloc, which is
// no image_error. Sanitizers reserve terabytes of their own, so there the limit stays as it is.
class scarce_memory {
 public:
  scarce_memory() {
    ::getrlimit(RLIMIT_AS, &before_);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    rlimit few = before_;
    few.rlim_cur = std::size_t{512} << 20;
    ::setrlimit(RLIMIT_AS, &few);
#endif
  }
  ~scarce_memory() { ::setrlimit(RLIMIT_AS, &before_); }

 private:
  rlimit before_{};
};

// A PNG that claims another size than it has, with a right checksum.
bytes png_claiming(std::uint32_t width, std::uint32_t height, bool interlaced = false) {
  bytes file = encode(see_through(4, 4), "png", 90);
  put_big(file, 16, width, 4), put_big(file, 20, height, 4);
  if (interlaced) file[28] = 1;
  put_big(file, 29, crc32(byte_span(file).subspan(12, 17)), 4);
  return file;
}

bytes jpeg_claiming(unsigned width, unsigned height) {
  bytes file = jpeg(blocks("rg/by"), {});
  for (std::size_t at = 2; at + 9 < file.size(); at += 2u + file[at + 2] * 256u + file[at + 3]) {
    if (file[at + 1] != 0xc0) continue;  // SOF0
    put_big(file, at + 5, height, 2), put_big(file, at + 7, width, 2);
    return file;
  }
  throw std::logic_error("no frame header");
}

TEST_CASE("image: a file cut anywhere is an error") {
  const picture from = see_through(9, 5);
  const std::array<bytes, 4> files = {jpeg(blocks("rg/by"), tiff(6, true)), encode(from, "png", 90),
                                      encode(from, "webp", 80), webp_lossless(from)};
  for (const bytes& whole : files) {
    REQUIRE(error_of(whole).empty());
    const std::string format = read_info(whole).format;
    for (std::size_t size = 0; size < whole.size(); ++size) {
      const bytes part(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size));
      INFO(format << ", " << size << " of " << whole.size() << " bytes");
      CHECK(error_of(part) != "");
      CHECK_THROWS_AS(thumbnail(part, 4, {}), image_error);
      unsigned width = read_info(whole).width;
      try {
        width = read_info(part).width;  // the header may well be whole
      } catch (const image_error&) {
      }
      CHECK(width == read_info(whole).width);
    }
  }
  CHECK_THAT(error_of({files[0].begin(), files[0].end() - 3}), Contains("Premature end"));
  CHECK_THAT(error_of({files[1].begin(), files[1].end() - 3}), Equals("PNG: the file is cut short"));
  CHECK_THAT(error_of({files[2].begin(), files[2].end() - 9}), Equals("WebP: the file is cut short"));
}

TEST_CASE("image: a file with any byte changed is a picture or an error") {
  const picture from = see_through(9, 5);
  for (const bytes& whole :
       {jpeg(blocks("rg/by"), tiff(6, true)), encode(from, "png", 90), encode(from, "webp", 80), webp_lossless(from)}) {
    for (std::size_t at = 0; at < whole.size(); ++at) {
      for (const unsigned change : {0x01u, 0x80u, 0xffu}) {
        bytes odd = whole;
        odd[at] = static_cast<std::uint8_t>(odd[at] ^ change);
        try {
          const picture small = thumbnail(odd, 8, {});
          CHECK(small.rgba.size() == std::size_t{4} * small.width * small.height);
        } catch (const image_error& error) {
          CHECK(std::string(error.what()) != "");
        }
      }
    }
  }
}

TEST_CASE("image: a header that claims a huge size is refused before anything is allocated") {
  const scarce_memory scarce;
  const std::array<bytes, 4> files = {png_claiming(0x7fffffff, 0x7fffffff), png_claiming(16385, 16384),
                                      png_claiming(1u << 30, 1, true), jpeg_claiming(65500, 65500)};
  for (const bytes& file : files) {
    CHECK_THAT(error_of(file), Contains("the limit is 256 Mi pixels"));
    CHECK_THROWS_WITH(read_info(file), Contains("the header says"));
    CHECK_THROWS_WITH(thumbnail(file, 8, {}), Contains("the header says"));
  }
  CHECK_THAT(error_of(files[1]), Contains("16385 x 16384"));
  CHECK(read_info(png_claiming(16384, 16384)).width == 16384);  // exactly the limit
  CHECK_THAT(error_of(png_claiming(0, 4)), !Equals(""));
  CHECK_THROWS_WITH(check_size(std::uint64_t{1} << 63, 2), Contains("the limit is"));
  CHECK_THROWS_WITH(check_size(0, 7), Equals("the header says that the image has no pixels"));
  CHECK_THROWS_WITH(thumbnail_rgb(1u << 31, 1u << 31, {}, 8), Contains("the limit is"));
}

}  // namespace
}  // namespace image
