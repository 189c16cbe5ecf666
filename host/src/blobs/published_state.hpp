// What the application has published: a sealed memfd for each value, which all workers that may read it map. Whoever has a
// version keeps it; a new one is told to all.
#pragma once

#include <bulkhead/ipc/blob.hpp>

#include <mutex>
#include <string>

namespace bulkhead {

class published_state {
 public:
  // One who is told of versions. Called with the lock held: must not block.
  class reader {
   public:
    virtual ~reader() = default;
    virtual void on_published(const std::string& name, const ipc::snapshot& value) noexcept = 0;
    virtual void on_unpublished(const std::string& name, std::uint64_t version) noexcept = 0;
  };
  using values = std::map<std::string, ipc::snapshot>;

  // Throw std::system_error when there is no memory. Version numbers only grow, over all names.
  std::uint64_t publish(const std::string& name, std::size_t size,
                        const std::function<void(std::span<std::uint8_t>)>& fill);
  bool unpublish(const std::string& name);
  std::optional<ipc::snapshot> find(const std::string& name) const;
  // What a plugin may read of it, in bytes of address space.
  std::size_t bytes(const std::optional<std::vector<std::string>>& granted) const;
  // `tell` gets what there is; the reader hears of all that comes after it.
  void add(std::weak_ptr<reader> reader, const std::function<void(const values&)>& tell);
  // The same for one who hears of what comes already. Takes no memory.
  template <class F>
  void look(F&& tell) const {
    std::lock_guard held(mutex_);
    tell(values_);
  }

 private:
  void tell(const std::function<void(reader&)>& what);  // (locked)

  mutable std::mutex mutex_;
  values values_;
  std::uint64_t last_version_ = 0;
  std::vector<std::weak_ptr<reader>> readers_;
};

// Whether a plugin with these options may read it.
bool may_read(const std::optional<std::vector<std::string>>& granted, const std::string& name);

}  // namespace bulkhead
