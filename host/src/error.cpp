// See error.hpp.
#include <bulkhead/error.hpp>

namespace bulkhead {
namespace {

class category final : public boost::system::error_category {
 public:
  const char* name() const noexcept override { return "bulkhead"; }
  std::string message(int value) const override { return std::string(to_string(static_cast<outcome>(value))); }
};

}  // namespace

const boost::system::error_category& call_category() noexcept {
  static const category instance;
  return instance;
}

call_error::call_error(bulkhead::outcome code, const std::string& message, std::vector<std::uint8_t> data,
                       std::shared_ptr<const crash_report> report)
    : system_error(make_error_code(code), message),
      message_(message),
      data_(std::move(data)),
      report_(std::move(report)) {}

}  // namespace bulkhead
