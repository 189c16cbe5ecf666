// For bench_process: a child that speaks on Node's channel; it says that it is there, then answers what it is sent.
#include <bulkhead/node_channel.hpp>

#include <boost/asio/io_context.hpp>

int main() {
  boost::asio::io_context io(1);
  std::shared_ptr<bulkhead::node_channel> channel;
  channel = bulkhead::node_channel::from_environment(
      io.get_executor(),
      {.on_message = [&](const nlohmann::json& message, bulkhead::passed_handle) { channel->send(message); }});
  channel->send("ready");
  io.run();
}
