// What is known of a worker that died, and how that is written to files and read back.
#pragma once

#include <bulkhead/export.hpp>
#include <bulkhead/ipc/system.hpp>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <sys/types.h>

namespace BULKHEAD_PUBLIC bulkhead {

// The steps of a worker's birth, then its life. A report names the step in which a worker died.
enum class phase {
  spawn = 0,  // cloned, and no more
  limits,     // descriptors closed, limits set, privileges dropped
  hello,      // has its channel and greets the host
  sandbox,    // files, processes and system calls are put out of reach
  load,       // the plugin's library is loaded: its constructors run
  init,       // the plugin's own initialisation
  ready,      // waits for calls
  call,       // runs at least one
  shutdown,   // was told to end
};
// Its name, as in reports.
std::string_view to_string(phase value);

// Why a worker is no more.
enum class exit_reason {
  exited,         // by exit() or _exit(), with a code
  signalled,      // by a signal, be it the kernel's or its own
  out_of_memory,  // it ran into its memory limit
  violation,      // it did what its policy denies, and denial kills (policy::kill_on_denial)
  protocol,       // it broke the protocol and was killed
  hung,           // it did not answer a cancelled call within the grace and was killed
  closed,         // it closed its channel and was killed
  shut_down,      // the host ended it
  start_timeout,  // it was not ready in time and was killed
  unknown,        // its status was taken by somebody else's wait()
};
// Its name, as in reports.
std::string_view to_string(exit_reason value);

// What a piece of code belongs to.
enum class code_origin {
  unknown,  // no file: made at run time, or no code at all
  plugin,   // the plugin's own file
  worker,   // the worker program
  library,  // what either was linked with
};
// Its name, as in reports.
std::string_view to_string(code_origin value);

// One frame of a crashed worker's stack. Where it lies is the worker's word; the names come from the files' symbols and
// debug information, see host::symbolized().
struct stack_frame {
  std::uint64_t address = 0;  // at run time; the first frame's is the instruction that crashed, the others return there
  code_origin origin = code_origin::unknown;  // what it belongs to
  std::string module;                         // the file's name: "chaos.so", "/lib/x86_64-linux-gnu/libc.so.6"
  std::string build_id;                       // of the file, in hexadecimal digits; may be empty
  std::uint64_t offset = 0;                   // the address as the file counts, as addr2line takes it
  bool guessed = false;                       // a word on a damaged stack that looks like a return address
  bool inlined = false;                       // into the frame after it, whose address it shares
  std::string function;                       // demangled; empty: not known, or not asked for
  std::string source;                         // the source file, as the compiler was told
  unsigned line = 0;                          // in the source file; 0: not known
};

// What became of a worker process.
struct crash_report {
  std::string plugin;                            // as loaded
  std::string file;                              // the plugin's, or the program's; absolute
  std::string sha256;                            // of the plugin's file, as it was loaded
  std::chrono::system_clock::time_point time{};  // when the host learned of it
  pid_t pid = -1;                                // as the host saw it
  exit_reason reason = exit_reason::unknown;     // why it ended
  int exit_code = 0;                             // exited
  int signal = 0;  // signalled: as the worker's crash handler saw it, else as the kernel reported it
  // Why the signal came (siginfo's si_code), as the crash handler saw it: see signal_code_name().
  std::optional<int> signal_code;
  std::uint64_t fault_address = 0;  // SIGSEGV, SIGBUS, SIGILL, SIGFPE of the processor's; 0 also where it did not say
  std::string system_call;          // violation: the call that it died for, "socket"; "x32:12" by a foreign table
  int system_call_number = -1;      // in its table
  // Decoded, "AF_INET, SOCK_STREAM, 0"; may be empty. The fork server's word, or the worker's own.
  std::string system_call_arguments;
  bulkhead::phase phase = phase::spawn;  // how far it had come
  std::string method;                    // in progress when it died; may be empty
  // The arguments of the call that it died in, one MessagePack array: when load_options::keep_requests allows, else empty.
  std::vector<std::uint8_t> request;
  std::string message;   // e.g. the text of an uncaught exception, or what was wrong with the protocol
  std::string log_tail;  // the last lines it wrote
  std::string policy;    // what its sandbox granted but for its environment, as policy::from_text() reads it
  std::chrono::microseconds cpu_time{0};  // of the worker alone
  std::uint64_t peak_memory = 0;          // bytes resident at most
  // Where it was, when its crash handler had a chance to say so: the innermost frame first. Of a stack of more than 64
  // frames, the first 48 and the last 16 are here and `frames_omitted` between them are not.
  std::vector<stack_frame> stack;
  std::uint64_t frames_omitted = 0;       // see stack
  std::uint64_t instruction_pointer = 0;  // of the thread that crashed
  std::uint64_t stack_pointer = 0;        // the same
  // The plugin's file as it was loaded, for host::symbolized(); null in a report that was read from a file.
  std::shared_ptr<const unique_fd> image;
  // What became of the worker, for people: "was killed by SIGSEGV (SEGV_MAPERR, address 0x0) in method 'decode'".
  std::string summary() const;
};
// "SIGSEGV" for 11; "signal 99" for what has no name.
std::string signal_name(int signal);
// "SEGV_MAPERR" for SIGSEGV's 1, "SI_TKILL" for any signal's -6; "code 99" for what has no name.
std::string signal_code_name(int signal, int code);

// One JSON object, all of the report but `image` and the bytes of `request`.
std::string to_json(const crash_report& report);

// Writes the report to a file of its own in `directory`, which is made if need be: PLUGIN-TIME-PID.json, for the owner's
// eyes only, with the request's bytes beside it as PLUGIN-TIME-PID.msgpack. Removes the oldest reports beyond `limit`, and
// touches no other files. Gives back the path. Throws std::system_error. Any thread; blocks for the disk.
std::filesystem::path write_crash_report(const std::filesystem::path& directory, const crash_report& report,
                                         std::size_t limit = 100);
// Reads what that wrote. Throws std::runtime_error naming the file and what is wrong with it.
crash_report read_crash_report(const std::filesystem::path& file);
// The reports in a directory, the newest first. Throws std::system_error.
std::vector<std::filesystem::path> crash_reports_in(const std::filesystem::path& directory);

}  // namespace bulkhead
