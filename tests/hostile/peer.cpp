// A worker that attacks its host with raw bytes. It speaks no protocol of its own: its arguments are a script.
//
//   hello          waits for the host's greeting and answers it        ready   says that it is ready
//   greeted        waits for the greeting only                        cancelled  waits until the call is cancelled
//   call           waits for a call of "attack" and remembers its id   answer  answers it with true
//   x:HEX          sends bytes; '@' stands for the id as uint32, '+' for id + 1, '~' for another generation of it
//   fill:HEX*N     sends the bytes N times
//   trickle:HEX    sends the bytes one after the other for as long as the host takes them
//   fds:N          sends a byte-less log line with N descriptors attached
//   with_fd:HEX    sends bytes with one descriptor attached
//   linger:PORT,HEX  sends the first byte of a message with a socket whose last close blocks; the rest may follow
//   stdout:N       writes N lines to stdout                            seed:N  sends random bytes, mutated from valid ones
//   hello_blobs    as hello, and says that it takes blobs
//   arena:N        asks for an arena of N bytes for results, maps it; '#' stands for its number from there on
//   again:N        asks for another without waiting for it            touch   writes to all of the arena
//   punch          tries everything that takes pages out of the arena; exits with 90 if something of it can be done
//   writes         tries everything that writes to the arguments' arena; exits with 91 if something of it can be done
//   heard:TEXT     waits until the host has sent the text              signalled  waits for SIGUSR1
//   scribble:MS    rewrites the arena all the time for so long
//   close, shut_read, shut_write, exit:N, signal:N, stop, kill:TARGET, daemon, deaf, hold
#include <algorithm>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <random>
#include <string>
#include <vector>

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

namespace {

using bytes = std::vector<std::uint8_t>;
int channel = -1;
std::uint32_t id = 0;
bytes heard;
int last_file = -1;  // that came
std::uint32_t arena = 0;
std::size_t arena_size = 0;
std::uint8_t* arena_bytes = nullptr;
sigset_t usr1;

bool send_all(const bytes& data) {
  for (std::size_t sent = 0; sent < data.size();) {
    const ssize_t n = ::send(channel, data.data() + sent, data.size() - sent, MSG_NOSIGNAL);
    if (n <= 0) return false;
    sent += static_cast<std::size_t>(n);
  }
  return true;
}

bool hear() {
  std::uint8_t chunk[65536];
  iovec part{chunk, sizeof chunk};
  alignas(cmsghdr) char control[CMSG_SPACE(16 * sizeof(int))];
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  const ssize_t n = ::recvmsg(channel, &message, 0);
  if (n <= 0) return false;
  for (cmsghdr* each = CMSG_FIRSTHDR(&message); each; each = CMSG_NXTHDR(&message, each))
    std::memcpy(&last_file, CMSG_DATA(each), sizeof last_file);
  heard.insert(heard.end(), chunk, chunk + n);
  return true;
}

// Waits for a request of this name; its id is a uint32 just before.
void await(const std::string& method) {
  for (;;) {
    const auto found = std::search(heard.begin(), heard.end(), method.begin(), method.end());
    if (found != heard.end()) {
      if (found - heard.begin() >= 5)
        for (auto at = found - 5; at != found - 1; ++at) id = id << 8 | *at;
      heard.erase(heard.begin(), found + static_cast<std::ptrdiff_t>(method.size()));
      return;
    }
    if (!hear()) ::_exit(0);
  }
}

void hear_text(const std::string& text) {
  const std::uint32_t call = id;
  await(text);
  id = call;
}

bytes number(std::uint32_t value) {
  return {0xce, static_cast<std::uint8_t>(value >> 24), static_cast<std::uint8_t>(value >> 16),
          static_cast<std::uint8_t>(value >> 8), static_cast<std::uint8_t>(value)};
}

bytes from_script(const std::string& text) {
  bytes out;
  for (std::size_t i = 0; i < text.size();) {
    if (text[i] == '#') {
      for (int shift = 24; shift >= 0; shift -= 8) out.push_back(static_cast<std::uint8_t>(arena >> shift));
      ++i;
    } else if (text[i] == '@' || text[i] == '+' || text[i] == '~') {
      const bytes known = number(text[i] == '@' ? id : text[i] == '+' ? id + 1 : id ^ 0x00100000u);
      out.insert(out.end(), known.begin(), known.end());
      ++i;
    } else if (text[i] == '\'') {  // 'text'
      const auto end = text.find('\'', i + 1);
      out.insert(out.end(), text.begin() + static_cast<std::ptrdiff_t>(i) + 1,
                 text.begin() + static_cast<std::ptrdiff_t>(end));
      i = end + 1;
    } else {
      out.push_back(static_cast<std::uint8_t>(std::stoi(text.substr(i, 2), nullptr, 16)));
      i += 2;
    }
  }
  return out;
}

void send_descriptors(int count, const bytes& line) {
  std::vector<char> control(CMSG_SPACE(sizeof(int) * static_cast<std::size_t>(count)));
  iovec part{const_cast<std::uint8_t*>(line.data()), line.size()};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int) * static_cast<std::size_t>(count));
  for (int i = 0; i < count; ++i) {
    const int fd = 0;
    std::memcpy(CMSG_DATA(header) + static_cast<std::size_t>(i) * sizeof(int), &fd, sizeof fd);
  }
  if (::sendmsg(channel, &message, MSG_NOSIGNAL) < 0) send_all(line);  // not allowed to: the line alone
}

