// What is compared with the others: a plugin in a sandboxed worker, as it is by default, or in this process.
#include "peer.hpp"
#include <bulkhead/host.hpp>

#include <boost/asio/io_context.hpp>

#include <cstring>
#include <optional>
#include <stdexcept>

#include <unistd.h>

namespace {

class bulkhead_link final : public peer::link {
 public:
  bulkhead_link(bulkhead::host& host, const bulkhead::load_options& options)
      : options_(options),
        echo_(host.load(BULKHEAD_TEST_PLUGINS "/echo.so", options)),
        pid_(options.isolation == bulkhead::isolation::none ? ::getpid() : echo_.workers().at(0).pid) {}
  ~bulkhead_link() override { echo_.unload(); }

  peer::bytes_view call(peer::bytes_view payload) override {
    return answer_ = echo_.call<bulkhead::bytes>("echo", bulkhead::bytes_view(payload));
  }

  // A host that runs on the caller's event loop, as in an application that has one; each handler makes the next call.
  bool many(peer::bytes_view payload, std::size_t count, std::size_t outstanding) override {
    if (!looped_) looped_.emplace(options_);
    boost::asio::io_context& context = looped_->context;
    std::size_t left = count, open = 0;
    std::function<void()> next = [&] {
      if (left == 0) return;
      --left;
      ++open;
      looped_->echo.async_call<bulkhead::bytes>("echo", std::tuple{bulkhead::bytes_view(payload)},
                                                [&](boost::system::error_code code, const bulkhead::bytes& answer) {
                                                  if (code || answer.size() != payload.size())
                                                    throw std::runtime_error("call: " + code.message());
                                                  --open;
                                                  next();
                                                });
    };
    for (std::size_t i = 0; i < outstanding; ++i) next();
    while (open > 0) context.run_one();
    return true;
  }

  pid_t worker() const override { return pid_; }

 private:
  struct looped {
    boost::asio::io_context context{1};
    bulkhead::host host{context.get_executor()};
    bulkhead::plugin echo;
    explicit looped(const bulkhead::load_options& options)
        : echo(host.load(BULKHEAD_TEST_PLUGINS "/echo.so", options)) {}
    ~looped() { echo.unload(); }
  };

  const bulkhead::load_options options_;
  bulkhead::plugin echo_;
  pid_t pid_;
  bulkhead::bytes answer_;
  std::optional<looped> looped_;  // from the first of many on
};

// With the bytes where the worker can see them, and the answer left where the worker has put it.
class blob_link final : public peer::link {
 public:
  blob_link(bulkhead::host& host, const bulkhead::load_options& options)
      : echo_(host.load(BULKHEAD_TEST_PLUGINS "/echo.so", options)) {}
  ~blob_link() override { echo_.unload(); }

  peer::bytes_view call(peer::bytes_view payload) override {
    if (!sent_ || sent_.size() != payload.size()) sent_ = echo_.make_blob(payload.size());
    std::memcpy(sent_.writable().data(), payload.data(), payload.size());
    answer_ = {};  // its memory is for the next
    answer_ = echo_.call<bulkhead::shared_blob>("echo", sent_);
    return answer_.view();
  }
  pid_t worker() const override { return echo_.workers().at(0).pid; }

 private:
  bulkhead::plugin echo_;
  bulkhead::shared_blob sent_, answer_;
};

}  // namespace

int main(int argc, char** argv) {
  const std::string how = argc > 1 ? argv[1] : "";
  const bool in_process = how == "in-process", blob = how == "blob";
  std::optional<bulkhead::host> host;
  return peer::obey({.name = how.empty() ? "bulkhead" : "bulkhead, " + how,
                     .version = BULKHEAD_BENCH_VERSION,
                     .smallest = blob ? std::size_t{64} << 10 : 0,
                     .connect = [&](std::size_t largest) -> std::unique_ptr<peer::link> {
                       // One host for all, as an application would have.
                       if (!host) host.emplace();
                       bulkhead::load_options options;
                       if (in_process) options.isolation = bulkhead::isolation::none;
                       if (largest > (std::size_t{1} << 20)) {
                         options.limits.frame = options.limits.queued_bytes = largest + 4096;
                       }
                       if (blob) return std::make_unique<blob_link>(*host, options);
                       return std::make_unique<bulkhead_link>(*host, options);
                     }});
}
