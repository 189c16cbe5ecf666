// The host's account of the arenas of one worker's results, against a worker that says and refers to what it likes. The
// input is a script of the worker's messages and of what the application does with its results; a model says which are in
// order. What is not ends the worker, and what the application holds by then can still be read.
#include "blobs/worker_blobs.hpp"
#include "fuzz.hpp"

#include <boost/asio/io_context.hpp>

using namespace bulkhead;

namespace {

// For one arena, which is quick, or for several.
constexpr std::size_t little = std::size_t{64} << 10, more = std::size_t{5} << 18;

// An arena as the worker has it.
struct arena {
  std::uint32_t id = 0;
  std::size_t size = 0;
  unique_fd file;
  ipc::shared_memory mapped;
  bool filled = false, usable = false, dropped = false;
  unsigned held = 0;  // by the application
};

ipc::message about(const char* method, ipc::byte_span params) {
  ipc::message made;
  made.method = method;
  made.params = params;
  return made;
}

class attempt {
 public:
  explicit attempt(script steps) : steps_(steps), memory_(steps_.byte() % 8 ? little : more) {
    static boost::asio::io_context context;
    static const auto idle = std::make_shared<reactor>(context.get_executor());  // nobody runs it
    arguments_ = std::make_shared<argument_blobs>(idle, argument_blobs::checked({.memory = memory_}));
    blobs_ = std::make_shared<worker_blobs>(arguments_, idle,
                                            [this](std::vector<std::uint8_t> frame, std::vector<unique_fd> handles) {
                                              sent_ = std::move(frame);
                                              if (!handles.empty()) file_ = std::move(handles.front());
                                              return true;
                                            });
    blobs_->enable();
  }

  void run() {
    while (!steps_.done() && step()) continue;
    if (steps_.byte() % 2) blobs_->end();
    blobs_.reset();
    for (const auto& each : held_) read(*each);
  }

 private:
  // False: the worker has broken the rules.
  bool step() {
    switch (steps_.byte() % 8) {
      case 0: return ask();
      case 1: return touch(), true;
      case 2: return say_mapped();
      case 3: return say_dropped();
      case 4:
      case 5: return answer();
      case 6: return let_go(), true;
      default: return say_anything(), false;
    }
  }

  // Which arena it may be about by chance nobody knows: with this the script ends.
  void say_anything() {
    const ipc::byte_span any = steps_.some();
    ipc::held_blobs came;
    switch (steps_.byte() % 4) {
      case 0: (void)blobs_->on_request(about("$/arena", any)); break;
      case 1: (void)blobs_->on_notification(about("$/mapped", any)); break;
      case 2: (void)blobs_->on_notification(about("$/dropped", any)); break;
      default: (void)blobs_->hold_results(any, came);
    }
    for (const auto& each : came) read(*each);
  }

  // The one meant, or none that there is.
  arena* chosen() {
    const std::size_t index = steps_.byte();
    return index < arenas_.size() ? &arenas_[index] : nullptr;
  }
  static ipc::buffer one(std::uint32_t number) {
    ipc::buffer out;
    ipc::packer(out).pack_array(1).pack(number);
    return out;
  }

  bool ask() {
    file_.reset();
    const ipc::buffer size = one(steps_.number<std::uint32_t>(3));
    must(!blobs_->on_request(about("$/arena", size.view())));
    const auto answered = ipc::parse_message(sent_);
    must(answered.has_value());
    if (!file_) {
      must(ipc::parse_failure(answered->error).code == outcome::overloaded);
      return true;
    }
    arena made;
    ipc::byte_span rest = answered->result;
    must(ipc::take_array(rest) == 3u);
    made.id = ipc::take_unsigned(rest).value();
    made.size = ipc::take_unsigned(rest).value();
    made.file = std::move(file_);
    arenas_.push_back(std::move(made));
    std::size_t all = 0;
    for (const arena& each : arenas_) all += each.dropped ? 0 : each.size;
    must(all <= memory_);
    return true;
  }

  // All of it, or less.
  void touch() {
    arena* const which = chosen();
    const bool all = steps_.byte() % 4 > 0;
    if (!which || which->usable) return;
    if (!which->mapped.data()) which->mapped = ipc::shared_memory::map(which->file.get(), which->size, true);
    if (all) which->filled = which->mapped.fill();
    else which->mapped.data()[0] = 1;
    which->filled = which->filled || (!all && which->size == ipc::range_allocator::unit);
  }

  bool say_mapped() {
    arena* const which = chosen();
    const bool fine = which && !which->dropped && !which->usable && which->filled;
    const ipc::buffer id = one(which ? which->id : 0);
    must(!blobs_->on_notification(about("$/mapped", id.view())) == fine);
    if (fine) which->usable = true;
    return fine;
  }

  bool say_dropped() {
    arena* const which = chosen();
    const bool fine = which && !which->dropped && which->held == 0;
    const ipc::buffer id = one(which ? which->id : 0);
    must(!blobs_->on_notification(about("$/dropped", id.view())) == fine);
    if (fine) which->dropped = true;
    return fine;
  }

  bool answer() {
    ipc::buffer result;
    std::vector<arena*> from;
    bool fine = true;
    std::uint64_t all = 0;
    const unsigned count = steps_.byte() % 4;
    ipc::packer(result).pack_array(count);
    for (unsigned i = 0; i < count; ++i) {
      arena* const which = chosen();
      ipc::blob_reference reference{steps_.byte() % 2 == 1, which ? which->id : 0, 0, 0};
      const int width = steps_.byte() % 4 ? 3 : 8;
      reference.offset = steps_.number(width);
      reference.length = steps_.number(width);
      ipc::append_reference(result, reference);
      from.push_back(which);
      fine = fine && which && which->usable && !which->dropped && reference.offset <= which->size &&
             reference.length <= which->size - reference.offset && (all += reference.length) <= memory_;
    }
    ipc::held_blobs came;
    must(!blobs_->hold_results(result.view(), came) == fine);
    if (!fine) return false;
    must(came.size() == count);
    for (unsigned i = 0; i < count; ++i) {
      ++from[i]->held;
      read(*came[i]);
      owners_.push_back(static_cast<std::size_t>(from[i] - arenas_.data()));
      held_.push_back(std::move(came[i]));
    }
    return true;
  }

  void let_go() {
    if (held_.empty()) return blobs_->on_timer();
    const std::size_t index = steps_.byte() % held_.size();
    --arenas_[owners_[index]].held;
    held_.erase(held_.begin() + static_cast<std::ptrdiff_t>(index));
    owners_.erase(owners_.begin() + static_cast<std::ptrdiff_t>(index));
  }

  static void read(const ipc::held_blob& blob) {
    static volatile std::uint8_t sum;
    if (blob.bytes().empty()) return;
    sum = static_cast<std::uint8_t>(sum + blob.bytes().front() + blob.bytes().back());
  }

  script steps_;
  const std::size_t memory_;
  std::vector<std::uint8_t> sent_;  // to the worker, the last
  unique_fd file_;
  std::shared_ptr<argument_blobs> arguments_;
  std::shared_ptr<worker_blobs> blobs_;
  std::vector<arena> arenas_;
  ipc::held_blobs held_;  // by the application
  std::vector<std::size_t> owners_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  attempt(script(data, size)).run();
  return 0;
}
