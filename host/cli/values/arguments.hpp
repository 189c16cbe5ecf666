// The words of a command line as a call's arguments: each is JSON, and becomes what the method's signature says.
//
//   str, any     a word that is not JSON is text as it stands: hello
//   bin, blob    a JSON string gives its bytes, @FILE the file's contents, {"$bin": "base64"} any bytes
//   handle       @FILE opens the file for reading and passes the descriptor
//   float        takes integers too; everything else is taken strictly, so that a slip is an error and not a call
#pragma once

#include "values/signature.hpp"
#include <bulkhead/plugin.hpp>

#include <nlohmann/json.hpp>

#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

namespace bulkhead::cli {

// What is wrong with the command line. The text names the argument and its position, what was expected and what there was.
class argument_error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Packs `words` for `method`. `input` names a file whose contents come as the first argument, before the words; "-" is
// the standard input. A method without a (valid) signature takes any number of arguments of any type.
packed_arguments make_arguments(const method_info& method, const std::vector<std::string>& words,
                                const std::optional<std::string>& input = std::nullopt);

// The same of JSON values, for another program: no word names a file, and a descriptor, if there is one, is the argument for
// the first parameter that is a handle; the values are the others.
packed_arguments make_arguments(const method_info& method, const std::vector<nlohmann::ordered_json>& values,
                                unique_fd handle);

// A line of text as one item of a stream of arguments, packed; what a line may be is what a word may be. `number`, from 1,
// is for the text of an argument_error.
std::vector<std::uint8_t> make_item(const type& wanted, const std::string& line, std::size_t number);

}  // namespace bulkhead::cli
