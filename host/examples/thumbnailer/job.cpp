// See job.hpp. The steps of one file, each begun by the completion of the one before:
//
//   JPEG, PNG, WebP:  read -> image.thumbnail -> image.info
//   Netpbm:           read -> fragile.decode -> image.thumbnail_rgb
#include "job.hpp"

namespace thumbnailer {
namespace {

using bulkhead::bytes;
using bulkhead::outcome;
using bulkhead::reply;

constexpr int attempts_limit = 5;

}  // namespace

job::job(const std::vector<image_file>& files, std::vector<toolset> seats, options options)
    : files_(files), options_(std::move(options)) {
  for (toolset& tools : seats) seats_.push_back({.tools = std::move(tools)});
}

std::size_t job::run() {
  busy_ = seats_.size();
  for (seat& each : seats_) take_next(each);
  std::unique_lock held(mutex_);
  done_.wait(held, [this] { return busy_ == 0; });
  return failed_;
}

void job::take_next(seat& seat) {
  for (;;) {
    seat.index = next_++;
    if (seat.index >= files_.size()) {
      std::lock_guard held(mutex_);
      if (--busy_ == 0) done_.notify_one();
      return;
    }
    seat.attempts = 0;
    if (begin(seat)) return;
  }
}

bool job::begin(seat& seat) {
  const image_file& file = files_[seat.index];
  seat.made = {};
  seat.thumbnail.clear();
  if (file.size > options_.file_limit)
    return fail(seat, outcome::rejected,
                "the file is too large for a call, which carries at most " + std::to_string(options_.file_limit >> 20) +
                    " MiB (load_options::blobs)");
  try {
    seat.file = read_file(file.path);
  } catch (const std::exception& error) {
    return fail(seat, outcome::not_sent, error.what());
  }
  if (file.netpbm) return call(seat, seat.tools.fragile, "fragile", "decode", &job::decoded, std::tie(seat.file));
  return call(seat, seat.tools.image, "image", "thumbnail", &job::scaled, std::tie(seat.file, options_.max_side));
}

bool job::decoded(seat& seat, const reply& reply) {
  const auto [width, height, rgb] = reply.as<std::tuple<unsigned, unsigned, bytes>>();
  seat.made.width = width;
  seat.made.height = height;
  return call(seat, seat.tools.image, "image", "thumbnail_rgb", &job::scaled,
              std::tie(width, height, rgb, options_.max_side));
}

bool job::scaled(seat& seat, const reply& reply) {
  seat.thumbnail = reply.as<bytes>();
  if (!options_.ask_dimensions || seat.made.width != 0) return false;
  return call(seat, seat.tools.image, "image", "info", &job::measured, std::tie(seat.file));
}

bool job::measured(seat& seat, const reply& reply) {
  const msgpack::object_handle info = bulkhead::ipc::unpack(reply.raw());
  const auto fields = info.get().as<std::map<std::string, msgpack::object>>();
  fields.at("width").convert(seat.made.width);
  fields.at("height").convert(seat.made.height);
  // EXIF orientations from 5 on lie on their side; the thumbnail is upright.
  if (const auto found = fields.find("orientation"); found != fields.end() && found->second.as<int>() >= 5)
    std::swap(seat.made.width, seat.made.height);
  return false;
}

// The handler runs on one of the host's handler threads; the seat is its alone until the next call.
template <class... A>
bool job::call(seat& seat, const bulkhead::plugin& plugin, const std::string& plugin_name, const char* method,
               step then, const std::tuple<A...>& arguments) {
  seat.made.method = plugin_name + "." + method;
  plugin.async_call<reply>(method, arguments, [this, &seat, then](boost::system::error_code, const reply& reply) {
    if (!go_on(seat, reply, then)) take_next(seat);
  });
  return true;
}

bool job::go_on(seat& seat, const reply& reply, step then) {
  // It never reached the plugin: its worker died of another file first. That is safe to repeat.
  if (reply.outcome() == outcome::not_sent && ++seat.attempts < attempts_limit) return begin(seat);
  if (!reply) {
    seat.made.report = reply.report();
    return fail(seat, reply.outcome(), reply.message());
  }
  try {
    if ((this->*then)(seat, reply)) return true;
  } catch (const std::exception& error) {  // a result that is not what the method promises
    return fail(seat, outcome::plugin_error, std::string("the plugin's answer is of no use: ") + error.what());
  }
  if (options_.on_done) options_.on_done(seat.index, seat.made, seat.thumbnail);
  return false;
}

bool job::fail(seat& seat, outcome why, std::string message) {
  ++failed_;
  seat.made.outcome = why;
  seat.made.message = std::move(message);
  if (options_.on_done) options_.on_done(seat.index, seat.made, {});
  return false;
}

}  // namespace thumbnailer
