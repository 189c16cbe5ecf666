// Options of the C API: hosts and plugins as TOML, by the readers of the daemon's configuration; calls as a struct.
#include "config/config.hpp"
#include "config/reader.hpp"
#include "objects.hpp"

#include <cstddef>
#include <cstring>

namespace bulkhead::c_api {
namespace {

template <class Read>
void read_toml(const char* text, Read read) {
  if (!text) return;
  std::vector<daemon::mistake> mistakes;
  try {
    const toml::table table = toml::parse(std::string_view(text));
    daemon::table_reader reader(table, "", mistakes);
    read(reader, std::filesystem::current_path());
    reader.finish();
  } catch (const toml::parse_error& e) {
    mistakes.push_back({e.source().begin.line, std::string(e.description())});
  }
  std::string wrong;
  for (const daemon::mistake& each : mistakes)
    wrong += (wrong.empty() ? "options:" : "\noptions:") + std::to_string(each.line) + ": " + each.text;
  if (!wrong.empty()) throw misuse(wrong);
}

// What there is of a struct that a caller of any version has filled in.
bh_call_options known(const bh_call_options* options) {
  bh_call_options out{};
  if (!options) return out;
  if (options->size < offsetof(bh_call_options, cancel) || options->size > 4096)
    throw misuse("options.size is not sizeof(bh_call_options)");
  std::memcpy(&out, options, std::min(options->size, sizeof out));
  return out;
}

// Packs the value anew, with each blob where it is referred to.
void place_blobs(packed_arguments& out, blob_source* source, const bh_call_options& from,
                 const msgpack::object& value) {
  ipc::packer packer(out.params);
  if (value.type == msgpack::type::ARRAY) {
    packer.pack_array(value.via.array.size);
    for (const msgpack::object& each : std::span(value.via.array.ptr, value.via.array.size))
      place_blobs(out, source, from, each);
  } else if (value.type == msgpack::type::MAP) {
    packer.pack_map(value.via.map.size);
    for (const msgpack::object_kv& each : std::span(value.via.map.ptr, value.via.map.size)) {
      place_blobs(out, source, from, each.key);
      place_blobs(out, source, from, each.val);
    }
  } else if (value.type == msgpack::type::EXT && value.via.ext.type() == ipc::ext_blob && value.via.ext.size == 1) {
    const auto index = static_cast<std::uint8_t>(value.via.ext.data()[0]);
    if (index >= from.blob_count)
      throw misuse("arguments: they refer to blob " + std::to_string(index) + ", and options.blob_count is " +
                   std::to_string(from.blob_count));
    const shared_blob& blob = given(from.blobs[index], "options.blobs[]").blob;
    detail::pack_argument(out, packer, blob, source);
  } else {
    packer.pack(value);
  }
}

}  // namespace

host_options read_host_options(const char* text) {
  host_options out;
  read_toml(text, [&](daemon::table_reader& from, const std::filesystem::path& base) {
    daemon::read_host_options(from, out, base);
    from.number("handler_threads", out.handler_threads, 1, 1024);
  });
  return out;
}

load_options read_load_options(const char* text) {
  load_options out;
  read_toml(text, [&](daemon::table_reader& from, const std::filesystem::path& base) {
    daemon::read_load_options(from, out, base);
    from.text("name", out.name);
    from.choice("isolation", out.isolation, {{"process", isolation::process}, {"none", isolation::none}});
    from.table("state", [&](daemon::table_reader& in) {
      in.flag("keep", out.state.keep);
      in.duration("every", out.state.every, true);
    });
  });
  return out;
}

void progress::show(const msgpack::object& value) {
  std::lock_guard held(mutex_);
  if (!tell_) return;
  const auto bytes = packed(value);
  tell_(context_, bytes.data(), bytes.size());
}

void progress::end() {
  std::lock_guard held(mutex_);
  tell_ = nullptr;
}

std::pair<call_options, std::shared_ptr<progress>> read_call_options(const bh_call_options* options) {
  const bh_call_options from = known(options);
  call_options out;
  std::shared_ptr<progress> shown;
  constexpr std::int64_t longest_ms = std::chrono::nanoseconds::max().count() / 1'000'000;
  if (from.deadline_ms < BH_NO_DEADLINE) throw misuse("options.deadline_ms is negative");
  if (from.deadline_ms == BH_NO_DEADLINE || from.deadline_ms > longest_ms) out.deadline = no_deadline;
  else if (from.deadline_ms > 0) out.deadline = std::chrono::milliseconds(from.deadline_ms);
  if (from.cancel) out.stop = from.cancel->source.get_token();
  if (from.on_progress) {
    shown = std::make_shared<progress>(from);
    out.on_progress = [shown](const msgpack::object& value) { shown->show(value); };
  }
  if (from.stream_window > 0) out.stream_window = from.stream_window;
  return {std::move(out), std::move(shown)};
}

packed_arguments read_arguments(const plugin& target, const void* arguments, std::size_t size,
                                const bh_call_options* options) {
  const bh_call_options from = known(options);
  packed_arguments out;
  if (from.blob_count > 255) throw misuse("options.blob_count is more than 255");
  if (from.blob_count > 0) {
    given(from.blobs, "options.blobs");
    const ipc::byte_span list = one_value(arguments, size, "arguments", true);
    const auto source = target.blobs();
    place_blobs(out, source.get(), from, ipc::unpack(list).get());
  } else if (!arguments && size == 0) {
    ipc::packer(out.params).pack_array(0);
  } else {
    out.params.append(one_value(arguments, size, "arguments", true));
  }
  if (from.handle_count > 255) throw misuse("options.handle_count is more than 255");
  if (from.handle_count > 0) given(from.handles, "options.handles");
  for (std::size_t i = 0; i < from.handle_count; ++i) {
    try {
      out.handles.push_back(detail::duplicate(from.handles[i]));
    } catch (const std::system_error& e) {
      throw misuse("options.handles[" + std::to_string(i) + "]: " + e.what());
    }
  }
  return out;
}

}  // namespace bulkhead::c_api
