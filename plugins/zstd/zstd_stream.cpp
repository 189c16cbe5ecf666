// See zstd_stream.hpp.
#include "zstd_stream.hpp"

#include <zstd.h>

#include <vector>

namespace zstd {
namespace {

constexpr int window_log_limit = 27;  // 128 MiB

std::size_t checked(std::size_t code, const char* what) {
  if (ZSTD_isError(code)) throw zstd_error(std::string(what) + ": " + ZSTD_getErrorName(code));
  return code;
}

}  // namespace

struct compressor::state {
  std::unique_ptr<ZSTD_CCtx, std::size_t (*)(ZSTD_CCtx*)> context{ZSTD_createCCtx(), ZSTD_freeCCtx};
  sink out;
  std::vector<std::uint8_t> buffer =
      std::vector<std::uint8_t>(ZSTD_CStreamOutSize() < 131072 ? ZSTD_CStreamOutSize() : 131072);
};

compressor::compressor(int level, sink out) : state_(std::make_unique<state>()) {
  if (level < 1 || level > ZSTD_maxCLevel())
    throw zstd_error("level has to be 1 to " + std::to_string(ZSTD_maxCLevel()) + ", got " + std::to_string(level));
  if (!state_->context) throw zstd_error("no memory to compress with");
  state_->out = std::move(out);
  checked(ZSTD_CCtx_setParameter(state_->context.get(), ZSTD_c_compressionLevel, level), "level");
  checked(ZSTD_CCtx_setParameter(state_->context.get(), ZSTD_c_checksumFlag, 1), "checksum");
}

compressor::~compressor() = default;

void compressor::run(bytes_view piece, int directive) {
  ZSTD_inBuffer in{piece.data(), piece.size(), 0};
  for (;;) {
    ZSTD_outBuffer made{state_->buffer.data(), state_->buffer.size(), 0};
    const std::size_t left = checked(
        ZSTD_compressStream2(state_->context.get(), &made, &in, static_cast<ZSTD_EndDirective>(directive)), "compress");
    if (made.pos > 0) state_->out({state_->buffer.data(), made.pos});
    if (directive == ZSTD_e_end ? left == 0 : in.pos == in.size) return;
  }
}

void compressor::put(bytes_view piece) { run(piece, ZSTD_e_continue); }
void compressor::finish() { run({}, ZSTD_e_end); }

struct decompressor::state {
  std::unique_ptr<ZSTD_DCtx, std::size_t (*)(ZSTD_DCtx*)> context{ZSTD_createDCtx(), ZSTD_freeDCtx};
  sink out;
  std::vector<std::uint8_t> buffer = std::vector<std::uint8_t>(131072);
  std::size_t wanted = 1;  // 0: at the end of a frame
};

decompressor::decompressor(sink out) : state_(std::make_unique<state>()) {
  if (!state_->context) throw zstd_error("no memory to decompress with");
  state_->out = std::move(out);
  checked(ZSTD_DCtx_setParameter(state_->context.get(), ZSTD_d_windowLogMax, window_log_limit), "window");
}

decompressor::~decompressor() = default;

void decompressor::put(bytes_view piece) {
  ZSTD_inBuffer in{piece.data(), piece.size(), 0};
  bool full = false;  // then there may be more to come out, though all has gone in
  while (in.pos < in.size || full) {
    ZSTD_outBuffer made{state_->buffer.data(), state_->buffer.size(), 0};
    const std::size_t before = in.pos;
    state_->wanted = checked(ZSTD_decompressStream(state_->context.get(), &made, &in), "not valid Zstandard data");
    if (made.pos > 0) state_->out({state_->buffer.data(), made.pos});
    full = made.pos == made.size && state_->wanted != 0;
    if (in.pos == before && made.pos == 0) break;
  }
}

void decompressor::finish() {
  if (state_->wanted != 0) throw zstd_error("the compressed data is cut short");
}

}  // namespace zstd
