// See published_state.hpp.
#include "blobs/published_state.hpp"

#include <algorithm>

namespace bulkhead {

bool may_read(const std::optional<std::vector<std::string>>& granted, const std::string& name) {
  return !granted || std::find(granted->begin(), granted->end(), name) != granted->end();
}

std::uint64_t published_state::publish(const std::string& name, std::size_t size,
                                       const std::function<void(std::span<std::uint8_t>)>& fill) {
  auto memory = std::make_shared<ipc::shared_memory>(
      ipc::shared_memory::make("bulkhead-published", std::max<std::size_t>(size, 1), true));
  if (!memory->fill()) throw std::system_error(ENOMEM, std::generic_category(), "publish '" + name + "'");
  fill({memory->data(), size});
  memory->freeze();
  ipc::snapshot old;  // unmapped without the lock
  std::lock_guard held(mutex_);
  ipc::snapshot& value = values_[name];
  old = std::exchange(value, {std::move(memory), size, ++last_version_});
  tell([&](reader& each) { each.on_published(name, value); });
  return value.version;
}

bool published_state::unpublish(const std::string& name) {
  ipc::snapshot old;
  std::lock_guard held(mutex_);
  const auto found = values_.find(name);
  if (found == values_.end()) return false;
  old = std::move(found->second);
  values_.erase(found);
  tell([&](reader& each) { each.on_unpublished(name, old.version); });
  return true;
}

std::optional<ipc::snapshot> published_state::find(const std::string& name) const {
  std::lock_guard held(mutex_);
  const auto found = values_.find(name);
  return found == values_.end() ? std::nullopt : std::optional(found->second);
}

std::size_t published_state::bytes(const std::optional<std::vector<std::string>>& granted) const {
  constexpr std::size_t page = 4096;
  std::size_t sum = 0;
  std::lock_guard held(mutex_);
  for (const auto& [name, value] : values_)
    if (may_read(granted, name)) sum += (value.size / page + 1) * page;
  return sum;
}

void published_state::add(std::weak_ptr<reader> reader, const std::function<void(const values&)>& tell) {
  std::lock_guard held(mutex_);
  std::erase_if(readers_, [](const auto& each) { return each.expired(); });
  readers_.push_back(std::move(reader));
  tell(values_);
}

void published_state::tell(const std::function<void(reader&)>& what) {
  for (const auto& weak : readers_)
    if (const auto alive = weak.lock()) what(*alive);
}

}  // namespace bulkhead
