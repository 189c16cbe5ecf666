// Cap'n Proto RPC over a Unix socket.
#include "echo.capnp.h"
#include "peer.hpp"

#include <capnp/ez-rpc.h>
#include <kj/async-io.h>

#include <climits>
#include <stdexcept>

namespace {

// No limit to how much of a message may be read: payloads are large.
capnp::ReaderOptions options() {
  capnp::ReaderOptions made;
  made.traversalLimitInWords = ULLONG_MAX;
  return made;
}

class echo final : public Echo::Server {
  kj::Promise<void> call(CallContext context) override {
    context.getResults().setData(context.getParams().getData());
    return kj::READY_NOW;
  }
};

class capnp_link final : public peer::link {
 public:
  ~capnp_link() noexcept override = default;  // its members' say that they may throw
  capnp_link() : client_("unix-abstract:" + server_.address(), 0, options()), echo_(client_.getMain<Echo>()) {}

  peer::bytes_view call(peer::bytes_view payload) override {
    answer_ = kj::heap(send(payload).wait(client_.getWaitScope()));
    const auto data = answer_->getData();
    return {data.begin(), data.size()};
  }

  bool many(peer::bytes_view payload, std::size_t count, std::size_t outstanding) override {
    left_ = count;
    kj::Vector<kj::Promise<void>> all;
    for (std::size_t i = 0; i < outstanding; ++i) all.add(chain(payload));
    kj::joinPromises(all.releaseAsArray()).wait(client_.getWaitScope());
    return true;
  }

  pid_t worker() const override { return server_.pid(); }

 private:
  using response = capnp::Response<Echo::CallResults>;

  capnp::RemotePromise<Echo::CallResults> send(peer::bytes_view payload) {
    auto request = echo_.callRequest(capnp::MessageSize{payload.size() / 8 + 16, 0});
    request.setData(kj::arrayPtr(payload.data(), payload.size()));
    return request.send();
  }

  // One call after the other until all have been made.
  kj::Promise<void> chain(peer::bytes_view payload) {
    if (left_ == 0) return kj::READY_NOW;
    --left_;
    return send(payload).then([this, payload](response&& answer) {
      if (answer.getData().size() != payload.size()) throw std::runtime_error("the answer is not what was sent");
      return chain(payload);
    });
  }

  peer::server server_;
  capnp::EzRpcClient client_;
  Echo::Client echo_;
  kj::Own<response> answer_;
  std::size_t left_ = 0;
};

void serve(const std::string& address) {
  capnp::EzRpcServer server(kj::heap<echo>(), "unix-abstract:" + address, 0, options());
  auto& scope = server.getWaitScope();
  server.getPort().wait(scope);  // it listens
  peer::ready_to_serve();
  kj::NEVER_DONE.wait(scope);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string address = peer::address_to_serve(argc, argv);
  if (!address.empty()) serve(address);
  return peer::obey({.name = "Cap'n Proto",
                     .version = std::to_string(CAPNP_VERSION_MAJOR) + "." + std::to_string(CAPNP_VERSION_MINOR) + "." +
                                std::to_string(CAPNP_VERSION_MICRO),
                     .connect = [](std::size_t) { return std::make_unique<capnp_link>(); }});
}
