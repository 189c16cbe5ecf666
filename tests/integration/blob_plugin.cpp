// For blobs.cpp: reads and makes bytes in bulk in every way that a plugin can.
#include <bulkhead/sdk.hpp>

#include <algorithm>
#include <cstdlib>
#include <numeric>
#include <thread>

BULKHEAD_MANIFEST(license, "license=MIT");

namespace {

std::uint64_t sum_of(bulkhead::bytes_view data) { return std::accumulate(data.begin(), data.end(), std::uint64_t{0}); }

std::uint8_t* kept = nullptr;  // into a blob that was returned
bulkhead::blob unsent;
bulkhead::snapshot held;
std::uint64_t version_at_init = 0;

}  // namespace

struct picture {
  std::string name;
  bulkhead::bytes pixels;
  MSGPACK_DEFINE_MAP(name, pixels)
};

BULKHEAD_PLUGIN("blobs", "1.0.0") {
  using namespace bulkhead;
  plugin.method("sum", [](blob data) { return sum_of(data); });
  plugin.method("sum_of_bytes", [](bytes data) { return sum_of(data); });
  plugin.method("length", [](const std::string& text) { return text.size(); });
  plugin.method("kinds", [](const std::vector<msgpack::object>& values) {
    std::vector<std::string> kinds;
    for (const auto& each : values) kinds.push_back(typed::kind_of(each));
    return kinds;
  });
  plugin.method("invert", [](context& cx, blob in) {
    blob out = cx.create_blob(in.size());
    std::transform(in.data(), in.data() + in.size(), out.writable().data(), [](std::uint8_t each) { return ~each; });
    return out;
  });
  plugin.method("nothing", [](blob) {});
  plugin.method("echo", [](bytes_view data) { return data; });
  plugin.method("fill", [](std::size_t size, std::uint8_t with) { return bytes(size, with); });
  plugin.method("text", [](std::size_t size) { return std::string(size, 'x'); });
  plugin.method("pictures", [](std::map<std::string, picture> all) {
    for (auto& [name, each] : all) std::reverse(each.pixels.begin(), each.pixels.end());
    return all;
  });
  plugin.method("later", [](responder<bytes> answer, std::size_t size) {
    std::thread([answer = std::move(answer), size]() mutable { answer.reply(bytes(size, 7)); }).detach();
  });

  // Sees what the application writes meanwhile, because nothing was copied.
  plugin.method("await_one", [](context& cx, blob data) {
    cx.emit("reading", 0);
    while (*static_cast<const volatile std::uint8_t*>(data.data()) != 1) cx.throw_if_cancelled();
    return true;
  });
  plugin.method("keep", [](context& cx, std::size_t size) {
    blob out = cx.create_blob(size);
    std::fill(out.writable().begin(), out.writable().end(), 1);
    kept = out.writable().data();
    return out;
  });
  plugin.method("scribble", [] { *kept = 2; });
  plugin.method("hoard", [](context& cx, std::size_t size) { unsent = cx.create_blob(size); });
  plugin.method("let_go", [] { unsent = {}; });

  // Goes on for a while after it was given up.
  plugin.method("sum_after_cancel", [](context& cx, blob data) {
    const std::uint64_t before = sum_of(data);
    cx.emit("reading", 0);
    while (!cx.cancelled()) {
    }
    host_api(cx).call_host<void>("refilled");
    host_api(cx).emit("sums", std::vector<std::uint64_t>{before, sum_of(data)});
  });
  plugin
      .method("die_at_first",
              [](context& cx, blob data) {
                if (cx.call_host<int>("attempt") == 1) std::abort();
                return sum_of(data);
              })
      .idempotent();
  plugin.method("die", [] { std::abort(); });

  // What the application has published.
  plugin.on_init([host = plugin.host()] { version_at_init = host.published("table").version(); });
  plugin.method("version_at_init", [] { return version_at_init; });
  plugin.method("version", [](context& cx, const std::string& name) { return cx.published(name).version(); });
  plugin.method("sum_published",
                [](context& cx, const std::string& name) { return sum_of(cx.published(name).view()); });
  plugin.method("look_up", [](context& cx, const std::string& word) {
    return cx.published("words").as<std::map<std::string, int>>().at(word);
  });
  plugin.method("hold", [](context& cx, const std::string& name) { held = cx.published(name); });
  plugin.method("held", [] { return std::pair(held.version(), sum_of(held.view())); });
  plugin.method("await_version", [](context& cx, std::uint64_t version) {  // busy all the time
    cx.emit("reading", 0);
    while (cx.published("table").version() < version) cx.throw_if_cancelled();
    return true;
  });
  plugin.method("overwrite",
                [](context& cx) { const_cast<std::uint8_t*>(cx.published("table").view().data())[0] = 1; });
}
