// Typed arguments and results: what converts, what does not, and the exact words for it.
#include <bulkhead/sdk/plain.hpp>
#include <bulkhead/sdk/typed.hpp>

#include <catch2/catch.hpp>

#include <limits>

namespace bulkhead::testing {

struct point {
  int x = 0, y = 0;
  std::string name = "origin";
  MSGPACK_DEFINE_MAP(x, y, name)
  bool operator==(const point&) const = default;
};

namespace {

using typed::convert;

// A value that has been packed and unpacked: what a method sees.
template <class T>
msgpack::object_handle sent(const T& value) {
  msgpack::sbuffer buffer;
  msgpack::pack(buffer, value);
  return msgpack::unpack(buffer.data(), buffer.size());
}

template <class T, class V>
T through(const V& value) {
  const auto handle = sent(value);
  return convert<T>(handle.get());
}

// Why a value is not a T.
template <class T, class V>
std::string mismatch(const V& value) {
  const auto handle = sent(value);
  try {
    convert<T>(handle.get());
  } catch (const type_mismatch& error) {
    return error.what();
  }
  return "";
}

const bytes some_bytes = {1, 2, 255};

TEST_CASE("typed: values come through as they were") {
  CHECK(through<bool>(true));
  CHECK(through<std::string>("gr\xc3\xbcn") == "gr\xc3\xbcn");
  CHECK(through<double>(0.1) == 0.1);
  CHECK(through<double>(7) == 7.0);  // an int is a float, too
  CHECK(through<bytes>(some_bytes) == some_bytes);
  CHECK(through<std::vector<int>>(std::vector<int>{1, -2}) == std::vector<int>{1, -2});
  CHECK(through<std::vector<bool>>(std::vector<bool>{true, false}) == std::vector<bool>{true, false});
  CHECK(through<std::vector<std::vector<std::string>>>(std::vector<std::vector<std::string>>{{"a"}, {}, {"b", "c"}}) ==
        std::vector<std::vector<std::string>>{{"a"}, {}, {"b", "c"}});
  const std::map<std::string, std::vector<int>> lists = {{"one", {1}}, {"none", {}}};
  CHECK(through<std::map<std::string, std::vector<int>>>(lists) == lists);
  CHECK(through<std::unordered_map<std::string, std::vector<int>>>(lists).at("one") == std::vector<int>{1});
  CHECK(through<std::map<int, std::optional<bool>>>(std::map<int, std::optional<bool>>{{-1, {}}, {2, true}}).at(2) ==
        true);
  CHECK(through<std::tuple<int, std::string>>(std::tuple(1, "a")) == std::tuple(1, std::string("a")));
  CHECK(through<std::pair<int, std::string>>(std::pair(1, "a")) == std::pair(1, std::string("a")));
  CHECK(through<std::array<float, 2>>(std::vector<float>{1, 2}) == std::array<float, 2>{1, 2});
  CHECK(through<std::optional<int>>(3) == 3);
  CHECK(through<std::optional<int>>(msgpack::type::nil_t{}) == std::nullopt);
  CHECK(through<point>(point{1, 2, "p"}) == point{1, 2, "p"});
  CHECK(through<point>(std::map<std::string, int>{{"y", 5}, {"z", 6}}) == point{0, 5, "origin"});  // its own defaults
  CHECK(through<std::vector<point>>(std::vector<point>{{1, 2, "p"}}).at(0).y == 2);
}

// What is taken where it lies is what objects would have made of it.
template <class T>
int agree(bytes_view packed) {
  static_assert(typed::is_plain<T>);
  T direct{};
  if (!typed::take_all(packed, direct)) return 0;
  const auto* const data = reinterpret_cast<const char*>(packed.data());
  const auto handle = msgpack::unpack(data, packed.size());
  const auto again = [](const T& value) {
    msgpack::sbuffer out;
    msgpack::pack(out, value);
    return std::string(out.data(), out.size());
  };
  CHECK(again(direct) == again(convert<T>(handle.get())));
  return 1;
}

template <class... T>
int agree_all(bytes_view packed) {
  return (agree<T>(packed) + ...);
}

TEST_CASE("typed: values of plain types are taken as objects would be, whole or not at all") {
  using map = std::map<std::string, std::vector<double>>;
  using tuple = std::tuple<std::int8_t, std::string, std::optional<std::uint32_t>>;
  std::vector<std::string> all;
  const auto add = [&](const auto& value) {
    msgpack::sbuffer out;
    msgpack::pack(out, value);
    all.emplace_back(out.data(), out.size());
  };
  for (const std::int64_t n :
       {0L,          1L,           -1L,          -32L,        -33L,        127L,      128L,     -128L,  -129L,
        255L,        256L,         32767L,       32768L,      -32768L,     -32769L,   65535L,   65536L, 2147483647L,
        2147483648L, -2147483648L, -2147483649L, 4294967295L, 4294967296L, INT64_MAX, INT64_MIN})
    add(n);
  add(UINT64_MAX);
  add(0.5);
  add(0.5f);
  add(true);
  add(msgpack::type::nil_t{});
  for (const std::size_t size : {0, 1, 31, 32, 255, 256, 65535, 65536}) {
    add(std::string(size, 'x'));
    add(bytes(size, 7));
    add(std::vector<int>(size, -3));
    add(std::vector<std::string>(size % 100, "y"));
  }
  add(map{{"one", {1, 2.5}}, {"none", {}}});
  add(tuple{-7, "t", 9});
  add(tuple{-7, "t", std::nullopt});
  all.push_back(
      {'\x82', '\xa1', 'a', '\x90', '\xa1', 'a', '\x91', '\xca', 0, 0, 0, 0});  // a key twice: the last counts
  int taken = 0;
  const auto both = [&](const std::string& packed) {
    const bytes_view view(reinterpret_cast<const std::uint8_t*>(packed.data()), packed.size());
    try {
      taken += agree_all<bool, std::int8_t, std::uint8_t, std::int16_t, std::uint16_t, std::int32_t, std::uint32_t,
                         std::int64_t, std::uint64_t, double, std::string, bytes, std::vector<char>, map, tuple,
                         std::vector<int>, std::vector<std::string>, std::optional<int>, std::array<int, 1>,
                         std::pair<std::string, int>>(view);
    } catch (const std::exception& e) {
      FAIL_CHECK("taken, but no such value: " << e.what());
    }
  };
  for (const auto& each : all) both(each);
  CHECK(taken > 150);
  // Cut short, with something behind it, and with each byte changed: never past the end, and never something else.
  for (const auto& each : all) {
    if (each.size() > 300) continue;
    both(each + '\x01');
    for (std::size_t cut = 0; cut < each.size(); ++cut) {
      const std::unique_ptr<char[]> exact(new char[cut]);
      std::copy_n(each.data(), cut, exact.get());
      bytes ignored;
      map also;
      std::vector<int> list;
      const bytes_view part(reinterpret_cast<const std::uint8_t*>(exact.get()), cut);
      CHECK_FALSE(typed::take_all(part, ignored));
      CHECK_FALSE(typed::take_all(part, also));
      CHECK_FALSE(typed::take_all(part, list));
      std::string changed = each;
      for (const int to :
           {0x00, 0x7f, 0x80, 0x8f, 0x90, 0xc0, 0xc4, 0xc6, 0xca, 0xcc, 0xcf, 0xd3, 0xdb, 0xdd, 0xdf, 0xff}) {
        changed[cut] = static_cast<char>(to);
        try {
          both(changed);
        } catch (const msgpack::unpack_error&) {
        }
      }
    }
  }
}

TEST_CASE("typed: a count is believed only when so much is there") {
  const std::string huge("\xdd\xff\xff\xff\xff\x01", 6), map("\xdf\xff\xff\xff\xff\x01", 6),
      bin("\xc6\xff\xff\xff\xff\x01", 6);
  const auto view = [](const std::string& packed) {
    return bytes_view(reinterpret_cast<const std::uint8_t*>(packed.data()), packed.size());
  };
  std::vector<int> list;
  CHECK_FALSE(typed::take_all(view(huge), list));
  CHECK(list.capacity() == 0);
  std::map<int, int> pairs;
  CHECK_FALSE(typed::take_all(view(map), pairs));
  bytes_view whole;
  CHECK_FALSE(typed::take_all(view(bin), whole));
}

TEST_CASE("typed: views refer to the value itself") {
  const auto text = sent("view");
  CHECK(convert<std::string_view>(text.get()).data() == text.get().via.str.ptr);
  const auto packed = sent(some_bytes);
  CHECK(static_cast<const void*>(convert<bytes_view>(packed.get()).data()) == packed.get().via.bin.ptr);
  const auto list = sent(std::vector<bytes>{some_bytes, {}});
  CHECK(convert<std::vector<bytes_view>>(list.get()).at(0).size() == 3);
  CHECK(convert<msgpack::object>(text.get()).type == msgpack::type::STR);
}

TEST_CASE("typed: bytes by the megabyte come through as they were, in place of what was there before") {
  bytes much((std::size_t{5} << 20) + 123);
  for (std::size_t i = 0; i < much.size(); ++i) much[i] = static_cast<std::uint8_t>(i * 7 + i / 4096);
  const msgpack::object_handle value = sent(much);
  CHECK((typed::convert<bytes>(value.get()) == much));
  CHECK((typed::convert<std::vector<char>>(value.get()) == std::vector<char>(much.begin(), much.end())));
  msgpack::sbuffer flat;
  msgpack::pack(flat, much);
  const bytes_view raw(reinterpret_cast<const std::uint8_t*>(flat.data()), flat.size());
  for (const std::size_t size : {std::size_t{0}, std::size_t{10}, std::size_t{5} << 20, std::size_t{9} << 20}) {
    bytes before(size, 1);
    CHECK(typed::take_all(raw, before));
    CHECK((before == much));
  }
}

TEST_CASE("typed: an int has to fit") {
  CHECK(through<std::int8_t>(-128) == -128);
  CHECK(through<std::uint8_t>(255) == 255);
  CHECK(through<std::int64_t>(std::numeric_limits<std::int64_t>::min()) == std::numeric_limits<std::int64_t>::min());
  CHECK(through<std::uint64_t>(UINT64_MAX) == UINT64_MAX);
  CHECK(mismatch<std::int8_t>(128) == "expected int, got an int out of range");
  CHECK(mismatch<std::int8_t>(-129) == "expected int, got an int out of range");
  CHECK(mismatch<std::uint8_t>(256) == "expected int, got an int out of range");
  CHECK(mismatch<std::uint16_t>(-1) == "expected int, got an int out of range");
  CHECK(mismatch<std::int32_t>(std::int64_t{1} << 31) == "expected int, got an int out of range");
  CHECK(mismatch<std::uint64_t>(-1) == "expected int, got an int out of range");
  CHECK(mismatch<std::int64_t>(std::uint64_t{1} << 63) == "expected int, got an int out of range");
  CHECK(mismatch<std::optional<std::uint8_t>>(256) == "expected int?, got an int out of range");
}

TEST_CASE("typed: a mismatch names what was expected and what came") {
  CHECK(mismatch<int>("7") == "expected int, got str");
  CHECK(mismatch<int>(7.5) == "expected int, got float");
  CHECK(mismatch<int>(true) == "expected int, got bool");
  CHECK(mismatch<int>(msgpack::type::nil_t{}) == "expected int, got nil");
  CHECK(mismatch<bool>(1) == "expected bool, got int");
  CHECK(mismatch<double>("1.5") == "expected float, got str");
  CHECK(mismatch<std::string>(1) == "expected str, got int");
  CHECK(mismatch<std::string>(std::vector<int>{}) == "expected str, got array");
  CHECK(mismatch<bytes_view>(std::map<int, int>{}) == "expected bin, got map");
  CHECK(mismatch<std::vector<int>>(1) == "expected array<int>, got int");
  CHECK(mismatch<std::map<std::string, int>>(std::vector<int>{}) == "expected map<str,int>, got array");
  CHECK(mismatch<std::optional<std::string>>(false) == "expected str?, got bool");
  CHECK(mismatch<std::vector<int>>(msgpack::type::ext(5, 3)) == "expected array<int>, got ext");
}

TEST_CASE("typed: text is no bytes and bytes are no text, at any depth") {
  CHECK(mismatch<std::string>(some_bytes) == "expected str, got bin");
  CHECK(mismatch<std::string_view>(some_bytes) == "expected str, got bin");
  CHECK(mismatch<bytes>("text") == "expected bin, got str");
  CHECK(mismatch<bytes_view>("text") == "expected bin, got str");
  CHECK(mismatch<std::vector<char>>("text") == "expected bin, got str");
  CHECK(mismatch<std::array<unsigned char, 4>>("text") == "expected bin, got str");
  CHECK(mismatch<std::optional<std::string>>(some_bytes) == "expected str?, got bin");
  CHECK(mismatch<std::vector<std::string>>(std::vector<bytes>{some_bytes}) ==
        "expected array<str>, got bin at index 0");
  CHECK(mismatch<std::map<std::string, bytes>>(std::map<std::string, std::string>{{"a", "b"}}) ==
        "expected map<str,bin>, got str at key 'a'");
}

TEST_CASE("typed: a mismatch inside a value says where") {
  CHECK(mismatch<std::vector<int>>(std::tuple(1, 2, "three")) == "expected array<int>, got str at index 2");
  CHECK(mismatch<std::vector<std::uint16_t>>(std::vector<int>{1, 70'000}) ==
        "expected array<int>, got an int out of range at index 1");
  CHECK(
      mismatch<std::vector<std::vector<int>>>(std::tuple(std::vector<int>{}, std::tuple(1, msgpack::type::nil_t{}))) ==
      "expected array<array<int>>, got nil at index 1 at index 1");
  CHECK(mismatch<std::map<std::string, int>>(std::map<std::string, double>{{"pi", 3.14}}) ==
        "expected map<str,int>, got float at key 'pi'");
  CHECK(mismatch<std::map<std::string, int>>(std::map<int, int>{{1, 2}}) ==
        "expected map<str,int>, got int as key of entry 0");
  CHECK(mismatch<std::map<int, int>>(std::map<int, bool>{{8, true}}) == "expected map<int,int>, got bool in entry 0");
  CHECK(mismatch<std::map<std::string, std::vector<int>>>(std::map<std::string, std::vector<bool>>{{"k", {true}}}) ==
        "expected map<str,array<int>>, got bool at index 0 at key 'k'");
  CHECK(mismatch<std::tuple<int, std::string>>(std::tuple(1, 2)) == "expected array, got int at index 1");
  CHECK(mismatch<std::array<int, 2>>(std::tuple(1, "b")) == "expected array<int>, got str at index 1");
}

TEST_CASE("typed: an array of a fixed size has that size") {
  CHECK(mismatch<std::tuple<int, int>>(std::vector<int>{1, 2, 3}) == "expected array, got an array of 3 instead of 2");
  CHECK(mismatch<std::pair<int, int>>(std::vector<int>{1}) == "expected array, got an array of 1 instead of 2");
  CHECK(mismatch<std::array<int, 2>>(std::vector<int>{1, 2, 3}) ==
        "expected array<int>, got an array of 3 instead of 2");
  CHECK(mismatch<std::array<int, 2>>(std::vector<int>{1}) == "expected array<int>, got an array of 1 instead of 2");
  CHECK(through<std::tuple<>>(std::vector<int>{}) == std::tuple<>());
}

TEST_CASE("typed: a structure of the author's own that does not fit") {
  CHECK(mismatch<point>(7) == "expected a structure, got int");
  CHECK(mismatch<point>(std::map<std::string, std::string>{{"x", "1"}}) ==
        "expected a structure, got map, a field of which does not fit");
  CHECK(mismatch<std::vector<point>>(std::tuple(point{}, 5)) == "expected array<any>, got int at index 1");
}

TEST_CASE("typed: a key that comes twice counts as it came last") {
  const std::string packed("\x82\xa1k\x01\xa1k\x02");
  const auto handle = msgpack::unpack(packed.data(), packed.size());
  CHECK(convert<std::map<std::string, int>>(handle.get()).at("k") == 2);
  CHECK(convert<std::unordered_map<std::string, int>>(handle.get()).at("k") == 2);
}

// --- argument lists -------------------------------------------------------------------------------------------------

template <class... A, class... V>
std::tuple<A...> called(const std::vector<std::string>& names, V... values) {
  const auto handle = sent(std::tuple<V...>(values...));
  return typed::arguments<A...>("f", handle.get(), names,
                                []<class T>(std::type_identity<T>, const msgpack::object& o) { return convert<T>(o); });
}

template <class... A, class... V>
std::string refused(const std::vector<std::string>& names, V... values) {
  try {
    called<A...>(names, values...);
  } catch (const type_mismatch& error) {
    return error.what();
  }
  return "";
}

TEST_CASE("typed: the wrong number of arguments is told, and what is right") {
  CHECK(refused<int>({}) == "f: takes 1 argument, got 0");
  CHECK(refused<int>({}, 1, 2) == "f: takes 1 argument, got 2");
  CHECK(refused<>({}, 1) == "f: takes 0 arguments, got 1");
  CHECK(refused<int, std::optional<int>>({}) == "f: takes 1 to 2 arguments, got 0");
  CHECK(refused<int, std::optional<int>, std::optional<int>>({}, 1, 2, 3, 4) == "f: takes 1 to 3 arguments, got 4");
  CHECK(refused<std::optional<int>, int>({}, 1) == "f: takes 2 arguments, got 1");  // only at the end
  const auto map = sent(std::map<int, int>{});
  auto any = []<class T>(std::type_identity<T>, const msgpack::object& o) { return convert<T>(o); };
  CHECK_THROWS_WITH(typed::arguments<int>("f", map.get(), {}, any), "f: arguments must be an array, got map");
}

TEST_CASE("typed: optional arguments may be left out or nil") {
  using both = std::tuple<int, std::optional<std::string>>;
  CHECK(called<int, std::optional<std::string>>({}, 1) == both(1, std::nullopt));
  CHECK(called<int, std::optional<std::string>>({}, 1, msgpack::type::nil_t{}) == both(1, std::nullopt));
  CHECK(called<int, std::optional<std::string>>({}, 1, "a") == both(1, "a"));
  CHECK(called<std::optional<int>, int>({}, msgpack::type::nil_t{}, 2) == std::tuple(std::optional<int>(), 2));
}

TEST_CASE("typed: a wrong argument is named by position and name") {
  CHECK(refused<int, int>({"a", "b"}, 1, "x") == "f: argument 2 (b): expected int, got str");
  CHECK(refused<int, int>({"a"}, 1, "x") == "f: argument 2: expected int, got str");
  CHECK(refused<int, int>({"a", "b"}, "x", "y") == "f: argument 1 (a): expected int, got str");  // the first one
  CHECK(refused<std::vector<int>>({"xs"}, std::tuple(1, "b")) ==
        "f: argument 1 (xs): expected array<int>, got str at index 1");
}

TEST_CASE("typed: signatures in the words of plugin.h") {
  auto signature = []<class R, class... A>(std::type_identity<R(A...)>, std::vector<std::string> names) {
    return typed::signature<R>(names, static_cast<std::tuple<A...>*>(nullptr));
  };
  CHECK(signature(std::type_identity<void()>{}, {}) == "() -> nil");
  CHECK(signature(std::type_identity<bytes(bytes_view, unsigned, std::optional<std::string>)>{}, {"image", "side"}) ==
        "(bin image, int side, str?) -> bin");
  CHECK(signature(std::type_identity<std::map<std::string, double>(std::vector<std::vector<bool>>, std::string_view)>{},
                  {}) == "(array<array<bool>>, str) -> map<str,float>");
  CHECK(signature(std::type_identity<msgpack::object(point, std::pair<int, int>, std::unordered_map<int, char>)>{},
                  {}) == "(any, array, map<int,int>) -> any");
}

}  // namespace
}  // namespace bulkhead::testing
