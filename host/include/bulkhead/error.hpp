// How calls fail: error codes in bulkhead's category for asynchronous operations, call_error for synchronous ones.
#pragma once

#include <bulkhead/crash_report.hpp>
#include <bulkhead/outcome.hpp>

#include <boost/system/error_code.hpp>
#include <boost/system/system_error.hpp>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace BULKHEAD_PUBLIC bulkhead {

// Category "bulkhead"; the values are those of `outcome`.
const boost::system::error_category& call_category() noexcept;
// For boost::system: an outcome is an error code.
inline boost::system::error_code make_error_code(outcome value) noexcept {
  return {static_cast<int>(value), call_category()};
}

// Thrown by synchronous calls. what() is the whole story in one line.
class call_error : public boost::system::system_error {
 public:
  // Made by the host.
  call_error(bulkhead::outcome code, const std::string& message, std::vector<std::uint8_t> data = {},
             std::shared_ptr<const crash_report> report = nullptr);

  // How the call ended; never ok.
  bulkhead::outcome outcome() const { return static_cast<bulkhead::outcome>(code().value()); }
  // Without the outcome's name in front.
  const std::string& message() const { return message_; }
  // Details from the plugin: one MessagePack value, or empty.
  const std::vector<std::uint8_t>& data() const { return data_; }
  // When a worker died of it; null otherwise.
  const std::shared_ptr<const crash_report>& report() const { return report_; }

 private:
  std::string message_;
  std::vector<std::uint8_t> data_;
  std::shared_ptr<const crash_report> report_;
};

}  // namespace bulkhead

template <>
struct boost::system::is_error_code_enum<bulkhead::outcome> : std::true_type {};
