// bulkhead node: a plugin as the child of a real Node parent. Calls come as messages on Node's channel, and so do their
// outcomes and the plugin's events; the plugin runs in a worker of its own, so what it does to itself is an answer.
#include "calling.hpp"
#include "command.hpp"
#include "exit_codes.hpp"
#include "outcome_text.hpp"
#include "plugin_path.hpp"
#include "values/arguments.hpp"
#include "worker_options.hpp"
#include <bulkhead/node_channel.hpp>

#include <boost/asio/io_context.hpp>
#include <fmt/format.h>

namespace bulkhead::cli {
namespace {

using channel_pointer = std::shared_ptr<node_channel>;

// A plugin may answer with what is more than its reader takes: the reader is the parent, whom that does not harm.
void say(const channel_pointer& to, const json& message) {
  try {
    to->send(nlohmann::json(message));
  } catch (const std::exception&) {  // the parent has gone
  }
}

// A plugin's value, as this member, and the handle that goes with it; or why that can't be sent.
void pass(const channel_pointer& to, json message, const char* member, const msgpack::object& value,
          std::vector<unique_fd>& handles) {
  try {
    if (handles.size() > 1)
      throw std::invalid_argument(fmt::format("{} handles, where a message takes one", handles.size()));
    nlohmann::json whole = message;
    whole[member] = nlohmann::json(from_msgpack(value, bytes_as::base64));
    to->send(whole, handles.empty() ? passed_handle() : passed_handle(std::move(handles[0])));
  } catch (const std::invalid_argument& e) {
    message["error"] = {{"code", to_string(outcome::plugin_error)}, {"message", e.what()}};
    say(to, message);
  } catch (const boost::system::system_error&) {  // the parent has gone
  }
}

json error_of(const failure& what) {
  json error = error_json(what);
  error["code"] = std::string(to_string(what.outcome));
  return error;
}

class answer final : public reply_handler {
 public:
  answer(channel_pointer to, nlohmann::json id) : to_(std::move(to)), id_(std::move(id)) {}
  void complete(reply&& result) override {
    if (!result) return say(to_, {{"id", id_}, {"error", error_of(failure_of(result))}});
    try {
      const auto unpacked = ipc::unpack(result.raw());
      std::vector<unique_fd> handles;
      for (std::size_t i = 0; i < result.handle_count(); ++i) handles.push_back(result.handle(i));
      pass(to_, {{"id", id_}}, "result", unpacked.get(), handles);
    } catch (const std::exception& e) {
      say(to_, {{"id", id_}, {"error", {{"code", "protocol"}, {"message", e.what()}}}});
    }
  }

 private:
  const channel_pointer to_;
  const nlohmann::json id_;
};

void call(const plugin& target, const plugin_info& info, const channel_pointer& from, const nlohmann::json& message,
          passed_handle handle) {
  const auto member = [&](const char* name) {
    return message.is_object() && message.contains(name) ? message[name] : nlohmann::json();
  };
  const nlohmann::json id = member("id"), method = member("method"), params = member("params");
  try {
    if (!method.is_string() || !(params.is_array() || params.is_null()))
      throw argument_error("a call is {id, method: \"name\", params: [...]}");
    std::vector<json> values;
    for (const nlohmann::json& each : params) values.emplace_back(each);
    call_options options;
    if (member("timeout").is_number_unsigned())
      options.deadline = std::chrono::milliseconds(member("timeout").get<std::uint32_t>());
    target.async_call_packed(
        method.get<std::string>(),
        make_arguments(find_method(info, info.id, method.get<std::string>()), values, handle.release()), options,
        std::make_unique<answer>(from, id));
  } catch (const call_error& e) {
    say(from, {{"id", id}, {"error", error_of(failure_of(e))}});
  } catch (const std::exception& e) {
    say(from, {{"id", id}, {"error", {{"code", "rejected"}, {"message", e.what()}}}});
  }
}

}  // namespace

int run_node(int argc, char** argv) {
  worker_options worker;
  CLI::App app(
      "Serves a plugin to the Node process that has forked this one: "
      "child_process.fork('PLUGIN', [OPTIONS], { execPath: 'bulkhead', execArgv: ['node'] }).",
      "bulkhead node");
  app.footer("\ndocs/processes.md tells which messages go to and fro.");
  worker.declare(app);
  if (const auto done = parse(app, argc, argv)) return *done;

  boost::asio::io_context io(1);
  std::optional<host> workers;
  plugin target;
  plugin_info info;
  channel_pointer parent;
  parent = node_channel::from_environment(io.get_executor(),
                                          {.on_message = [&](const nlohmann::json& message, passed_handle handle) {
                                            call(target, info, parent, message, std::move(handle));
                                          }});
  try {
    workers.emplace(worker.for_host());
    target = workers->load(find_plugin(worker.plugin), worker.for_load());
    info = target.describe();
  } catch (const call_error& e) {
    say(parent, {{"error", error_of(failure_of(e))}});
    parent->disconnect();
    io.run();
    return exit_code(e.outcome());
  } catch (const usage_error& e) {  // there is no such plugin, say
    say(parent, {{"error", {{"code", "unavailable"}, {"message", e.what()}}}});
    parent->disconnect();
    io.run();
    throw;
  }
  target.on_event_with_handles(
      [parent](const std::string& name, const msgpack::object& value, std::vector<unique_fd>& handles) {
        pass(parent, {{"event", name}}, "value", value, handles);
      });
  json methods = json::array();
  for (const method_info& each : info.methods)
    methods.push_back({{"name", each.name}, {"signature", each.signature}, {"doc", each.doc}});
  say(parent, {{"ready", {{"id", info.id}, {"version", info.version}, {"methods", methods}}}});
  io.run();  // until the parent disconnects
  target.on_event({});
  target.unload();
  workers->shutdown();
  return exit_ok;
}

}  // namespace bulkhead::cli
