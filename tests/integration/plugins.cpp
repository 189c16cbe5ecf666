// The real plugins in real workers: images, text, and the C plugin that is made to crash.
#include "fixture.hpp"

#include <csignal>
#include <map>

using namespace bulkhead;
using namespace bulkhead::testing;

namespace {

bytes ppm(unsigned width, unsigned height, std::size_t pixel_bytes) {
  const std::string header = "P6\n" + std::to_string(width) + " " + std::to_string(height) + "\n255\n";
  bytes file(header.begin(), header.end());
  for (std::size_t i = 0; i < pixel_bytes; ++i) file.push_back(static_cast<std::uint8_t>(i % 3 == 0 ? 255 : 0));
  return file;
}

struct image_info {
  std::string format;
  unsigned width = 0, height = 0;
  MSGPACK_DEFINE_MAP(format, width, height)
};

bytes red_picture(plugin& image, unsigned width, unsigned height, const std::string& format) {
  bytes rgb;
  for (unsigned i = 0; i < width * height; ++i) rgb.insert(rgb.end(), {255, 0, 0});
  return image.call<bytes>("thumbnail_rgb", width, height, rgb, std::max(width, height), format, 95);
}

}  // namespace

TEST_CASE("image makes thumbnails of what it wrote itself, in every format") {
  host host;
  auto image = host.load(plugin_path("image"));
  for (const std::string format : {"jpeg", "png", "webp"}) {
    const bytes file = red_picture(image, 300, 100, format);
    const auto info = image.call<image_info>("info", file);
    CHECK(info.format == format);
    CHECK(info.width == 300);
    const bytes thumb = image.call<bytes>("thumbnail", file, 30, "png");
    const auto small = image.call<image_info>("info", thumb);
    CHECK(small.width == 30);
    CHECK(small.height == 10);
    CHECK(image.call<bytes>("convert", file, "webp").size() > 20);
  }
}

TEST_CASE("image refuses every truncation of a file with an error and lives on") {
  host host;
  auto image = host.load(plugin_path("image"));
  const auto pid = image.workers().at(0).pid;
  for (const std::string format : {"jpeg", "png", "webp"}) {
    const bytes file = red_picture(image, 40, 40, format);
    for (std::size_t size = 0; size + 8 < file.size(); size += 1 + file.size() / 100) {
      const bytes cut(file.begin(), file.begin() + static_cast<std::ptrdiff_t>(size));
      CHECK(image.try_call("thumbnail", cut, 20).outcome() == outcome::plugin_error);
    }
  }
  CHECK(image.workers().at(0).pid == pid);
}

TEST_CASE("fragile decodes good files, and a lying one costs its own call only") {
  host host;
  auto fragile = host.load(plugin_path("fragile"));
  const auto [width, height, rgb] = fragile.call<std::tuple<unsigned, unsigned, bytes>>("decode", ppm(4, 2, 24));
  CHECK(width == 4);
  CHECK(height == 2);
  CHECK(rgb.size() == 24);
  CHECK(rgb[0] == 255);
  CHECK(fragile.try_call("decode", "text").message() == "decode: takes 1 argument: bin");
#ifndef BULKHEAD_SANITIZED  // a sanitizer reports the overflow in its own way
  const auto error = failure_of([&] { fragile.call("decode", ppm(4000, 4000, 100)); });
  CHECK(error.outcome() == outcome::worker_lost);
  CHECK(error.report()->signal == SIGSEGV);
  CHECK(error.report()->method == "decode");
#else
  CHECK(failure_of([&] { fragile.call("decode", ppm(4000, 4000, 100)); }).outcome() == outcome::worker_lost);
#endif
  CHECK(fragile.call<std::tuple<unsigned, unsigned, bytes>>("decode", ppm(1, 1, 3)) ==
        std::tuple(1u, 1u, bytes{255, 0, 0}));
}

TEST_CASE("text finds named groups, replaces and splits") {
  host host;
  auto text = host.load(plugin_path("text"));
  const auto found = text.try_call("search", "key=value; k2=v2", "(?<key>\\w+)=(?<value>\\w+)");
  REQUIRE(found);
  const msgpack::object_handle handle = ipc::unpack(found.raw());
  const auto matches = handle.get().as<std::vector<std::map<std::string, msgpack::object>>>();
  REQUIRE(matches.size() == 2);
  CHECK(matches[1].at("start").as<int>() == 11);
  CHECK(matches[1].at("named").as<std::map<std::string, std::string>>() ==
        std::map<std::string, std::string>{{"key", "k2"}, {"value", "v2"}});
  CHECK(text.call<std::string>("replace", "2026-11-23", "(\\d+)-(\\d+)-(\\d+)", "$3.$2.$1") == "23.11.2026");
  CHECK(text.call<std::vector<std::string>>("split", "a, b,c", ",\\s*") == std::vector<std::string>{"a", "b", "c"});
  const auto empty = text.try_call("search", "aé", "");
  CHECK(ipc::unpack(empty.raw()).get().via.array.size == 3);  // before, between and after two characters
  const auto error = failure_of([&] { text.call("search", "x", "(unclosed"); });
  CHECK(error.message().find("offset 9") != std::string::npos);
}

TEST_CASE("a catastrophic pattern is ended by the deadline") {
  host host;
  auto text = host.load(plugin_path("text"));
  const auto error =
      failure_of([&] { text.with({.deadline = 100ms}).call("search", std::string(60, 'a') + "b", "(a+)+$"); });
  CHECK(error.outcome() == outcome::timeout);
  CHECK(text.call<std::string>("replace", "a", "a", "b") == "b");
}