// The first byte of a message with a TCP socket whose last close blocks for 6 s: the receiver's, from then on.
void send_lingering(int port, std::uint8_t first) {
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<std::uint16_t>(port));
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0) ::_exit(98);
  const linger wait{1, 6};
  ::setsockopt(fd, SOL_SOCKET, SO_LINGER, &wait, sizeof wait);
  const bytes much(64 << 10);
  while (::send(fd, much.data(), much.size(), MSG_DONTWAIT | MSG_NOSIGNAL) > 0) {
  }
  iovec part{&first, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))]{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(header), &fd, sizeof fd);
  if (::sendmsg(channel, &message, MSG_NOSIGNAL) < 0) ::_exit(97);
  ::close(fd);
}

// Valid messages, some of their bits changed, some cut, some twice.
void send_mutations(unsigned seed) {
  std::mt19937 random(seed);
  const std::vector<bytes> valid = {from_script("9401@c0c3"),
                                    from_script("9302a5'$/log'9201a3'abc'"),
                                    from_script("9302a7'$/event'92a1'e'01"),
                                    from_script("940001a1'f'90"),
                                    from_script("9401@82a4'code'a1'x'a7'message'a1'y'c0"),
                                    from_script("9302aa'$/progress'92@c0"),
                                    from_script("9401@c0dc0003010203")};
  for (int i = 0; i < 2000; ++i) {
    bytes message = valid[random() % valid.size()];
    for (auto flips = random() % 3; flips > 0; --flips)
      message[random() % message.size()] ^= static_cast<std::uint8_t>(1u << random() % 8);
    if (random() % 50 == 0) message.resize(random() % message.size() + 1);
    if (!send_all(message)) return;
  }
}

void ask_for_arena(std::uint32_t size) {
  bytes request = from_script("9400ce00000077a7'$/arena'91");
  const bytes wanted = number(size);
  request.insert(request.end(), wanted.begin(), wanted.end());
  send_all(request);
}

