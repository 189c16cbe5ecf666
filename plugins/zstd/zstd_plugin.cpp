// The plugin `zstd`: Zstandard, over streams for any amount and over blobs for what fits into memory.
#include "zstd_stream.hpp"
#include <bulkhead/sdk.hpp>

BULKHEAD_MANIFEST(license, "license=MIT");
BULKHEAD_MANIFEST(description, "description=Zstandard compression over streams and blobs");

namespace {

using bulkhead::bytes;
using bulkhead::bytes_view;
using bulkhead::context;
using limit = std::optional<std::uint64_t>;

constexpr int usual_level = 3;
constexpr std::uint64_t usual_limit = std::uint64_t{256} << 20;
constexpr std::size_t step = std::size_t{1} << 20;  // between looks at the call

// Counts what comes out, against a limit: a few bytes can stand for terabytes.
class counted {
 public:
  counted(context& cx, limit most) : cx_(cx), most_(most.value_or(usual_limit)) {}
  void add(std::size_t bytes) {
    cx_.throw_if_cancelled();
    total_ += bytes;
    if (total_ > most_)
      throw bulkhead::error("it decompresses to more than the limit of " + std::to_string(most_) + " bytes");
  }
  std::uint64_t total() const { return total_; }

 private:
  context& cx_;
  const std::uint64_t most_;
  std::uint64_t total_ = 0;
};

// Bytes as a blob of their own.
bulkhead::blob blob_of(context& cx, const bytes& all) {
  bulkhead::blob made = cx.create_blob(all.size());
  if (!all.empty()) std::memcpy(made.writable().data(), all.data(), all.size());
  return made;
}

bulkhead::blob compress(context& cx, const bulkhead::blob& data, std::optional<int> level) {
  bytes made;
  zstd::compressor into(level.value_or(usual_level),
                        [&](bytes_view piece) { made.insert(made.end(), piece.begin(), piece.end()); });
  for (bytes_view rest = data.view(); !rest.empty();) {
    cx.throw_if_cancelled();
    const bytes_view piece = rest.first(std::min(rest.size(), step));
    into.put(piece);
    rest = rest.subspan(piece.size());
  }
  into.finish();
  return blob_of(cx, made);
}

bulkhead::blob decompress(context& cx, const bulkhead::blob& data, limit most) {
  bytes made;
  counted total(cx, most);
  zstd::decompressor from([&](bytes_view piece) {
    total.add(piece.size());
    made.insert(made.end(), piece.begin(), piece.end());
  });
  from.put(data.view());
  from.finish();
  return blob_of(cx, made);
}

}  // namespace

BULKHEAD_PLUGIN("zstd", "1.0.0") {
  using bulkhead::reader;
  using bulkhead::writer;

  plugin
      .method("compress", compress, "The bytes as one Zstandard frame with a checksum (level 1 to 22, usually 3)",
              {"data", "level"})
      .idempotent();
  plugin
      .method("decompress", decompress, "The bytes of Zstandard frames; at most `limit` (usually 256 MiB)",
              {"data", "limit"})
      .idempotent();
  plugin.method("compress_stream",
                [](std::optional<int> level, reader<bytes_view> pieces, writer<bytes_view> compressed) {
                  std::uint64_t read = 0;
                  zstd::compressor into(level.value_or(usual_level), [&](bytes_view piece) { compressed.send(piece); });
                  while (const auto piece = pieces.next()) {
                    read += piece->size();
                    into.put(*piece);
                  }
                  into.finish();
                  return read;
                },
                "The same for any amount, piece by piece; gives how many bytes it has read", {"level"});
  plugin.method("decompress_stream",
                [](context& cx, limit most, reader<bytes_view> pieces, writer<bytes_view> plain) {
                  counted total(cx, limit(most.value_or(UINT64_MAX)));
                  zstd::decompressor from([&](bytes_view piece) {
                    total.add(piece.size());
                    plain.send(piece);
                  });
                  while (const auto piece = pieces.next()) from.put(*piece);
                  from.finish();
                  return total.total();
                },
                "The same backwards; without a limit unless one is given, for the caller takes pieces as it likes",
                {"limit"});
}
