// A call that streams, for one who passes it on between two processes: nothing here ever waits, and nothing is kept.
#pragma once

#include <bulkhead/plugin.hpp>

namespace bulkhead {

// Begins it. What the worker says of the stream is said to `onward`, which must not block; what the far end says goes to
// the pass_...() of what this gives back. `handler` gets the reply; nothing counts that is said to `onward` later. Of
// `options`, `stream_window` is the far end's. An idempotent method is not repeated once it has asked for arguments.
std::shared_ptr<ipc::stream> relay_call(const plugin& target, std::string_view method, packed_arguments arguments,
                                        const call_options& options, std::shared_ptr<ipc::stream::link> onward,
                                        std::unique_ptr<reply_handler> handler);

}  // namespace bulkhead
