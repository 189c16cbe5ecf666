// bh_stream: calls that stream.
#include "objects.hpp"

using namespace bulkhead::c_api;

bh_stream* bh_plugin_open(bh_plugin* plugin, const char* method, const void* arguments, size_t size,
                          const bh_call_options* options, bh_error** error) {
  return guarded(error, static_cast<bh_stream*>(nullptr), [&] {
    const auto [how, shown] = read_call_options(options);
    const bulkhead::plugin& target = given(plugin, "plugin").plugin;
    return new bh_stream{
        shown, target.open_packed(given_text(method, "method"), read_arguments(target, arguments, size, options), how)};
  });
}

int bh_stream_send(bh_stream* stream, const void* item, size_t size, bh_error** error) {
  return guarded(error, -1,
                 [&] { return given(stream, "stream").call.send_packed(one_value(item, size, "item")) ? 1 : 0; });
}

void bh_stream_close(bh_stream* stream) {
  if (stream) guarded([&] { stream->call.close(); });
}

int bh_stream_next(bh_stream* stream, void** item, size_t* size, bh_error** error) {
  return guarded(error, -1, [&] {
    given(item, "item");
    given(size, "size");
    const auto next = given(stream, "stream").call.next_packed();
    if (!next) return 0;
    *item = to_caller(*next, size);
    return 1;
  });
}

bh_reply* bh_stream_finish(bh_stream* stream, bh_error** error) {
  return guarded(error, static_cast<bh_reply*>(nullptr), [&] {
    bulkhead::reply result = given(stream, "stream").call.finish();
    result.throw_if_failed();
    return new bh_reply{std::move(result)};
  });
}

void bh_stream_cancel(bh_stream* stream) {
  if (stream) guarded([&] { stream->call.cancel(); });
}

void bh_stream_free(bh_stream* stream) {
  if (stream && stream->progress) guarded([&] { stream->progress->end(); });
  delete stream;
}
