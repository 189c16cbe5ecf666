// gRPC over a Unix socket, without TLS: the callback service, which is the fastest there; a blocking stub for one call at a
// time, a completion queue for many.
#include "echo.grpc.pb.h"
#include "peer.hpp"

#include <grpcpp/grpcpp.h>

#include <stdexcept>

namespace {

class echo_service final : public bench::Echo::CallbackService {
  grpc::ServerUnaryReactor* Call(grpc::CallbackServerContext* context, const bench::Payload* request,
                                 bench::Payload* response) override {
    response->set_data(request->data());
    auto* reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }
};

void check(const grpc::Status& status) {
  if (!status.ok()) throw std::runtime_error(status.error_message());
}

class grpc_link final : public peer::link {
 public:
  grpc_link() {
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(-1);
    arguments.SetMaxSendMessageSize(-1);
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    stub_ = bench::Echo::NewStub(
        grpc::CreateCustomChannel("unix-abstract:" + server_.address(), grpc::InsecureChannelCredentials(), arguments));
  }

  peer::bytes_view call(peer::bytes_view payload) override {
    grpc::ClientContext context;
    request_.set_data(payload.data(), payload.size());
    check(stub_->Call(&context, request_, &response_));
    return {reinterpret_cast<const std::uint8_t*>(response_.data().data()), response_.data().size()};
  }

  bool many(peer::bytes_view payload, std::size_t count, std::size_t outstanding) override {
    grpc::CompletionQueue queue;
    request_.set_data(payload.data(), payload.size());
    std::vector<one_call> calls(outstanding);
    std::size_t sent = 0;
    auto start = [&](one_call& each) {
      each.context = std::make_unique<grpc::ClientContext>();
      each.reader = stub_->AsyncCall(each.context.get(), request_, &queue);
      each.reader->Finish(&each.response, &each.status, &each);
      ++sent;
    };
    for (one_call& each : calls)
      if (sent < count) start(each);
    for (std::size_t got = 0; got < count; ++got) {
      void* tag = nullptr;
      bool ok = false;
      if (!queue.Next(&tag, &ok) || !ok) throw std::runtime_error("the queue has ended");
      auto& each = *static_cast<one_call*>(tag);
      check(each.status);
      if (each.response.data().size() != payload.size()) throw std::runtime_error("the answer is not what was sent");
      if (sent < count) start(each);
    }
    queue.Shutdown();
    return true;
  }

  pid_t worker() const override { return server_.pid(); }

 private:
  struct one_call {
    std::unique_ptr<grpc::ClientContext> context;
    std::unique_ptr<grpc::ClientAsyncResponseReader<bench::Payload>> reader;
    bench::Payload response;
    grpc::Status status;
  };

  peer::server server_;
  std::unique_ptr<bench::Echo::Stub> stub_;
  bench::Payload request_, response_;
};

void serve(const std::string& address) {
  echo_service service;
  grpc::ServerBuilder builder;
  builder.SetMaxReceiveMessageSize(-1);
  builder.SetMaxSendMessageSize(-1);
  builder.AddListeningPort("unix-abstract:" + address, grpc::InsecureServerCredentials());
  builder.RegisterService(&service);
  const auto server = builder.BuildAndStart();
  if (!server) return;
  peer::ready_to_serve();
  server->Wait();
}

}  // namespace

int main(int argc, char** argv) {
  const std::string address = peer::address_to_serve(argc, argv);
  if (!address.empty()) {
    serve(address);
    return 1;
  }
  return peer::obey({.name = "gRPC", .version = grpc::Version(), .connect = [](std::size_t) {
                       return std::make_unique<grpc_link>();
                     }});
}
