// The page's vectors against the code that writes and reads messages.
#include "page.hpp"
#include <bulkhead/ipc/message.hpp>
#include <bulkhead/ipc/scanner.hpp>
#include <bulkhead/ipc/stream.hpp>

#include <catch2/catch.hpp>

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
          pack.pack_array(1).pack_map(5).pack("protocol").pack(1).pack("deadline_ms").pack(30000);
          pack.pack("event_credit").pack(1024).pack("frame_limit").pack(16u << 20).pack("concurrency").pack(4);
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
  CHECK(notification("$/shutdown", nothing) == vector_named("shutdown"));
  CHECK(make_response(1, packed("value")).take() == vector_named("host_answer"));
  CHECK(make_response(1, from_hex("cb4000000000000000")).take() == vector_named("answer"));
  CHECK(make_response(9, packed(msgpack::type::nil_t{})).take() == vector_named("answer_nil"));
  CHECK(make_error_response(2, {outcome::rejected, "no function 'open'", {}}).take() == vector_named("host_rejects"));
  CHECK(make_error_response(1, {outcome::plugin_error, "no numbers", {}}).take() == vector_named("error_answer"));
  CHECK(make_error_response(1, {outcome::plugin_error, "no numbers", packed(std::map<std::string, int>{{"line", 3}})})
            .take() == vector_named("error_answer_with_data"));
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