// The answer to a request with the id 119: [arena, size, handle].
void get_arena(std::uint32_t size) {
  last_file = -1;
  ask_for_arena(size);
  const bytes answer = from_script("940177c093");
  for (;;) {
    const auto found = std::search(heard.begin(), heard.end(), answer.begin(), answer.end());
    if (heard.end() - found > static_cast<long>(answer.size()) + 8 && last_file >= 0) {
      auto at = found + static_cast<long>(answer.size());
      const unsigned width = *at == 0xce ? 4 : *at == 0xcd ? 2 : *at == 0xcc ? 1 : 0;
      if (width == 0) arena = *at;
      else
        for (unsigned i = 1; i <= width; ++i) arena = arena << 8 | at[i];
      break;
    }
    if (!hear()) ::_exit(0);
  }
  arena_size = static_cast<std::size_t>(::lseek(last_file, 0, SEEK_END));
  void* const at = ::mmap(nullptr, arena_size, PROT_READ | PROT_WRITE, MAP_SHARED, last_file, 0);
  if (at == MAP_FAILED) ::_exit(92);
  arena_bytes = static_cast<std::uint8_t*>(at);
}

void must_fail(bool failed, int status) {
  if (!failed) ::_exit(status);
}

void punch() {
  const auto size = static_cast<off_t>(arena_size);
  while (!(::fcntl(last_file, F_GET_SEALS) & F_SEAL_FUTURE_WRITE)) ::usleep(100);  // the host is about to believe in it
  must_fail(::fallocate(last_file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, size) < 0, 90);
  must_fail(::fallocate(last_file, FALLOC_FL_ZERO_RANGE, 0, size) < 0, 90);
  must_fail(::madvise(arena_bytes, arena_size, MADV_REMOVE) < 0, 90);
  must_fail(::ftruncate(last_file, 0) < 0, 90);
  must_fail(::ftruncate(last_file, 2 * size) < 0, 90);
  must_fail(::fcntl(last_file, F_ADD_SEALS, F_SEAL_WRITE) < 0, 90);
  must_fail(::mmap(nullptr, arena_size, PROT_READ | PROT_WRITE, MAP_SHARED, last_file, 0) == MAP_FAILED, 90);
}

void write_to_arguments() {
  const auto size = static_cast<std::size_t>(::lseek(last_file, 0, SEEK_END));
  const std::uint8_t byte = 66;
  void* const at = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, last_file, 0);
  if (at == MAP_FAILED) ::_exit(92);
  must_fail(::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, last_file, 0) == MAP_FAILED, 91);
  must_fail(::mprotect(at, size, PROT_READ | PROT_WRITE) < 0, 91);
  must_fail(::pwrite(last_file, &byte, 1, 0) < 0, 91);
  must_fail(::ftruncate(last_file, 0) < 0, 91);
  must_fail(::fallocate(last_file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, static_cast<off_t>(size)) < 0, 91);
  must_fail(::madvise(at, size, MADV_REMOVE) < 0, 91);
  const std::string again = "/proc/self/fd/" + std::to_string(last_file);
  if (const int opened = ::open(again.c_str(), O_RDWR); opened >= 0) must_fail(::pwrite(opened, &byte, 1, 0) < 0, 91);
}

[[noreturn]] void hold() {
  const std::string last = "$/shutdown";
  while (std::search(heard.begin(), heard.end(), last.begin(), last.end()) == heard.end() && hear()) {
  }
  ::_exit(0);
}

