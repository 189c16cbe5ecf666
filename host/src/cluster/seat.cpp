// See seat.hpp.
#include "cluster/seat.hpp"

#include "sandbox/refuse_descriptors.hpp"
#include <bulkhead/ipc/attachment.hpp>

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>

namespace bulkhead {
namespace {

constexpr std::uint64_t word(std::uint32_t generation, std::uint32_t state) {
  return std::uint64_t{generation} << 32 | state;
}

}  // namespace

seat::seat(std::uint64_t number, std::shared_ptr<worker_process> worker, std::uint32_t count)
    : id(number), process(std::move(worker)), pid(process->info().pid), slots(count) {
  int ends[2];
  checked(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), "socketpair");
  control.reset(ends[0]);
  control_there_.reset(ends[1]);
  // Nothing is ever read from it, so no descriptor comes from the worker either.
  sandbox::refuse_descriptors(control.get());
  ::shutdown(control.get(), SHUT_RD);
  doorbell.reset(checked(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd"));
  memory_.reset(checked(::memfd_create("bulkhead-serve", MFD_CLOEXEC | MFD_ALLOW_SEALING), "memfd_create"));
  size_ = sizeof(bulkhead_serve_table_t) + count * sizeof(std::uint64_t);
  checked(::ftruncate(memory_.get(), static_cast<off_t>(size_)), "ftruncate");
  // Its size stays, so looking at it never faults; what it holds is the worker's word anyway.
  checked(::fcntl(memory_.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL), "fcntl(F_ADD_SEALS)");
  void* const mapped = ::mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_SHARED, memory_.get(), 0);
  if (mapped == MAP_FAILED) throw_errno("mmap");
  table = static_cast<bulkhead_serve_table_t*>(mapped);
  table->version = BULKHEAD_SERVE_VERSION;
  table->slots = count;
  for (std::uint32_t i = count; i > 0; --i) free_.push_back(i - 1);
}

seat::~seat() {
  if (table) ::munmap(table, size_);
}

packed_arguments seat::serve_arguments(std::map<std::string, std::string> settings) {
  settings["pid"] = std::to_string(pid);
  auto packed =
      pack_arguments(pass_fd{control_there_.get()}, pass_fd{memory_.get()}, pass_fd{doorbell.get()}, settings);
  control_there_.reset();
  memory_.reset();
  return packed;
}

bool seat::send(bulkhead_serve_message_t message, int descriptor) {
  iovec part{&message, sizeof message};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  attachment<1> attached;
  if (descriptor >= 0) attached.add_to(header, {&descriptor, 1});
  return ::sendmsg(control.get(), &header, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0;
}

std::optional<std::uint32_t> seat::take_slot(std::uint64_t connection) {
  if (free_.empty()) sweep();
  if (free_.empty()) return std::nullopt;
  const std::uint32_t index = free_.back();
  free_.pop_back();
  slots[index].connection = connection;
  ++slots[index].generation;
  std::atomic_ref(words()[index])
      .store(word(slots[index].generation, BULKHEAD_SERVE_PASSED), std::memory_order_release);
  ++open;
  return index;
}

void seat::release(std::uint32_t index, bool worker_is_done) {
  slots[index].connection = 0;
  --open;
  (worker_is_done ? free_ : zombies_).push_back(index);
}

void seat::sweep() {
  std::erase_if(zombies_, [&](std::uint32_t index) {
    const std::uint32_t state = state_of(index);
    if (state != BULKHEAD_SERVE_DONE && state != BULKHEAD_SERVE_RETURNED) return false;
    free_.push_back(index);
    return true;
  });
}

std::uint32_t seat::state_of(std::uint32_t index) const {
  const std::uint64_t found = load(words()[index]);
  const auto state = static_cast<std::uint32_t>(found);
  if (found >> 32 != slots[index].generation || state < BULKHEAD_SERVE_PASSED || state > BULKHEAD_SERVE_DONE)
    return BULKHEAD_SERVE_BUSY;
  return state;
}

std::pair<std::size_t, std::size_t> seat::own_connections() const {
  std::size_t all = 0, busy = 0;
  for (std::uint32_t i = 0; i < slots.size(); ++i) {
    const auto state = static_cast<std::uint32_t>(load(words()[i]));
    if (state == BULKHEAD_SERVE_IDLE || state == BULKHEAD_SERVE_BUSY) ++all;
    if (state == BULKHEAD_SERVE_BUSY) ++busy;
  }
  return {all, busy};
}

}  // namespace bulkhead
