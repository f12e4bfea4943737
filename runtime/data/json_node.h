// Reading JSON that was written by somebody else: every refusal says where it is, what was expected
// and what was found.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <set>
#include <string>
#include <vector>

namespace sprocket::data {

// What JSON numbers hold everywhere, and what an int holds.
inline constexpr int64_t kLargestJsonInteger = int64_t{1} << 53;
inline constexpr int64_t kLargestInt = (int64_t{1} << 31) - 1;

// Throws InputError naming `file` for text that is no JSON, or nested deeper than any index is.
nlohmann::ordered_json parse_json(const std::string& text, const std::string& file);

// A JSON value that knows where it is. Everything throws InputError naming the file and the path
// of the value. The JSON and the file's name must outlive it.
class JsonNode {
 public:
  JsonNode(const nlohmann::ordered_json& json, const std::string& file, std::string path = "");

  [[noreturn]] void fail(const std::string& expected) const;

  // A field of an object that has it.
  JsonNode at(const std::string& key) const;
  bool has(const std::string& key) const;
  // An object without any other keys.
  void require_keys_of(const std::set<std::string>& known) const;
  std::vector<JsonNode> list() const;
  std::string text() const;
  bool truth() const;
  int64_t integer(int64_t low, int64_t high) const;  // both included
  double number() const;                             // finite
  double positive() const;                           // finite, > 0
  bool is_null() const;
  // The name of a file in the index's own folder.
  std::string file_name() const;

 private:
  const nlohmann::ordered_json& json_;
  const std::string& file_;
  std::string path_;
};

}  // namespace sprocket::data
