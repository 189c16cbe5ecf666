// The one EXIF field that matters for showing a picture: its orientation. Input is hostile; anything odd means 1.
#include "image.hpp"

namespace image {

int exif_orientation(byte_span tiff) {
  constexpr unsigned tag_orientation = 0x0112, type_short = 3;
  if (tiff.size() < 8) return 1;
  const bool little = tiff[0] == 'I' && tiff[1] == 'I';
  if (!little && !(tiff[0] == 'M' && tiff[1] == 'M')) return 1;
  auto number = [&](std::size_t at, unsigned bytes) -> std::uint32_t {
    std::uint32_t value = 0;
    for (unsigned i = 0; i < bytes; ++i) value |= std::uint32_t{tiff[at + i]} << 8 * (little ? i : bytes - 1 - i);
    return value;
  };
  const std::size_t directory = number(4, 4);
  if (number(2, 2) != 42 || directory > tiff.size() - 2) return 1;
  const std::size_t count = number(directory, 2);
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t entry = directory + 2 + 12 * i;
    if (entry + 12 > tiff.size()) return 1;
    if (number(entry, 2) != tag_orientation) continue;
    const std::uint32_t value = number(entry + 8, 2);
    return number(entry + 2, 2) == type_short && value >= 1 && value <= 8 ? static_cast<int>(value) : 1;
  }
  return 1;
}

}  // namespace image
