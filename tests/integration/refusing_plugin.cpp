// For cluster.cpp: answers each request with the worker's pid. After /refuse the worker gives back each connection that
// it is passed; after /take-all-descriptors it has none left to be passed one.
#include <bulkhead/sdk.hpp>
#include <bulkhead/sdk/serve.hpp>

#include <map>

#include <poll.h>
#include <unistd.h>

BULKHEAD_PLUGIN("refusing", "1.0.0") {
  using bulkhead::handle;
  plugin.method(BULKHEAD_SERVE_METHOD, [](handle control, handle table, handle doorbell,
                                          const std::map<std::string, std::string>& settings) {
    using kind = bulkhead::serve_link::event::kind;
    const std::string& pid = settings.at("pid");
    const std::string answer = "HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(pid.size()) + "\r\n\r\n" + pid;
    bulkhead::serve_link link(std::move(control), std::move(table), std::move(doorbell));
    std::vector<bulkhead::served_connection> open;
    std::vector<handle> taken;
    bool refuses = false;
    link.serving();
    for (;;) {
      std::vector<pollfd> watched{{link.fd(), POLLIN, 0}};
      for (const auto& each : open) watched.push_back({each.fd(), POLLIN, 0});
      ::poll(watched.data(), watched.size(), -1);
      for (std::size_t i = 0; i < open.size(); ++i) {
        if (watched[i + 1].revents == 0) continue;
        open[i].busy();
        char request[512];
        const ssize_t n = ::recv(open[i].fd(), request, sizeof request, 0);
        if (n <= 0) {
          open[i].end();
          continue;
        }
        const std::string_view text(request, static_cast<std::size_t>(n));
        refuses = refuses || text.starts_with("GET /refuse ");
        if (text.starts_with("GET /take-all-descriptors "))
          for (int fd; (fd = ::dup(link.fd())) >= 0;) taken.emplace_back(fd);
        ::send(open[i].fd(), answer.data(), answer.size(), MSG_NOSIGNAL);
        open[i].idle();
      }
      std::erase_if(open, [](const auto& each) { return !each; });
      while (auto event = link.next()) {
        if (event->what == kind::end || event->what == kind::drain || event->what == kind::host_gone) return;
        if (event->what != kind::connection) continue;
        if (refuses) event->connection.give_back();
        else open.push_back(std::move(event->connection));
      }
    }
  });
}
