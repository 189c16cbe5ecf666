// See outside.hpp.
#include "outside.hpp"

#include <cstddef>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

namespace bulkhead::testing {
namespace {

constexpr const char* content = "outside\n";
// Those under granted/ and in writable/ are the plugin's to change.
const std::set<std::string> directories = {"elsewhere", "granted", "readable", "writable"};
const std::set<std::string> files = {"secret",           "existing",        "elsewhere/target",
                                     "elsewhere/victim", "readable/target", "readable/victim"};
constexpr const char* socket_file = "readable/datagrams";
const std::set<std::string> writable_files = {"writable/target", "writable/victim"};

void write_file(const std::string& path) {
  std::ofstream(path, std::ios::trunc) << content;
  ::chmod(path.c_str(), 0666);
}

std::string text_of(const std::string& path) {
  std::ifstream in(path);
  return {std::istreambuf_iterator<char>(in), {}};
}

void make_directory(const std::string& path) {
  ::mkdir(path.c_str(), 0777);
  ::chmod(path.c_str(), 0777);
}

unique_fd local_socket(int type, const std::string& name) {
  unique_fd made(checked(::socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), "socket"));
  sockaddr_un un{};
  un.sun_family = AF_UNIX;
  std::memcpy(un.sun_path, name.data(), name.size());
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size());
  checked(::bind(made.get(), reinterpret_cast<sockaddr*>(&un), length), "bind");
  return made;
}

}  // namespace

outside::outside() {
  if (!::mkdtemp(directory_.data())) throw_errno("mkdtemp");
  ::chmod(directory_.c_str(), 0777);
  repair();
  make_directory(directory_ + "/granted/moved");
  listener_.reset(checked(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
  sockaddr_in in{};
  in.sin_family = AF_INET;
  in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  checked(::bind(listener_.get(), reinterpret_cast<sockaddr*>(&in), sizeof in), "bind");
  checked(::listen(listener_.get(), 64), "listen");
  socklen_t size = sizeof in;
  checked(::getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&in), &size), "getsockname");
  port_ = ntohs(in.sin_port);
  using namespace std::string_literals;
  local_ = local_socket(SOCK_STREAM, "\0"s + abstract_);
  checked(::listen(local_.get(), 64), "listen");
  abstract_datagrams_ = local_socket(SOCK_DGRAM, "\0"s + abstract_ + "-datagrams");
  datagrams_ = local_socket(SOCK_DGRAM, directory_ + "/" + socket_file);
  ::chmod((directory_ + "/" + socket_file).c_str(), 0777);
}

outside::~outside() {
  std::error_code ignored;
  std::filesystem::remove_all(directory_, ignored);
}

std::string outside::damage() const {
  for (const std::string& each : files) {
    struct stat status {};
    const std::string path = directory_ + "/" + each;
    if (::lstat(path.c_str(), &status) != 0) return each + " is gone";
    if (!S_ISREG(status.st_mode) || text_of(path) != content) return each + " was changed";
    if (status.st_nlink != 1) return each + " has another name";
    if ((status.st_mode & 07777) != 0666) return each + " has another mode";
    if (status.st_mtim.tv_sec == 1) return each + " has other times";
  }
  for (const std::string& each : {std::string(), std::string("/elsewhere"), std::string("/readable")})
    for (const auto& entry : std::filesystem::directory_iterator(directory_ + each)) {
      const std::string name = entry.path().string().substr(directory_.size() + 1);
      if (!files.contains(name) && !directories.contains(name) && name != socket_file) return name + " was made";
    }
  for (const auto* each : {&datagrams_, &abstract_datagrams_})
    if (char byte = 0; ::recv(each->get(), &byte, 1, 0) >= 0) return "a socket of the host's has got a datagram";
  return {};
}

void outside::repair() const {
  for (const std::string& each : {std::string("/"), std::string("/elsewhere"), std::string("/readable")}) {
    std::error_code none_yet;
    for (const auto& entry : std::filesystem::directory_iterator(directory_ + each, none_yet)) {
      const std::string name = entry.path().lexically_relative(directory_).string();
      if (!directories.contains(name) && name != "elsewhere/moved" && name != socket_file)
        std::filesystem::remove_all(entry.path());
    }
  }
  for (const std::string& each : directories) make_directory(directory_ + "/" + each);
  for (const std::string& each : files) write_file(directory_ + "/" + each);
  for (const std::string& each : writable_files) write_file(directory_ + "/" + each);
}

outside::mover::mover(const outside& where) {
  thread_ = std::jthread([inside = where.directory() + "/granted/moved",
                          out = where.directory() + "/elsewhere/moved"](const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      std::rename(inside.c_str(), out.c_str());
      std::rename(out.c_str(), inside.c_str());
    }
  });
}

}  // namespace bulkhead::testing
