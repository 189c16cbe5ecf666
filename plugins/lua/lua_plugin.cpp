// The plugin `lua`: runs scripts of Lua 5.4 within limits of memory and time.
#include "script.hpp"
#include <bulkhead/sdk.hpp>

BULKHEAD_MANIFEST(license, "license=MIT");
BULKHEAD_MANIFEST(description, "description=Runs Lua 5.4 scripts within limits of memory and time");

namespace {

constexpr std::int64_t most_megabytes = 1024;

// A result that is packed already.
struct packed_value {
  msgpack::sbuffer bytes;
  template <class Packer>
  void msgpack_pack(Packer& packer) const {
    packer.pack(msgpack::unpack(bytes.data(), bytes.size()).get());
  }
};

lua::limits limits_of(bulkhead::context& cx, std::optional<std::int64_t> megabytes,
                      std::optional<std::int64_t> milliseconds) {
  lua::limits within;
  if (megabytes && (*megabytes < 1 || *megabytes > most_megabytes))
    throw bulkhead::error("memory_mb has to be 1 to " + std::to_string(most_megabytes));
  if (milliseconds && *milliseconds < 1) throw bulkhead::error("time_ms has to be at least 1");
  if (megabytes) within.memory = static_cast<std::size_t>(*megabytes) << 20;
  // No longer than ten years, which the clock can count.
  if (milliseconds) within.time = std::chrono::milliseconds(std::min<std::int64_t>(*milliseconds, 315'360'000'000));
  within.cancelled = [&cx] { return cx.cancelled(); };
  within.print = [&cx](std::string_view line) { cx.log(line); };
  return within;
}

}  // namespace

BULKHEAD_PLUGIN("lua", "1.0.0") {
  using limit = std::optional<std::int64_t>;
  plugin.method(
      "run",
      [](bulkhead::context& cx, std::string_view script, std::optional<msgpack::object> args, limit memory_mb,
         limit time_ms) {
        packed_value result;
        try {
          lua::run(script, args.value_or(msgpack::object()), limits_of(cx, memory_mb, time_ms), result.bytes);
        } catch (const lua::script_error&) {
          cx.throw_if_cancelled();
          throw;
        }
        return result;
      },
      "Runs a script, which finds `args` as a global, and gives back what it returns (64 MiB, 10 s unless said)",
      {"script", "args", "memory_mb", "time_ms"});
  plugin
      .method("check",
              [](bulkhead::context& cx, std::string_view script) {
                msgpack::sbuffer ignored;
                const std::string wrapped = "local f, e = load(args) return e";
                const msgpack::object text(script);
                lua::run(wrapped, text, limits_of(cx, {}, {}), ignored);
                return packed_value{std::move(ignored)};
              },
              "What is wrong with a script's syntax, or nil; it is not run", {"script"})
      .idempotent();
}
