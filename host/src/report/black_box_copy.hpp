// What the host makes of a worker's black box.
#pragma once

#include "report/black_box.hpp"
#include "report/recorded_stack.hpp"
#include <bulkhead/ipc/message.hpp>

#include <csignal>
#include <cstring>
#include <string>

#include <unistd.h>

namespace bulkhead {

// The black box as plain values, copied by pread(): the worker may scribble over it meanwhile.
struct black_box_copy {
  phase reached = phase::spawn;
  bool in_call = false;
  std::uint64_t begun = 0;
  std::uint32_t call = 0;
  std::string method, message;
  bool recorded = false, out_of_memory = false;
  int signal = 0, code = 0;
  std::uint64_t fault_address = 0;
  int system_call = -1;
  std::uint32_t system_call_arch = 0;
  unsigned violations = 0;
  recorded_stack stack;

  explicit black_box_copy(int fd) {
    alignas(black_box) char page[sizeof(black_box)]{};
    if (::pread(fd, page, sizeof page, 0) != static_cast<ssize_t>(sizeof page)) return;
    const auto* box = reinterpret_cast<const black_box*>(page);
    const auto raw = box->phase.load();
    reached = raw <= static_cast<std::uint32_t>(phase::shutdown) ? static_cast<phase>(raw) : phase::ready;
    in_call = box->in_call > 0;
    begun = box->begun;
    message = ipc::sanitised({box->message, ::strnlen(box->message, sizeof box->message)});
    recorded = box->recorded == 2 && box->signal > 0 && box->signal < NSIG;
    signal = recorded ? box->signal : 0;
    const bool knows_call = recorded && box->crashed_method[0] != 0;
    call = knows_call ? box->crashed_call : box->call.load();
    const auto& name = knows_call ? box->crashed_method : box->method;
    method = ipc::sanitised({name, ::strnlen(name, sizeof name)});
    out_of_memory = recorded && box->out_of_memory;
    code = box->code;
    fault_address = box->fault_address;
    system_call = box->system_call;
    system_call_arch = box->system_call_arch;
    violations = box->violations + box->supervised_violations;
    if (recorded) stack = read_stack(*box);
  }
};

}  // namespace bulkhead
