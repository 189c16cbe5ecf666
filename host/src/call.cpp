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
      handles_(std::make_shared<const std::vector<unique_fd>>(std::move(data.handles))),
      report_(std::move(report)) {}

unique_fd reply::handle(std::size_t index) const {
  throw_if_failed();
  if (!handles_ || index >= handles_->size())
    throw call_error(bulkhead::outcome::plugin_error, "the result has " +
                                                          std::to_string(handles_ ? handles_->size() : 0) +
                                                          " descriptors, not one numbered " + std::to_string(index));
  return detail::duplicate((*handles_)[index].get());
}

namespace detail {

unique_fd duplicate(int fd) {
  return unique_fd(checked(::fcntl(fd, F_DUPFD_CLOEXEC, 3), "pass_fd: the descriptor can't be duplicated"));
}

}  // namespace detail
}  // namespace bulkhead
