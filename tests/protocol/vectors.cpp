// The page's vectors against the code that writes and reads messages.
#include "page.hpp"
#include <bulkhead/ipc/blob.hpp>
#include <bulkhead/ipc/message.hpp>
#include <bulkhead/ipc/scanner.hpp>
#include <bulkhead/ipc/stream.hpp>

#include <catch2/catch.hpp>

#include <set>

namespace bulkhead::testing {
namespace {

using namespace ipc;

template <class F>
bytes_t request(const std::string& method, std::uint32_t id, F params) {
  buffer out = begin_request(method);
  packer pack(out);
  params(pack);
  bytes_t frame = out.take();
  set_request_id(frame, id);
  return frame;
}

template <class F>
bytes_t notification(const std::string& method, F params) {
  buffer out = begin_notification(method);
  packer pack(out);
  params(pack);
  return out.take();
}

bytes_t packed(auto value) {
  buffer out;
  packer(out).pack(value);
  return out.take();
}

const auto nothing = [](packer& pack) { pack.pack_array(0); };

}  // namespace

TEST_CASE("every vector of the page is one whole message of the stated form") {
  const auto all = vectors("vectors");
  CHECK(all.size() >= 47);
  for (const auto& [name, frame] : all) {
    INFO(name);
    scanner scan;
    std::size_t used = 0;
    CHECK(scan.feed(frame, used) == scanner::status::complete);
    CHECK(used == frame.size());
    const auto message = parse_message(frame);
    REQUIRE(message);
    CHECK(static_cast<int>(message->kind) == frame[1]);
    if (message->kind == message_kind::response) CHECK(value_size(message->result) == message->result.size());
    else CHECK(value_size(message->params) == message->params.size());
  }
}

TEST_CASE("what bulkhead writes is what the page shows, byte for byte") {
  CHECK(request("$/hello", 0, [](packer& pack) {
          pack.pack_array(1).pack_map(6).pack("protocol").pack(1).pack("deadline_ms").pack(30000);
          pack.pack("event_credit").pack(1024).pack("frame_limit").pack(16u << 20).pack("concurrency").pack(4);
          pack.pack("blob_threshold").pack(64u << 10);
        }) == vector_named("hello"));
  CHECK(request("mean", 1, [](packer& pack) {
          pack.pack(std::vector<std::vector<int>>{{1, 2, 3}});
        }) == vector_named("call"));
  CHECK(request("count", 4097, nothing) == vector_named("call_without_arguments"));
  CHECK(request("count", 4294967295, nothing) == vector_named("call_with_highest_id"));
  CHECK(request("size", 2, [](packer& pack) { pack.pack_array(1).pack_bin(3).pack_bin_body("\x00\xff\x80", 3); }) ==
        vector_named("call_with_bytes"));
  CHECK(request("upper", 3, [](packer& pack) { pack.pack_array(1).pack("gr\xc3\xbcn"); }) ==
        vector_named("call_with_text"));
  CHECK(request("$/describe", 8, nothing) == vector_named("describe"));
  CHECK(request("$/ping", 9, nothing) == vector_named("ping"));
  CHECK(request("$/drain", 10, nothing) == vector_named("drain"));
  CHECK(notification("$/deadline", [](packer& pack) { pack.pack_array(2).pack(7).pack(250); }) ==
        vector_named("deadline"));
  CHECK(notification("$/cancel", [](packer& pack) { pack.pack_array(1).pack(7); }) == vector_named("cancel"));
  CHECK(notification("$/credit", [](packer& pack) { pack.pack_array(1).pack(512); }) == vector_named("credit"));
  CHECK(make_open(7, 1 << 20).take() == vector_named("open"));
  CHECK(request("words", 7, [](packer& pack) { pack.pack_array(1).pack("en"); }) == vector_named("call_after_open"));
  CHECK(make_item(7, packed("one")).take() == vector_named("argument_item"));
  CHECK(make_end(7).take() == vector_named("argument_end"));
  CHECK(make_more(7, 512 << 10).take() == vector_named("results_taken"));
  CHECK(make_more(7, 1 << 20).take() == vector_named("window"));
  CHECK(make_more(7, 4).take() == vector_named("arguments_taken"));
  CHECK(make_item(7, packed(std::map<std::string, int>{{"count", 1}})).take() == vector_named("result_item"));
  CHECK(make_end(7).take() == vector_named("result_end"));
  CHECK(notification("$/published", [](packer& pack) {
          pack.pack_array(4).pack("table").pack(2).pack(1 << 20).pack_nil();
        }) == vector_named("announced"));
  CHECK(notification("$/took", [](packer& pack) { pack.pack_array(2).pack("table").pack(1); }) == vector_named("took"));
  CHECK(notification("$/shutdown", nothing) == vector_named("shutdown"));
  CHECK(make_response(1, packed("value")).take() == vector_named("host_answer"));
  CHECK(make_response(1, from_hex("cb4000000000000000")).take() == vector_named("answer"));
  CHECK(make_response(9, packed(msgpack::type::nil_t{})).take() == vector_named("answer_nil"));
  CHECK(make_error_response(2, {outcome::rejected, "no function 'open'", {}}).take() == vector_named("host_rejects"));
  CHECK(make_error_response(1, {outcome::plugin_error, "no numbers", {}}).take() == vector_named("error_answer"));
  CHECK(make_error_response(1, {outcome::plugin_error, "no numbers", packed(std::map<std::string, int>{{"line", 3}})})
            .take() == vector_named("error_answer_with_data"));
}

TEST_CASE("references to blobs are what the page shows, byte for byte") {
  const auto call = [](std::uint32_t id, const std::string& method, const blob_reference& reference) {
    buffer out = begin_request(method);
    packer(out).pack_array(1);
    append_reference(out, reference);
    bytes_t frame = out.take();
    set_request_id(frame, id);
    return frame;
  };
  CHECK(call(11, "size", {false, 3, 4096, 65536}) == vector_named("call_with_blob"));
  CHECK(call(12, "upper", {true, 3, 69632, 65536}) == vector_named("call_with_blob_of_text"));

  const bytes_t answer = vector_named("answer_blob");
  byte_span rest = parse_message(answer)->result;
  const auto found = next_bytes(rest);
  REQUIRE(found);
  const auto reference = reference_in(*found);
  REQUIRE(reference);
  CHECK((reference->arena == 4 && reference->offset == 0 && reference->length == 65536 && !reference->text));
  CHECK(rest.empty());
}

TEST_CASE("a reference lies within its arena or nowhere") {
  constexpr std::uint64_t most = UINT64_MAX, size = 1 << 20;
  const auto within = [&](std::uint64_t offset, std::uint64_t length) {
    return blob_reference{false, 1, offset, length}.within(size);
  };
  CHECK((within(0, 0) && within(0, size) && within(size, 0) && within(4096, size - 4096)));
  CHECK_FALSE((within(0, size + 1) || within(1, size) || within(size, 1) || within(size + 1, 0)));
  CHECK_FALSE((within(most, 0) || within(most, 1) || within(1, most) || within(most - 10, 11) || within(0, most)));
  CHECK_FALSE(blob_reference{false, 1, 0, blob_reference::most + 1}.within(most));

  bytes_t payload(blob_reference::packed_size);
  CHECK(blob_reference::read(payload));
  payload[0] = 2;
  CHECK_FALSE(blob_reference::read(payload));
  CHECK_FALSE(blob_reference::read(byte_span(payload).first(20)));
}

TEST_CASE("bytes are found in any value, and references replaced by what they stand for") {
  buffer value;
  packer pack(value);
  pack.pack_array(4).pack(std::map<std::string, double>{{"half", 0.5}}).pack(std::vector<int>{1, -40000, 1 << 30});
  append_reference(value, {false, 1, 0, 3});
  pack.pack_map(1).pack("text");
  append_reference(value, {true, 2, 0, 3});
  const std::string three = "abc";
  const auto plain = without_references(value.view(), [&](const blob_reference&) -> std::optional<byte_span> {
    return byte_span(reinterpret_cast<const std::uint8_t*>(three.data()), three.size());
  });
  buffer expected;
  packer other(expected);
  other.pack_array(4).pack(std::map<std::string, double>{{"half", 0.5}}).pack(std::vector<int>{1, -40000, 1 << 30});
  other.pack_bin(3).pack_bin_body("abc", 3);
  other.pack(std::map<std::string, std::string>{{"text", "abc"}});
  CHECK(plain == expected.take());

  for (std::size_t cut = 0; cut < plain.size(); ++cut) {  // whatever is missing, nothing beyond the end is read
    const bytes_t part(plain.begin(), plain.begin() + static_cast<std::ptrdiff_t>(cut));
    byte_span rest = part;
    while (const auto found = next_bytes(rest)) CHECK(found->whole.data() + found->whole.size() <= part.data() + cut);
  }
}

TEST_CASE("ranges of an arena are whole pages, each taken once, and grow together again") {
  range_allocator ranges(16 * range_allocator::unit);
  std::vector<std::size_t> taken;
  while (const auto offset = ranges.take(range_allocator::unit + 1)) taken.push_back(*offset);
  CHECK(taken.size() == 8);
  CHECK(std::set<std::size_t>(taken.begin(), taken.end()).size() == 8);
  CHECK_FALSE(ranges.give(1));
  for (const std::size_t each : {1, 3, 2, 0, 7, 5, 6, 4}) CHECK(ranges.give(taken[each]));
  CHECK_FALSE(ranges.give(taken[0]));
  CHECK(ranges.empty());
  CHECK(ranges.take(16 * range_allocator::unit) == std::optional<std::size_t>(0));
}

TEST_CASE("ids are read in every width and errors in every allowed shape") {
  auto id_of = [](const std::string& name) {
    const bytes_t frame = vector_named(name);
    return parse_message(frame)->id;
  };
  CHECK(id_of("answer") == 1);
  CHECK(id_of("answer_to_uint8_id") == 200);
  CHECK(id_of("answer_to_uint16_id") == 4097);
  CHECK(id_of("answer_to_highest_id") == 4294967295u);

  auto error_of = [](const std::string& name) {
    const bytes_t frame = vector_named(name);
    return parse_failure(parse_message(frame)->error);
  };
  CHECK(error_of("error_answer").code == outcome::plugin_error);
  CHECK(error_of("error_answer").message == "no numbers");
  CHECK(error_of("error_answer_text").message == "no numbers");
  CHECK(error_of("error_answer_with_data").data == packed(std::map<std::string, int>{{"line", 3}}));
  CHECK(error_of("error_answer_cancelled").code == outcome::cancelled);
  CHECK(error_of("unknown_request").code == outcome::rejected);
}

}  // namespace bulkhead::testing
