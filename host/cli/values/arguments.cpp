// See arguments.hpp: counts the words, finds the type of each, and names the argument when something is wrong.
#include "values/arguments.hpp"

#include "files.hpp"
#include "values/to_msgpack.hpp"

#include <nlohmann/json.hpp>

#include <fcntl.h>

namespace bulkhead::cli {
namespace {

using json = nlohmann::ordered_json;  // maps keep their order

std::string plural(std::size_t count, const std::string& noun) {
  return std::to_string(count) + " " + noun + (count == 1 ? "" : "s");
}

std::string described(const method_info& method) {
  return "  " + method.name + method.signature + (method.doc.empty() ? "" : "\n  " + method.doc);
}

std::vector<std::uint8_t> contents(const std::string& path) { return read_file(path, ipc::limits{}.frame); }

// Text that is not JSON may still be text; what begins like an array, a map or a string was meant to be one.
void pack_bare_word(value_packer& packer, const type& wanted, const std::string& word) {
  const bool text = wanted.kind == kind::text;
  const bool meant_as_json = word.starts_with('{') || word.starts_with('[') || word.starts_with('"');
  if (text || (wanted.kind == kind::any && !meant_as_json)) return packer.pack_text(word);
  std::string problem = "expected " + to_string(wanted) + ", got '" + word + "', which is not JSON";
  if (wanted.kind == kind::binary || wanted.kind == kind::blob)
    problem += "; write @FILE for a file's contents, or '\"text\"' for the bytes of a text";
  if (wanted.kind == kind::handle) problem += "; write @FILE to open a file for reading and pass it";
  throw argument_error(problem);
}

void pack_word(value_packer& packer, const type& wanted, const std::string& word) {
  const bool file = word.size() > 1 && word[0] == '@';
  const bool bytes = wanted.kind == kind::binary || wanted.kind == kind::blob;
  if (file && wanted.kind == kind::handle) return packer.pack_file(word);
  if (file && bytes) return packer.pack_bytes(contents(word.substr(1)));

  const json value = json::parse(word, nullptr, false);
  if (value.is_discarded()) return pack_bare_word(packer, wanted, word);
  const bool text_wanted = wanted.kind == kind::text || bytes;
  if (text_wanted && value.is_primitive() && !value.is_string() && !(value.is_null() && wanted.optional)) {
    // The commonest slip: a text that happens to be a number or one of JSON's words.
    throw argument_error("expected " + to_string(wanted) + ", got " + kind_of(value) + "; write '\"" + word +
                         "\"' for the text " + word);
  }
  packer.pack(wanted, value);
}

void pack_input(value_packer& packer, const type& wanted, const std::string& path) {
  if (wanted.kind == kind::handle) {
    unique_fd file(path == "-" ? ::fcntl(0, F_DUPFD_CLOEXEC, 3)
                               : ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY));
    if (!file) throw std::runtime_error(path + " can't be opened: " + std::generic_category().message(errno));
    return packer.pack_handle(std::move(file));
  }
  const auto bytes = contents(path);
  if (wanted.kind == kind::text) return packer.pack_text({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  if (wanted.kind != kind::binary && wanted.kind != kind::blob && wanted.kind != kind::any)
    throw argument_error("expected " + to_string(wanted) + ", but --in gives bytes");
  packer.pack_bytes(bytes);
}

void check_count(const method_info& method, const signature& wanted, std::size_t given) {
  const std::size_t most = wanted.parameters.size(), least = wanted.required();
  if (given >= least && given <= most) return;
  const std::string count =
      least == most ? plural(most, "argument") : std::to_string(least) + " to " + plural(most, "argument");
  throw argument_error("'" + method.name + "' takes " + count + ", got " + std::to_string(given) + "\n" +
                       described(method));
}

// Counts what is given, and has `pack` pack one argument after the other.
template <class F>
packed_arguments pack_each(const method_info& method, std::size_t given, F pack) {
  auto wanted = parse_signature(method.signature);
  if (wanted) check_count(method, *wanted, given);
  else wanted.emplace().parameters.resize(given);

  packed_arguments out;
  value_packer packer(out);
  packer.begin(given);
  for (std::size_t i = 0; i < given; ++i) {
    const parameter& each = wanted->parameters[i];
    try {
      pack(packer, each.type, i);
    } catch (const argument_error& error) {
      throw argument_error("argument " + std::to_string(i + 1) + (each.name.empty() ? "" : " (" + each.name + ")") +
                           " of '" + method.name + "': " + error.what() + "\n" + described(method));
    }
  }
  return out;
}

}  // namespace

packed_arguments make_arguments(const method_info& method, const std::vector<std::string>& words,
                                const std::optional<std::string>& input) {
  return pack_each(method, words.size() + (input ? 1 : 0),
                   [&](value_packer& packer, const type& wanted, std::size_t i) {
                     if (input && i == 0) pack_input(packer, wanted, *input);
                     else pack_word(packer, wanted, words[i - (input ? 1 : 0)]);
                   });
}

packed_arguments make_arguments(const method_info& method, const std::vector<json>& values, unique_fd handle) {
  auto value = values.begin();
  return pack_each(method, values.size() + (handle ? 1 : 0),
                   [&](value_packer& packer, const type& wanted, std::size_t) {
                     if (handle && (wanted.kind == kind::handle || value == values.end())) {
                       if (wanted.kind != kind::handle)
                         throw argument_error("expected " + to_string(wanted) + ", got a handle");
                       packer.pack_handle(std::move(handle));
                       handle.reset();
                     } else {
                       packer.pack(wanted, *value++);
                     }
                   });
}

std::vector<std::uint8_t> make_item(const type& wanted, const std::string& line, std::size_t number) {
  packed_arguments out;
  value_packer packer(out);
  try {
    if (wanted.kind == kind::handle) throw argument_error("a stream can't carry handles");
    pack_word(packer, wanted, line);
  } catch (const argument_error& error) {
    throw argument_error("line " + std::to_string(number) + " of the standard input: " + error.what());
  }
  return out.params.take();
}

}  // namespace bulkhead::cli
