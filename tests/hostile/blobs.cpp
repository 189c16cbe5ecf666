// Hostile workers and shared memory: references that lie, arenas that are not what they were asked to be, pages taken away
// or rewritten under a reader. Each costs its own call, and the host no more memory than the plugin's share.
#include "fixture.hpp"

#include <iomanip>
#include <numeric>
#include <sstream>

namespace bulkhead::testing {
namespace {

struct attack {
  std::string name;
  std::string steps;  // after "hello_blobs ready call"
  outcome expected;
};

std::vector<std::string> command(const std::string& steps) {
  std::vector<std::string> argv = {BULKHEAD_TEST_PROGRAMS "/hostile_peer"};
  std::istringstream words(steps);
  for (std::string word; words >> word;) argv.push_back(word);
  return argv;
}

// An arena of 1 MiB, mapped in good order; '#' is its number.
const std::string arena = "arena:1048576 touch x:9302a8'$/mapped'91ce# ";
// A result that is a reference: kind and arena, offset, length, each in hexadecimal.
std::string result(const std::string& kind_and_arena, const std::string& offset, const std::string& length) {
  return "x:9401@c0c71502" + kind_and_arena + offset + length + " ";
}
const std::string zero = "0000000000000000", page = "0000000000001000", whole = "0000000000100000";

// References to so many parts of 960 KiB, each a page after the one before.
std::string overlapping(int count) {
  std::ostringstream out;
  for (int i = 0; i < count; ++i)
    out << "c7150200#" << std::hex << std::setfill('0') << std::setw(16) << i * 4096 << "00000000000f0000";
  return out.str();
}

const std::vector<attack> attacks = {
    {"the truth", arena + result("00#", page, page) + "hold", outcome::ok},
    {"all of it", arena + result("00#", zero, whole) + "hold", outcome::ok},
    {"nothing, at its end", arena + result("00#", whole, zero) + "hold", outcome::ok},
    {"a byte too many", arena + result("00#", zero, "0000000000100001") + "hold", outcome::protocol},
    {"beyond the end", arena + result("00#", whole, "0000000000000001") + "hold", outcome::protocol},
    {"an offset that overflows", arena + result("00#", "ffffffffffffffff", "0000000000000001") + "hold",
     outcome::protocol},
    {"offset and length that overflow together", arena + result("00#", "ffffffffffff0000", "0000000000010000") + "hold",
     outcome::protocol},
    {"a length of 2^64-1", arena + result("00#", page, "ffffffffffffffff") + "hold", outcome::protocol},
    {"a length of 2^32", arena + result("00#", zero, "0000000100000000") + "hold", outcome::protocol},
    {"an arena that is not", arena + result("00ffffffff", zero, page) + "hold", outcome::protocol},
    {"the arena zero", result("0000000000", zero, page) + "hold", outcome::protocol},
    {"an arena that is not mapped yet", "arena:1048576 " + result("00#", zero, page) + "hold", outcome::protocol},
    {"an arena that was given back", arena + "x:9302a9'$/dropped'91ce# " + result("00#", zero, page) + "hold",
     outcome::protocol},
    {"a kind that is none", arena + result("02#", zero, page) + "hold", outcome::protocol},
    {"a reference that is too short", arena + "x:9401@c0c71402" + std::string(40, '0') + " hold", outcome::protocol},
    {"a reference that is too long", arena + "x:9401@c0c71602" + std::string(44, '0') + " hold", outcome::protocol},
    {"an empty reference", arena + "x:9401@c0c70002 hold", outcome::protocol},
    {"a lie beside a truth", arena + "x:9401@c092c7150200#" + page + page + "c7150200#" + page + whole + " hold",
     outcome::protocol},
    {"the same part very many times", arena + "x:9401@c0dd000186a0 fill:c7150200#" + zero + whole + "*100000 hold",
     outcome::protocol},
    {"parts that overlap", arena + "x:9401@c0dc0010" + overlapping(16) + " hold", outcome::protocol},
    {"mapped, but not touched", "arena:1048576 x:9302a8'$/mapped'91ce# hold", outcome::protocol},
    {"mapped twice", arena + "x:9302a8'$/mapped'91ce# hold", outcome::protocol},
    {"mapped, an arena that is not", "x:9302a8'$/mapped'91cefffffff0 hold", outcome::protocol},
    {"mapped, without a number", "x:9302a8'$/mapped'90 hold", outcome::protocol},
    {"given back, an arena that is not", "x:9302a9'$/dropped'91cefffffff0 hold", outcome::protocol},
    {"given back twice", arena + "x:9302a9'$/dropped'91ce# x:9302a9'$/dropped'91ce# hold", outcome::protocol},
    {"given back and never mapped", "arena:1048576 x:9302a9'$/dropped'91ce# answer", outcome::ok},
    {"an arena of no number of bytes", "x:940001a7'$/arena'90 hold", outcome::protocol},
    {"an arena of a negative size", "x:940001a7'$/arena'91ff hold", outcome::protocol},
    {"an arena of 2^64-1 bytes", "x:940001a7'$/arena'91cfffffffffffffffff hold", outcome::protocol},
    {"an arena larger than all", "again:4294967295 answer", outcome::ok},
    {"10,000 arenas", "fill:940001a7'$/arena'9101*10000 answer", outcome::ok},
    {"its death in between", "arena:1048576 exit:3", outcome::worker_lost},
};

}  // namespace

TEST_CASE("every lie about shared memory costs its call one error of the right kind, and its neighbour nothing") {
  host host;
  auto neighbour = host.load(plugin_path("echo"));
  const std::size_t descriptors = entries("/proc/self/fd");
  for (const attack& each : attacks) {
    INFO(each.name << ": " << each.steps);
    {
      load_options options;
      options.deadline = 30s;
      options.blobs.memory = 8 << 20;
      auto peer = host.launch(command("hello_blobs ready call " + each.steps), options);
      const reply got = peer.try_call("attack");
      CHECK(got.outcome() == each.expected);
      if (got && got.size() > 10) CHECK(got.blob().size() == got.size() - 24);
      CHECK(neighbour.call<int>("add", 20, 22) == 42);
    }
    CHECK(eventually(
        [&] { return entries("/proc/self/fd") == descriptors; }));  // a heartbeat reads files of the neighbour's
  }
}

TEST_CASE("a result may refer to as many bytes as there is memory for results, and to the same ones again") {
  host host;
  load_options options;
  options.blobs.memory = 8 << 20;
  const std::string once = "c7150200#" + zero + whole;
  std::string steps = "hello_blobs ready call " + arena + "x:9401@c098";
  for (int i = 0; i < 8; ++i) steps += once;
  auto peer = host.launch(command(steps + " hold"), options);
  const reply got = peer.try_call("attack");
  REQUIRE(got);
  CHECK(got.raw().size() == 1 + 8 * (5 + (std::size_t{1} << 20)));
}

TEST_CASE("a worker that said nothing of blobs may not refer to any, nor is it sent any") {
  host host;
  auto liar = host.launch(command("hello ready call " + result("0000000001", zero, page) + "hold"));
  CHECK(failure_of([&] { liar.call("attack"); }).outcome() == outcome::protocol);
  auto asker = host.launch(command("hello ready call again:4096 hold"));
  CHECK(failure_of([&] { asker.call("attack"); }).outcome() == outcome::protocol);
  auto plain = host.launch(command("hello ready call answer"));
  shared_blob blob = plain.make_blob(1 << 20);
  CHECK(plain.call<bool>("attack", blob));  // the peer waits for the name of the method alone: it takes plain bytes
}

// The filter for system calls left out: it is the seals that hold.
TEST_CASE("pages can't be taken away from under the host, nor arguments be written to") {
  host host;
  load_options options;
  options.policy = policy::program().without("seccomp").at_least(sandbox_level::limited);
  auto puncher =
      host.launch(command("hello_blobs ready call " + arena + "punch " + result("00#", zero, whole) + "hold"), options);
  const auto blob = puncher.call<shared_blob>("attack");
  CHECK(std::accumulate(blob.view().begin(), blob.view().end(), std::size_t{0}) == blob.size() * 'a');

  auto writer = host.launch(command("hello_blobs ready call writes answer"), options);
  shared_blob in = writer.make_blob(100'000);
  std::fill(in.writable().begin(), in.writable().end(), 1);
  CHECK(writer.call<bool>("attack", in));
  CHECK(std::accumulate(in.view().begin(), in.view().end(), std::size_t{0}) == in.size());
}

TEST_CASE("a result that is rewritten while the host reads it is bytes like any others") {
  host host;
  load_options options;
  options.deadline = 30s;
  auto peer = host.launch(command("hello_blobs ready call " + arena + result("01#", zero, whole) + "scribble:300 hold"),
                          options);
  const reply got = peer.try_call("attack");
  REQUIRE(got);
  for (int i = 0; i < 50; ++i) {
    CHECK(got.as<std::string>().size() == 1 << 20);
    CHECK(got.raw().size() == (1 << 20) + 5);
    const bytes mine = got.blob().copy();
    CHECK(bytes(mine) == mine);
  }
  CHECK(failure_of([&] { got.as<int>(); }).outcome() == outcome::plugin_error);
}

}  // namespace bulkhead::testing