void run(const std::string& step) {
  const auto colon = step.find(':');
  const std::string verb = step.substr(0, colon), argument = colon == std::string::npos ? "" : step.substr(colon + 1);
  if (verb == "hello") {
    await("$/hello");
    send_all(from_script("9401@c081a8'protocol'01"));
  } else if (verb == "hello_blobs") {
    await("$/hello");
    send_all(from_script("9401@c082a8'protocol'01a5'blobs'c3"));
  } else if (verb == "arena") {
    get_arena(static_cast<std::uint32_t>(std::stoul(argument)));
  } else if (verb == "again") {
    ask_for_arena(static_cast<std::uint32_t>(std::stoul(argument)));
  } else if (verb == "touch") {
    std::memset(arena_bytes, 'a', arena_size);
  } else if (verb == "punch") {
    punch();
  } else if (verb == "writes") {
    write_to_arguments();
  } else if (verb == "scribble") {
    timespec begin{}, now{};
    ::clock_gettime(CLOCK_MONOTONIC, &begin);
    for (int i = 0;; ++i) {
      std::memset(arena_bytes, i, arena_size);
      ::clock_gettime(CLOCK_MONOTONIC, &now);
      if ((now.tv_sec - begin.tv_sec) * 1000 + (now.tv_nsec - begin.tv_nsec) / 1000000 > std::stoi(argument)) break;
    }
  } else if (verb == "greeted") {
    await("$/hello");
  } else if (verb == "cancelled") {
    hear_text("$/cancel");
  } else if (verb == "heard") {
    hear_text(argument);
  } else if (verb == "signalled") {
    int which = 0;
    ::sigwait(&usr1, &which);
  } else if (verb == "ready") {
    send_all(from_script("9302a7'$/ready'9180"));
  } else if (verb == "call") {
    await("attack");
  } else if (verb == "answer") {
    send_all(from_script("9401@c0c3"));
  } else if (verb == "x") {
    send_all(from_script(argument));
  } else if (verb == "fill") {
    const auto star = argument.rfind('*');
    const bytes piece = from_script(argument.substr(0, star));
    const int count = std::stoi(argument.substr(star + 1));
    bytes block;
    for (int i = 0; i < count; ++i) {
      block.insert(block.end(), piece.begin(), piece.end());
      if (block.size() < 65536 && i + 1 < count) continue;
      if (!send_all(block)) return;
      block.clear();
    }
  } else if (verb == "trickle") {
    const bytes piece = from_script(argument);
    for (std::size_t i = 0; send_all({piece[i % piece.size()]}); ++i) ::usleep(1000);
  } else if (verb == "fds") {
    send_descriptors(std::stoi(argument), from_script("9302a5'$/log'9201a3'fds'"));
  } else if (verb == "with_fd") {
    send_descriptors(1, from_script(argument));
  } else if (verb == "linger") {
    send_lingering(std::stoi(argument), from_script(argument.substr(argument.find(',') + 1)).at(0));
  } else if (verb == "stdout") {
    for (int i = 0; i < std::stoi(argument); ++i) std::printf("line %d with \x1b[2J and \xff in it\n", i);
    std::fflush(stdout);
  } else if (verb == "seed") {
    send_mutations(static_cast<unsigned>(std::stoul(argument)));
  } else if (verb == "close") {
    ::close(channel);
  } else if (verb == "shut_read") {
    ::shutdown(channel, SHUT_RD);
  } else if (verb == "shut_write") {
    ::shutdown(channel, SHUT_WR);
  } else if (verb == "exit") {
    ::_exit(std::stoi(argument));
  } else if (verb == "signal") {
    const int number_of_it = std::stoi(argument);
    ::signal(number_of_it, SIG_DFL);
    ::raise(number_of_it);  // pid 1 of a PID namespace survives this
    ::_exit(70);
  } else if (verb == "stop") {
    ::raise(SIGSTOP);
  } else if (verb == "kill") {
    ::kill(argument == "parent" ? ::getppid() : argument == "all" ? -1 : std::atoi(argument.c_str()), SIGKILL);
  } else if (verb == "daemon") {
    if (::fork() == 0) {
      ::setsid();
      if (::fork() == 0)
        for (;;) ::pause();  // with the channel and the log open
      ::_exit(0);
    }
    ::_exit(0);
  } else if (verb == "deaf") {
    for (;;) ::pause();
  } else if (verb == "hold") {
    hold();
  } else {
    std::fprintf(stderr, "hostile_peer: no step '%s'\n", step.c_str());
    ::_exit(99);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const char* fd = std::getenv("BULKHEAD_CHANNEL_FD");
  channel = fd ? std::atoi(fd) : -1;
  ::sigemptyset(&usr1);
  ::sigaddset(&usr1, SIGUSR1);
  ::sigprocmask(SIG_BLOCK, &usr1, nullptr);  // until it is waited for
  for (int i = 1; i < argc; ++i) run(argv[i]);
  hold();
}
