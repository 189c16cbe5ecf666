// See arguments.hpp.
#include "check/arguments.hpp"

#include <bulkhead/ipc/message.hpp>

#include <algorithm>
#include <array>
#include <limits>
#include <random>
#include <system_error>

#include <sys/mman.h>
#include <unistd.h>

namespace bulkhead::cli::check {
namespace {

using packer = msgpack::packer<msgpack::sbuffer>;

constexpr std::array<std::int64_t, 19> integers = {
    0,     1,     -1,      2,         7,         100,       127,       128,        255,       256,
    65535, 65536, 1000000, INT32_MAX, INT32_MIN, INT64_MAX, INT64_MIN, 4294967296, 4294967295};
constexpr std::array<double, 9> reals = {0.0, -0.0, 1.0, -1.5, 1e308, -1e308, 5e-324, 0.1, 3.0};

// The beginnings of files that say more of themselves than there is.
const std::array<std::string_view, 9> files = {
    std::string_view("P6\n3000 3000\n255\nabc"),
    std::string_view("P5\n-1 -1\n255\n"),
    std::string_view("\x89PNG\r\n\x1a\n\0\0\0\rIHDR\x7f\xff\xff\xff\x7f\xff\xff\xff\x08\x06\0\0\0", 29),
    std::string_view("\xff\xd8\xff\xe0\0\x10JFIF\0\x01\x01\0\0\x01\0\x01\0\0\xff\xc0\0\x11\x08\xff\xff\xff\xff\x03",
                     30),
    std::string_view("RIFF\xff\xff\xff\x7fWEBPVP8 \xff\xff\xff\x7f", 20),
    std::string_view("\x28\xb5\x2f\xfd\xa4\xff\xff\xff\xff\x01\0\0", 12),
    std::string_view("\x1f\x8b\x08\0\0\0\0\0\0\x03\xff\xff", 12),
    std::string_view("SQLite format 3\0\x10\0\x01\x01\0\x40\x20\x20", 24),
    std::string_view("PK\x03\x04\xff\xff\xff\xff\xff\xff\xff\xff", 12)};
const std::array<std::string_view, 12> texts = {std::string_view(""),
                                                std::string_view("a"),
                                                std::string_view("sample"),
                                                std::string_view("two words"),
                                                std::string_view("1"),
                                                std::string_view("gr\xc3\xbc\xc3\x9f \xe2\x98\x83 \xf0\x9f\x98\x80"),
                                                std::string_view("\xff\xfe\xc3", 3),
                                                std::string_view("nul\0inside", 10),
                                                std::string_view("%s%n%x"),
                                                std::string_view("../../../../etc/passwd"),
                                                std::string_view("((((((((((a*)*)*)*)*)*"),
                                                std::string_view("{\"a\":[1,{}]}")};

class maker {
 public:
  maker(std::uint64_t seed, bool plain, made_arguments& out) : random_(seed), plain_(plain), out_(out) {}

  void pack(packer& to, const type& wanted, int depth = 0) {
    if (wanted.optional && !plain_ && chance(3)) {
      to.pack_nil();
      return;
    }
    switch (wanted.kind) {
      case kind::nil: to.pack_nil(); return;
      case kind::boolean: pack_bool(to); return;
      case kind::integer: pack_int(to); return;
      case kind::real: pack_real(to); return;
      case kind::text: pack_text(to); return;
      case kind::binary:
      case kind::blob: pack_bin(to); return;
      case kind::array: pack_list(to, wanted.of.empty() ? type{} : wanted.of[0], depth); return;
      case kind::map: pack_map(to, wanted, depth); return;
      case kind::handle: pack_handle(to); return;
      case kind::any: pack(to, {.kind = any_kind(depth)}, depth + 1); return;
    }
  }

