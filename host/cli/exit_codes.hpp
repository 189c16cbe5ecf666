// What the program's exit status means: each outcome of a call has a status of its own, so that scripts can tell them
// apart. Part of the program's interface: these numbers do not change.
#pragma once

#include <bulkhead/outcome.hpp>

#include <string_view>

namespace bulkhead::cli {

inline constexpr int exit_ok = 0;
inline constexpr int exit_usage = 2;  // the command line is wrong
inline constexpr int exit_local = 3;  // a file can't be read or written, or a part of bulkhead is missing
inline constexpr int exit_interrupted =
    130;  // Ctrl-C, when there was no call to cancel or it had been cancelled already

constexpr int exit_code(outcome value) {
  switch (value) {
    case outcome::ok: return exit_ok;
    case outcome::plugin_error: return 1;
    case outcome::timeout: return 10;
    case outcome::cancelled: return 11;
    case outcome::not_sent: return 12;
    case outcome::worker_lost: return 13;
    case outcome::protocol: return 14;
    case outcome::overloaded: return 15;
    case outcome::unavailable: return 16;
    case outcome::rejected: return 17;
  }
  return exit_local;
}

inline constexpr std::string_view exit_codes_help =
    "Exit status:\n"
    "   0  ok\n"
    "   1  plugin_error   the plugin answered with an error\n"
    "   2                 the command line is wrong\n"
    "   3                 a file can't be read or written, or a part of bulkhead is missing\n"
    "  10  timeout        the deadline passed\n"
    "  11  cancelled      by Ctrl-C\n"
    "  12  not_sent       it never reached the plugin's code\n"
    "  13  worker_lost    the worker died while the call may have been running\n"
    "  14  protocol       the worker broke the protocol and was killed\n"
    "  15  overloaded     too many calls or bytes are queued\n"
    "  16  unavailable    the plugin could not be started\n"
    "  17  rejected       no such method, too large, or the file is no plugin\n"
    " 130                 Ctrl-C while nothing was being called, or for the second time\n";

}  // namespace bulkhead::cli
