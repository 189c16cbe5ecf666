// Compression and decompression a piece at a time. What is decompressed is not trusted: its window is limited, and callers
// count what comes out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>

namespace zstd {

using bytes_view = std::span<const std::uint8_t>;
using sink = std::function<void(bytes_view)>;  // takes a piece of at most 128 KiB, valid until it returns

class zstd_error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

class compressor {
 public:
  // Throws zstd_error for a level that there is none of. `out` takes what comes out, in put() and finish().
  compressor(int level, sink out);
  ~compressor();
  void put(bytes_view piece);
  void finish();

 private:
  void run(bytes_view piece, int directive);
  struct state;
  std::unique_ptr<state> state_;
};

class decompressor {
 public:
  explicit decompressor(sink out);
  ~decompressor();
  // Throws zstd_error for what is no Zstandard frame, or wants a window of more than 128 MiB.
  void put(bytes_view piece);
  // Throws zstd_error when a frame is cut short, or there was none.
  void finish();

 private:
  struct state;
  std::unique_ptr<state> state_;
};

}  // namespace zstd
