// See range.hpp.
#include "range.hpp"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

namespace bulkhead::testing {
namespace {

std::string error_name(long error) {
  const char* name = ::strerrorname_np(static_cast<int>(error));
  return name ? name : std::to_string(error);
}

std::vector<stop> read_stops(const std::string& text) {
  std::vector<stop> list;
  std::istringstream words(text);
  for (std::string word; words >> word;) {
    stop made;
    const std::size_t colon = word.find(':');
    made.layer = word.substr(0, colon);
    if (colon != std::string::npos) {
      std::istringstream errors(word.substr(colon + 1));
      for (std::string error; std::getline(errors, error, '|');) made.errors.push_back(error);
    }
    list.push_back(std::move(made));
  }
  return list;
}

}  // namespace

// Things that exist on the host and are open to anybody there.
struct firing_range::outside {
  std::string directory = "/var/tmp/bulkhead-range-XXXXXX";
  std::string abstract = "bulkhead-range-" + std::to_string(::getpid());
  unique_fd listener, local;
  int port = 0;

  outside() {
    if (!::mkdtemp(directory.data())) throw_errno("mkdtemp");
    ::chmod(directory.c_str(), 0777);
    for (const char* name : {"secret", "existing"}) {
      std::ofstream(directory + "/" + name) << "outside\n";
      ::chmod((directory + "/" + name).c_str(), 0666);
    }
    listener.reset(checked(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
    sockaddr_in in{};
    in.sin_family = AF_INET;
    in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    checked(::bind(listener.get(), reinterpret_cast<sockaddr*>(&in), sizeof in), "bind");
    checked(::listen(listener.get(), 64), "listen");
    socklen_t size = sizeof in;
    checked(::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&in), &size), "getsockname");
    port = ntohs(in.sin_port);
    local.reset(checked(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
    sockaddr_un un{};
    un.sun_family = AF_UNIX;
    std::memcpy(un.sun_path + 1, abstract.data(), abstract.size());
    const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + abstract.size());
    checked(::bind(local.get(), reinterpret_cast<sockaddr*>(&un), length), "bind");
    checked(::listen(local.get(), 64), "listen");
  }
  ~outside() {
    std::error_code ignored;
    std::filesystem::remove_all(directory, ignored);
  }
};

firing_range::firing_range(policy rules) : outside_(std::make_unique<outside>()), host_(std::make_unique<host>()) {
  sibling_ = host_->load(BULKHEAD_TEST_PLUGINS "/echo.so");
  attacker_ = host_->load(BULKHEAD_TEST_PLUGINS "/escape.so", {.policy = std::move(rules)});
  tell_facts();
  const auto all = attacker_.call<std::vector<std::vector<std::string>>>("list");
  for (const auto& each : all)
    attempts_.push_back({static_cast<int>(attempts_.size()), each.at(0), each.at(1), read_stops(each.at(2))});
}

firing_range::~firing_range() = default;

void firing_range::tell_facts() {
  const std::vector<int> numbers = {::getpid(), host_->fork_server_pid(), sibling_.workers().at(0).pid, outside_->port};
  attacker_.call("facts", numbers,
                 std::vector<std::string>{outside_->abstract, outside_->directory + "/secret", outside_->directory});
}

sandbox_report firing_range::report() { return attacker_.workers().at(0).sandbox; }

std::set<std::string> firing_range::layers_in_force() {
  std::set<std::string> names = {"inventory", "channel", "kernel"};
  for (const sandbox_layer& each : report().layers)
    if (each.in_force) names.insert(each.name);
  return names;
}

shot firing_range::fire(const attempt& what, const std::set<std::string>& layers) {
  shot made{&what, "", "", false};
  const auto first =
      std::find_if(what.stops.begin(), what.stops.end(), [&](const stop& s) { return layers.contains(s.layer); });
  if (first == what.stops.end()) {
    made.as_expected = true;
    return made;
  }
  made.expected = first->layer;
  const unsigned before = attacker_.workers().at(0).violations;
  const reply answer = attacker_.try_call("attempt", what.index);
  if (!answer) {
    made.got = "the call ended with " + std::string(to_string(answer.outcome())) + ": " + answer.message();
    attacker_.call("list");  // the next worker
    tell_facts();
    return made;
  }
  const long result = answer.as<long>();
  const auto workers = attacker_.workers();
  const bool denied = !workers.empty() && workers[0].violations != before;
  if (result >= 0) {
    made.got = "succeeded";
  } else {
    const std::string error = error_name(-result);
    made.got = error + (denied ? " by seccomp" : "");
    const bool error_fits = std::find(first->errors.begin(), first->errors.end(), error) != first->errors.end();
    made.as_expected = first->errors.empty() ? denied : error_fits && (!denied || first->layer == "seccomp");
  }
  return made;
}

firing_range::number_result firing_range::call_number(int table, int number) {
  const unsigned before = attacker_.workers().at(0).violations;
  const reply answer = attacker_.try_call("raw", table, number);
  if (!answer) {
    attacker_.call("list");
    return {0, false, true};
  }
  return {answer.as<long>(), attacker_.workers().at(0).violations != before, false};
}

}  // namespace bulkhead::testing
