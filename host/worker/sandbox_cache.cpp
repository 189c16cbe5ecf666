// See sandbox_cache.hpp.
#include "sandbox_cache.hpp"

#include "sandbox/report_text.hpp"

#include <sys/stat.h>

namespace bulkhead {
namespace {

constexpr std::size_t most_kept = 64;

}  // namespace

sandbox::prepared& sandbox_cache::prepare(const std::string& rules, int library) {
  std::string key = rules;
  if (library >= 0) {
    struct stat file {};
    checked(::fstat(library, &file), "fstat");
    for (const auto part : {static_cast<std::uint64_t>(file.st_dev), static_cast<std::uint64_t>(file.st_ino),
                            static_cast<std::uint64_t>(file.st_size), static_cast<std::uint64_t>(file.st_ctim.tv_sec),
                            static_cast<std::uint64_t>(file.st_ctim.tv_nsec)})
      key += " " + std::to_string(part);
  }
  for (auto at = kept_.begin(); at != kept_.end(); ++at)
    if (at->first == key) {
      if (!sandbox::missing_grants(at->second.report()).empty()) {  // it may be there by now
        kept_.erase(at);
        break;
      }
      kept_.splice(kept_.begin(), kept_, at);
      return at->second;
    }
  kept_.emplace_front(std::piecewise_construct, std::forward_as_tuple(key),
                      std::forward_as_tuple(spaces_, policy::from_text(rules), library, true));
  if (kept_.size() > most_kept) kept_.pop_back();
  return kept_.front().second;
}

sandbox::prepared* sandbox_cache::for_child(const std::string& rules, int library, std::string& text) {
  try {
    sandbox::prepared& made = prepare(rules, library);
    text = made.sufficient() ? sandbox::to_lines(made.report()) : made.shortcoming();
    return made.sufficient() ? &made : nullptr;
  } catch (const std::exception& e) {
    text = std::string("its sandbox could not be prepared: ") + e.what();
    return nullptr;
  }
}

}  // namespace bulkhead
