// See call.hpp.
#include <bulkhead/call.hpp>

#include <fcntl.h>

namespace bulkhead {

reply::reply(ipc::completion&& data, std::shared_ptr<const crash_report> report)
    : outcome_(data.code),
      message_(std::move(data.failure.message)),
      data_(std::move(data.failure.data)),
      frame_(std::move(data.frame)),
      offset_(data.result_offset),
      size_(data.result_size),
      report_(std::move(report)) {}

namespace detail {

unique_fd duplicate(int fd) {
  return unique_fd(checked(::fcntl(fd, F_DUPFD_CLOEXEC, 3), "pass_fd: the descriptor can't be duplicated"));
}

}  // namespace detail
}  // namespace bulkhead
