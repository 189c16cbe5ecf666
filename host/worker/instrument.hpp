// A host that stands between a plugin and its worker: it watches how the plugin keeps the rules of bulkhead/plugin.h, and
// brings about what a test wants to see the plugin cope with. For `bulkhead check` and bulkhead/testing.hpp; workers have
// none unless their environment says so.
//
//   BULKHEAD_INSTRUMENT=cancel_at=3,slow_us=500,fail=create_blob@2,report_every=100
//
// It speaks through the log: "misuse: ..." (error, each once) for a rule that was broken, "instrument: calls=100 heap=...
// descriptors=... blobs=... answers=..." (debug) after so many answered calls, "instrument: asked for ID" for extensions.
#pragma once

#include <bulkhead/plugin.h>

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <string_view>

namespace bulkhead {

class instrument {
 public:
  struct settings {
    unsigned cancel_at = 0;             // the use of the host at which each call finds itself cancelled; 0: never
    std::chrono::microseconds slow{0};  // how much longer each use of the host takes
    // Of create_blob, emit, call_host and take_handle those that fail, from that use on, from 1.
    std::map<std::string, unsigned, std::less<>> fail{};
    unsigned report_every = 0;  // answered calls; 0: no reports
  };
  // Throws std::invalid_argument.
  static settings read(std::string_view text);

  // `release` gives back a call that was kept for a while after its end, so that a use of it can be told from others.
  instrument(const bulkhead_host_t& real, const settings& with, void (*release)(bulkhead_call_t*));
  ~instrument();

  // What the plugin gets in the place of the real one.
  const bulkhead_host_t* host() const { return &host_.table; }
  // A call that the plugin is about to get.
  void begins(bulkhead_call_t* call, const char* method);
  // After destroy(): waits for a moment, since threads that live on show themselves.
  void destroyed();

 private:
  struct functions;
  struct table_of {
    bulkhead_host_t table;  // first: its address is that of the whole
    instrument* owner;
  } host_;
  struct use {
    std::string method;
    unsigned steps = 0;
  };

  // Before anything that a plugin does with a call: whether it may go on.
  bool uses(bulkhead_call_t* call, const char* what);
  bool uses_host(const char* what);
  // Before a call of the host's: the call that it may be made for, if any.
  bulkhead_call_t* serves(bulkhead_call_t* on_behalf_of);
  void ends(bulkhead_call_t* call);
  // Whether the test wants this use to fail.
  bool fails(const char* function);
  void misuse(const std::string& text);
  void say(bulkhead_log_level_t level, const std::string& text);
  void report(unsigned calls);

  const bulkhead_host_t& real_;
  const settings settings_;
  void (*const release_)(bulkhead_call_t*);
  const void* streams_ = nullptr;  // the worker's own
  const void* handles_ = nullptr;
  const void* passing_ = nullptr;

  std::mutex mutex_;
  std::map<bulkhead_call_t*, use> open_;
  std::map<bulkhead_call_t*, std::string> ended_;  // the last of them, by method
  std::deque<bulkhead_call_t*> ended_order_;
  std::set<std::string> said_;
  std::map<std::string, unsigned> used_;  // those that are to fail
  unsigned answered_ = 0;
  long blobs_ = 0, answers_ = 0;
  bool destroyed_ = false;
};

}  // namespace bulkhead
