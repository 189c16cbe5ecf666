// A call that streams, between the standard input and the standard output: items in and items out, a line each.
#pragma once

#include "calling.hpp"
#include "daemon_stream.hpp"
#include <bulkhead/plugin.hpp>

namespace bulkhead::cli {

inline bool streams(const signature& form) { return form.streamed_arguments || form.streamed_results; }

// Prints streamed results as they come: JSON, and with --json {"item": ...} with bytes in base64. Reads arguments, if
// the method takes a stream of them, from the standard input until its end, or until the call's. Throws argument_error
// for a line that is no such argument; the call is cancelled then.
reply call_streamed(streaming_call call, const call_line& line);
reply call_streamed(daemon_stream& call, const call_line& line);

}  // namespace bulkhead::cli
