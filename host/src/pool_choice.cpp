// Which worker takes a call: the choice, the wait for one, and what is done when one has become free. See plugin_pool.hpp.
#include "pool_queue.hpp"

#include <algorithm>

namespace bulkhead {
namespace {

constexpr std::size_t queues_worth = 4;  // of bytes in the queue of a worker's channel, in the pool's

// The finalizer of splitmix64 (Steele, Lea, Flood 2014): each bit of the value changes about half of the result's.
constexpr std::uint64_t mixed(std::uint64_t value) {
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
  value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
  return value ^ (value >> 31);
}

}  // namespace

// Why a call is not taken at all.
std::optional<ipc::completion> plugin_pool::refusal(const call_request& request) const {
  if (const auto& reason = current_->failing()) return ipc::completion::failed(outcome::unavailable, *reason);
  if (suspects_.empty()) return std::nullopt;
  const auto found = suspects_.find(fingerprint(request));
  if (found == suspects_.end() || found->second.killed < options_.poison_limit ||
      ipc::clock::now() - found->second.since > poison_memory)
    return std::nullopt;
  return ipc::completion::failed(outcome::rejected, "this call of '" + std::string(request.method) + "' has killed " +
                                                        std::to_string(found->second.killed) + " workers of plugin " +
                                                        name_ + " and is refused (load_options::poison_limit)");
}

// Why a call can't wait for a worker.
std::optional<ipc::completion> plugin_pool::overload(const call_request& request) const {
  const bool bytes = !queue_.empty() &&
                     (queued_bytes_ + queued_share::bytes_of(request)) / queues_worth >= options_.limits.queued_bytes;
  if (queue_.size() < options_.queue_limit && !bytes) return std::nullopt;
  const std::string already =
      std::to_string(queue_.size()) + " calls" + (bytes ? " of " + std::to_string(queued_bytes_ >> 20) + " MiB" : "");
  return ipc::completion::failed(outcome::overloaded,
                                 "plugin " + name_ + ": " + already + " wait for a worker already; try again later");
}

// The worker that gets a call, if one is free for it.
worker_set::lease plugin_pool::choose(const call_request& request) {
  const auto& serving = current_->serving();
  const unsigned window = current_->description().concurrency + sent_ahead_;
  const auto free = [window](const lease& each) { return each->in_progress < window && each->process->alive(); };
  lease best;
  switch (options_.dispatch.kind) {
    case dispatch::kind::least_loaded: {
      const lease* least = nullptr;
      unsigned calls = 0;
      for (const lease& each : serving) {
        if (!free(each)) continue;
        if (const unsigned its = each->process->outstanding(); !least || its < calls) least = &each, calls = its;
        if (calls == 0) break;  // there is none with less, be there a thousand more
      }
      return least ? *least : nullptr;
    }
    case dispatch::kind::round_robin:
      for (std::size_t i = 0; i < serving.size(); ++i)
        if (const lease& each = serving[(next_place_ + i) % serving.size()]; free(each)) {
          next_place_ = (next_place_ + i + 1) % serving.size();
          return each;
        }
      return nullptr;
    case dispatch::kind::sticky: {  // the highest of hashes of key and place: few keys move when a worker comes or goes
      std::uint64_t highest = 0;
      for (const lease& each : serving) {
        if (!each->process->alive()) continue;
        const std::uint64_t weight = mixed(request.key.value() ^ mixed(each->place + 1));
        if (!best || weight > highest) best = each, highest = weight;
      }
      return best && free(best) ? best : nullptr;
    }
    case dispatch::kind::custom: {
      std::vector<candidate> candidates;
      std::vector<lease> those;
      for (const lease& each : serving)
        if (free(each)) {
          candidates.push_back({each->place, each->process->info().pid, each->in_progress});
          those.push_back(each);
        }
      if (those.empty()) return nullptr;
      std::size_t index = those.size();
      try {
        index = options_.dispatch.choose(candidates, request.method, request.key);
      } catch (const std::exception& e) {
        core_->log(
            {log_level::error, name_, -1, std::string("load_options::dispatch: choose() threw: ") + e.what(), 0});
      } catch (...) {
        core_->log({log_level::error, name_, -1, "load_options::dispatch: choose() threw", 0});
      }
      return index < those.size() ? those[index] : nullptr;
    }
  }
  return nullptr;
}

// For a synchronous caller: a worker, or the failure that is the outcome. `again`: it has had its turn before.
worker_set::lease plugin_pool::acquire(const call_request& request, bool again, ipc::completion& failure) {
  {
    std::lock_guard held(*mutex_);
    if (auto refused = refusal(request)) {
      failure = std::move(*refused);
      return nullptr;
    }
    if (queue_.empty() || again) {
      if (lease chosen = choose(request)) {
        ++chosen->in_progress;
        return chosen;
      }
    }
  }
  return wait_for_worker(request, again, failure);
}

worker_set::lease plugin_pool::wait_for_worker(const call_request& request, bool again, ipc::completion& failure) {
  sync_waiter me;
  std::stop_callback on_stop(request.stop, [&] {
    std::lock_guard held(*mutex_);
    me.woken.notify_one();
  });
  {
    std::unique_lock held(*mutex_);
    if (auto refused = again ? std::nullopt : overload(request)) {
      failure = std::move(*refused);
      return nullptr;
    }
    const auto mine = queue_.insert(again ? queue_.begin() : queue_.end(),
                                    {&request, ++last_ticket_, &me, {}, {}, {queued_bytes_, request}});
    held.unlock();
    on_change();  // a worker may have become free
    held.lock();
    while (!me.done()) {
      if (request.stop.stop_requested())
        me.failed = ipc::completion::failed(outcome::cancelled, "cancelled by the caller");
      else if (ipc::clock::now() >= request.deadline)
        me.failed = ipc::completion::failed(outcome::timeout, "no worker was free before the deadline");
      if (me.failed) {
        queue_.erase(mine);
      } else if (core_->needs_help()) {
        held.unlock();
        core_->reactor->help(std::min(request.deadline, ipc::clock::now() + reactor::help_turn));
        held.lock();
      } else if (request.deadline == ipc::never) {
        me.woken.wait(held);
      } else {
        me.woken.wait_until(held, request.deadline);
      }
    }
  }
  if (me.failed) failure = std::move(*me.failed);
  return std::move(me.given);
}

void plugin_pool::release(const lease& worker) {
  {
    std::lock_guard held(*mutex_);
    worker_set::give_back(worker);
    if (queue_.empty()) return;
  }
  on_change();
}

// Gives calls that wait to workers that are free; fails those that are refused by now: all of them while the plugin is
// given up, and each that has killed too many workers meanwhile.
void plugin_pool::on_change() {
  std::vector<waiting> leaving;
  std::vector<lease> given;  // one for each; none: it fails
  std::vector<ipc::completion> failures;
  std::vector<std::shared_ptr<worker_set>> gone;  // they and the files of their versions go without the lock
  {
    std::lock_guard held(*mutex_);
    for (const auto& each : retiring_)
      if (each->gone()) gone.push_back(each);
    std::erase_if(retiring_, [&](const auto& each) { return std::count(gone.begin(), gone.end(), each) > 0; });
    const bool any_will_do =
        options_.dispatch.kind == dispatch::kind::least_loaded || options_.dispatch.kind == dispatch::kind::round_robin;
    for (auto each = queue_.begin(); each != queue_.end();) {
      auto refused = refusal(*each->request);
      lease chosen = refused ? nullptr : choose(*each->request);
      if (!chosen && !refused) {
        if (any_will_do) break;
        ++each;
        continue;
      }
      if (chosen) ++chosen->in_progress;
      if (each->sync) {
        each->sync->given = std::move(chosen);
        each->sync->failed = std::move(refused);
        each->sync->woken.notify_one();
      } else {
        leaving.push_back(std::move(*each));
        if (!chosen) failures.push_back(std::move(*refused));
        given.push_back(std::move(chosen));
      }
      each = queue_.erase(each);
    }
  }
  auto failure = failures.begin();
  for (std::size_t i = 0; i < leaving.size(); ++i) {
    leaving[i].stop.reset();
    if (given[i]) launch(given[i], std::move(leaving[i].async));
    else leaving[i].async->finish(reply(std::move(*failure++)));
  }
}

}  // namespace bulkhead