  // A value that is not of that type; false when there is none to be sure of.
  bool pack_wrong(packer& to, const type& wanted) {
    if (wanted.kind == kind::any) return false;
    const std::array kinds = {kind::nil, kind::boolean, kind::integer, kind::text, kind::array, kind::map};
    const kind other = kinds[below(kinds.size())];
    const bool near = other == wanted.kind || (other == kind::nil && wanted.optional) ||
                      (wanted.kind == kind::real && other == kind::integer) ||
                      (wanted.kind == kind::boolean && other == kind::integer) ||
                      ((wanted.kind == kind::binary || wanted.kind == kind::blob) && other == kind::text);
    if (near) return false;
    if (other == kind::map) {  // an empty one may be an empty array to some languages
      to.pack_map(1).pack("key").pack(1);
      return true;
    }
    pack(to, {.kind = other});
    return true;
  }

  std::size_t below(std::size_t limit) { return static_cast<std::size_t>(random_() % limit); }
  bool chance(std::size_t one_in) { return below(one_in) == 0; }

 private:
  kind any_kind(int depth) {
    const std::array kinds = {kind::integer, kind::text,   kind::boolean, kind::real,
                              kind::nil,     kind::binary, kind::array,   kind::map};
    return kinds[below(depth > 3 ? kinds.size() - 2 : kinds.size())];
  }
  void pack_bool(packer& to) { chance(2) ? to.pack_true() : to.pack_false(); }
  void pack_int(packer& to) {
    if (plain_) to.pack(static_cast<std::int64_t>(1 + below(8)));
    else if (chance(8)) to.pack(UINT64_MAX);
    else if (chance(4)) to.pack(static_cast<std::int64_t>(random_()));
    else to.pack(integers[below(integers.size())]);
  }
  void pack_real(packer& to) {
    if (plain_) to.pack(static_cast<double>(below(100)) / 4);
    else if (chance(12)) to.pack(std::numeric_limits<double>::quiet_NaN());
    else if (chance(12)) to.pack(std::numeric_limits<double>::infinity());
    else to.pack(reals[below(reals.size())]);
  }
  void pack_text(packer& to) {
    if (plain_) to.pack("sample");
    else if (chance(10)) to.pack(std::string(std::size_t{1} << below(17), 'a'));
    else to.pack(texts[below(texts.size())]);
  }
  void pack_bin(packer& to) {
    std::string bytes;
    if (plain_) bytes = "sample";
    else if (chance(3)) bytes = files[below(files.size())];
    else if (!chance(4)) bytes.resize(below(chance(4) ? 65536 : 64));
    if (!plain_)
      for (std::size_t i = chance(2) ? 0 : bytes.size() / 2; i < bytes.size() && bytes.size() < 4096; ++i)
        if (bytes[i] == 0) bytes[i] = static_cast<char>(random_());
    to.pack_bin(static_cast<std::uint32_t>(bytes.size()));
    to.pack_bin_body(bytes.data(), static_cast<std::uint32_t>(bytes.size()));
  }
  std::size_t length(int depth) {
    if (plain_) return 3;
    return depth == 0 && chance(12) ? 1000 : below(5);
  }
  void pack_list(packer& to, const type& of, int depth) {
    const std::size_t size = length(depth);
    to.pack_array(static_cast<std::uint32_t>(size));
    for (std::size_t i = 0; i < size; ++i) pack(to, of, depth + 1);
  }
  void pack_map(packer& to, const type& wanted, int depth) {
    const std::size_t size = length(depth);
    to.pack_map(static_cast<std::uint32_t>(size));
    for (std::size_t i = 0; i < size; ++i) {
      const type key = wanted.of.empty() ? type{.kind = kind::text} : wanted.of[0];
      if (key.kind == kind::text) to.pack("key" + std::to_string(i));
      else if (key.kind == kind::integer) to.pack(i);
      else pack(to, key, depth + 1);
      pack(to, wanted.of.size() < 2 ? type{} : wanted.of[1], depth + 1);
    }
  }
  void pack_handle(packer& to) {
    const char index = static_cast<char>(out_.handles++);
    to.pack_ext(1, ipc::ext_handle);
    to.pack_ext_body(&index, 1);
  }

