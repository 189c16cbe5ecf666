// What lies outside the sandbox, open to anybody there: files, a port, local sockets. It notices what was done to
// it, for an attempt's own word is not enough.
#pragma once

#include <bulkhead/ipc/system.hpp>

#include <string>
#include <thread>

#include <unistd.h>

namespace bulkhead::testing {

class outside {
 public:
  outside();
  ~outside();

  const std::string& directory() const { return directory_; }
  const std::string& abstract() const { return abstract_; }
  int port() const { return port_; }

  // What is not as it was made, or nothing.
  std::string damage() const;
  void repair() const;

  // While it lives, granted/moved is moved to elsewhere/moved and back.
  class mover {
   public:
    explicit mover(const outside& where);

   private:
    std::jthread thread_;
  };

 private:
  std::string directory_ = "/var/tmp/bulkhead-range-XXXXXX";
  std::string abstract_ = "bulkhead-range-" + std::to_string(::getpid());
  unique_fd listener_, local_, datagrams_, abstract_datagrams_;  // readable/datagrams; abstract()-datagrams
  int port_ = 0;
};

}  // namespace bulkhead::testing
