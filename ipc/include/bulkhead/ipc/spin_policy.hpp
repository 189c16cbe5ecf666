// Whether a side that waits for the other spins or sleeps: decisions only, no clock and no memory of its own to wait on.
//
// Waking a process on another CPU takes tens of microseconds, seeing its answer in shared memory a tenth of one. So one
// spins while the other is likely to answer soon, which is judged by how long the last waits were, slept through or not;
// and for longer than a wake-up takes, or two sides that sleep would wake each other for ever and never find the fast
// state. What spinning costs beyond the price of a sleep comes out of a budget that fills up with time.
//
// Where others want the CPUs, the peer may have none while this side spins, and who has spun finds the scheduler against
// it afterwards. So when one spin after the other has ended in a sleep, nobody spins for a while, twice as long each time.
#pragma once

#include <algorithm>
#include <chrono>

namespace bulkhead::ipc {

class spin_policy {
 public:
  using nanoseconds = std::chrono::nanoseconds;

  // `budget`: the share of the time that may be spent spinning.
  spin_policy(nanoseconds spin, double budget) : spin_(spin), budget_(std::clamp(budget, 0.0, 1.0)) {}

  // How long to spin in a wait that begins at `now`, a time that never goes back. `other_cpu`: whether the peer can run
  // while this side spins.
  nanoseconds window(nanoseconds now, bool other_cpu) {
    balance_ =
        std::min(balance_ + budget_ * static_cast<double>((now - then_).count()), static_cast<double>(burst.count()));
    then_ = now;
    if (!other_cpu || trust_ == 0 || now < not_before_) return nanoseconds(0);
    return std::min(longest(), nanoseconds(static_cast<long>(std::max(balance_, 0.0))));
  }

  // A wait is over: it took so long in all, so much of it spinning; `slept`: it was not over by then.
  void ended(nanoseconds waited, nanoseconds spun, bool slept) {
    balance_ -= static_cast<double>(std::max(spun - (slept ? nanoseconds(0) : price_of_sleep), nanoseconds(0)).count());
    // What was slept through includes the time to wake up.
    if (waited <= longest() + (slept ? wake_ : nanoseconds(0))) {
      trust_ = std::min(trust_ + 2, most_trust);
      if (!slept) failed_ = 0;
      else if (spun.count() > 0 && ++failed_ >= most_failed)
        not_before_ = then_ + waited + pause * (1 << std::min(failed_ - most_failed, most_doublings));
    } else if (trust_ > 0) {
      --trust_;
    }
  }

  // The peer was woken, and its answer came so much later.
  void woke_peer(nanoseconds later) {
    if (later.count() <= 0) return;  // another thread woke it again since the answer was seen
    // The shortest is the truest, since answers take time, too; it is forgotten little by little.
    wake_ = std::min(later, wake_.count() == 0 ? 4 * spin_ : wake_ + wake_ / 16 + nanoseconds(1));
  }

 private:
  static constexpr nanoseconds price_of_sleep{10'000};  // on both sides: system calls, switches
  static constexpr nanoseconds burst{10'000'000};       // of budget that can be saved up
  static constexpr int most_trust = 8;
  static constexpr int most_failed = 4, most_doublings = 5;  // 32 ms
  static constexpr nanoseconds pause{1'000'000};

  nanoseconds longest() const { return std::min(std::max(spin_, 2 * wake_), 4 * spin_); }

  nanoseconds spin_;
  double budget_;
  nanoseconds wake_{0}, then_{0};
  double balance_ = static_cast<double>(burst.count());
  nanoseconds not_before_{0};
  int trust_ = 2, failed_ = 0;
};

}  // namespace bulkhead::ipc