  std::mt19937_64 random_;
  const bool plain_;
  made_arguments& out_;
};

std::vector<std::uint8_t> bytes_of(const msgpack::sbuffer& packed) {
  return {reinterpret_cast<const std::uint8_t*>(packed.data()),
          reinterpret_cast<const std::uint8_t*>(packed.data()) + packed.size()};
}

bool fits_all(const type& of, const msgpack::object_array& list) {
  return std::all_of(list.ptr, list.ptr + list.size, [&](const msgpack::object& each) { return fits(of, each); });
}

}  // namespace

made_arguments make(const signature& form, std::uint64_t seed, bool plain) {
  made_arguments made;
  maker values(seed, plain, made);
  std::size_t count = form.parameters.size();
  const std::size_t required = form.required();
  if (count > required && values.chance(2)) count = required + values.below(count - required + 1);
  const bool spoil = !plain && values.chance(4);
  std::size_t spoiled = SIZE_MAX;  // none
  if (spoil && values.chance(3) && required > 0) {
    count = required - 1;
    made.wrong = "too few arguments";
  } else if (spoil && values.chance(2)) {
    count = form.parameters.size() + 1;
    made.wrong = "too many arguments";
  } else if (spoil && count > 0) {
    spoiled = values.below(count);
  }
  msgpack::sbuffer packed;
  packer to(packed);
  to.pack_array(static_cast<std::uint32_t>(count));
  for (std::size_t i = 0; i < count; ++i) {
    const type wanted = i < form.parameters.size() ? form.parameters[i].type : type{.kind = kind::integer};
    if (i == spoiled && values.pack_wrong(to, wanted))
      made.wrong = "argument " + std::to_string(i + 1) + " is not " + to_string(wanted);
    else values.pack(to, wanted);
  }
  made.params = bytes_of(packed);
  if (form.streamed_arguments) {
    made_arguments none;
    maker items(seed + 1, plain, none);
    for (std::size_t i = items.below(5); i > 0; --i) {
      msgpack::sbuffer item;
      packer into(item);
      items.pack(into, *form.streamed_arguments);
      made.items.push_back(bytes_of(item));
    }
  }
  return made;
}

packed_arguments with_handles(const made_arguments& made) {
  packed_arguments out;
  out.params.append(made.params);
  for (unsigned i = 0; i < made.handles; ++i) {
    unique_fd file(::memfd_create("sample", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    if (!file || ::write(file.get(), "sample\n", 7) != 7)
      throw std::system_error(errno, std::generic_category(), "memfd");
    ::lseek(file.get(), 0, SEEK_SET);
    out.handles.push_back(std::move(file));
  }
  return out;
}

bool fits(const type& wanted, const msgpack::object& value) {
  using msgpack::type::object_type;
  const object_type is = value.type;
  if (wanted.optional && is == msgpack::type::NIL) return true;
  switch (wanted.kind) {
    case kind::nil: return is == msgpack::type::NIL;
    case kind::boolean: return is == msgpack::type::BOOLEAN;
    case kind::integer: return is == msgpack::type::POSITIVE_INTEGER || is == msgpack::type::NEGATIVE_INTEGER;
    case kind::real:
      return is == msgpack::type::FLOAT64 || is == msgpack::type::FLOAT32 || fits({.kind = kind::integer}, value);
    case kind::text: return is == msgpack::type::STR;
    case kind::binary: return is == msgpack::type::BIN;
    case kind::blob: return is == msgpack::type::BIN || is == msgpack::type::EXT;
    case kind::handle: return is == msgpack::type::EXT;
    case kind::array:
      return is == msgpack::type::ARRAY && (wanted.of.empty() || fits_all(wanted.of[0], value.via.array));
    case kind::map:
      return is == msgpack::type::MAP &&
             (wanted.of.size() < 2 || std::all_of(value.via.map.ptr, value.via.map.ptr + value.via.map.size,
                                                  [&](const msgpack::object_kv& each) {
                                                    return fits(wanted.of[0], each.key) && fits(wanted.of[1], each.val);
                                                  }));
    case kind::any: return true;
  }
  return true;
}

}  // namespace bulkhead::cli::check
