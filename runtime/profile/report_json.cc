#include <cerrno>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <nlohmann/json.hpp>
#include <system_error>
#include <type_traits>

#include "base/error.h"
#include "base/json_depth.h"
#include "runtime/profile/report.h"
#include "runtime/profile/report_fields.h"

namespace sprocket::profile {
namespace {

using Json = nlohmann::ordered_json;

template <class T>
constexpr bool kHasFields = std::tuple_size_v<std::remove_const_t<decltype(kFields<T>)>> > 0;
template <class T>
constexpr bool kIsList = false;
template <class T>
constexpr bool kIsList<std::vector<T>> = true;
template <class T>
constexpr bool kIsOptional = false;
template <class T>
constexpr bool kIsOptional<std::optional<T>> = true;

template <class T, class Visitor>
void for_each_field(Visitor&& visit) {
  std::apply([&](const auto&... each) { (visit(each), ...); }, kFields<T>);
}

template <class T>
Json to_json(const T& value, const std::string& path) {
  if constexpr (kIsList<T>) {
    Json list = Json::array();
    for (const auto& item : value) list.push_back(to_json(item, path));
    return list;
  } else if constexpr (kRow<T>) {
    Json list = Json::array();
    for_each_field<T>([&](const auto& each) { list.push_back(to_json(value.*each.member, path)); });
    return list;
  } else if constexpr (kHasFields<T>) {
    Json object = Json::object();
    for_each_field<T>([&](const auto& each) {
      const auto& member = value.*each.member;
      const std::string key = path.empty() ? each.key : path + '.' + each.key;
      if constexpr (kIsOptional<std::remove_cvref_t<decltype(member)>>) {
        if (member) object[each.key] = to_json(*member, key);
      } else {
        object[each.key] = to_json(member, key);
      }
    });
    return object;
  } else if constexpr (std::is_floating_point_v<T>) {
    SPROCKET_CHECK(std::isfinite(value), "{}: {}", path, value);
    return value;
  } else {
    return value;
  }
}

// A JSON value that knows where it is.
struct Place {
  const Json& json;
  const std::string& file;
  std::string path;

  [[noreturn]] void fail(const std::string& expected) const {
    std::string found = json.dump(-1, ' ', true, Json::error_handler_t::replace);
    if (found.size() > 60) found = found.substr(0, 60) + "...";
    throw InputError(fmt::format("{}: {}: expected {}, found {}", file,
                                 path.empty() ? "the profile" : path, expected, found));
  }
  Place at(const Json& value, const std::string& key) const {
    return {value, file, path.empty() ? key : path + '.' + key};
  }
  Place item(size_t index) const { return {json[index], file, fmt::format("{}[{}]", path, index)}; }
};

template <class Integer>
void read_integer(const Place& place, Integer& value) {
  using Limits = std::numeric_limits<Integer>;
  const Json& json = place.json;
  const bool fits = json.is_number_unsigned()
                        ? json.get<uint64_t>() <= static_cast<uint64_t>(Limits::max())
                        : json.is_number_integer() && json.get<int64_t>() >= Limits::min() &&
                              json.get<int64_t>() <= Limits::max();
  if (!fits) place.fail(fmt::format("an integer in {}..{}", Limits::min(), Limits::max()));
  value = json.get<Integer>();
}

template <class T>
void from_json(const Place& place, T& value) {
  const Json& json = place.json;
  if constexpr (kIsList<T>) {
    if (!json.is_array()) place.fail("a list");
    value.resize(json.size());
    for (size_t i = 0; i < json.size(); ++i) from_json(place.item(i), value[i]);
  } else if constexpr (kRow<T>) {
    constexpr size_t kMembers = std::tuple_size_v<std::remove_const_t<decltype(kFields<T>)>>;
    if (!json.is_array() || json.size() != kMembers) {
      place.fail(fmt::format("a list of {} numbers", kMembers));
    }
    size_t index = 0;
    for_each_field<T>(
        [&](const auto& each) { from_json(place.item(index++), value.*each.member); });
  } else if constexpr (kHasFields<T>) {
    if (!json.is_object()) place.fail("an object");
    for_each_field<T>([&](const auto& each) {
      auto& member = value.*each.member;
      const auto found = json.find(each.key);
      if constexpr (kIsOptional<std::remove_cvref_t<decltype(member)>>) {
        if (found != json.end()) from_json(place.at(*found, each.key), member.emplace());
      } else {
        if (found == json.end()) {
          throw InputError(
              fmt::format("{}: {} is missing", place.file,
                          place.path.empty() ? each.key : place.path + '.' + each.key));
        }
        from_json(place.at(*found, each.key), member);
      }
    });
  } else if constexpr (std::is_same_v<T, bool>) {
    if (!json.is_boolean()) place.fail("true or false");
    value = json.get<bool>();
  } else if constexpr (std::is_integral_v<T>) {
    read_integer(place, value);
  } else if constexpr (std::is_floating_point_v<T>) {
    if (!json.is_number()) place.fail("a number");
    value = json.get<T>();
  } else {
    if (!json.is_string()) place.fail("a string");
    value = json.get<std::string>();
  }
}

std::string text_of(const std::string& path) {
  std::error_code error;
  std::ifstream in;
  if (std::filesystem::is_directory(path, error)) {
    error = std::make_error_code(std::errc::is_a_directory);
  } else {
    errno = 0;
    in.open(path, std::ios::binary);
    if (!in) error = {errno, std::generic_category()};
  }
  if (error) throw InputError(fmt::format("{}: cannot be read: {}", path, error.message()));
  return {std::istreambuf_iterator<char>(in), {}};
}

Json parse(const std::string& path) {
  const std::string text = text_of(path);
  try {
    return parse_bounded_json<Json>(text, path);
  } catch (const Json::parse_error& error) {
    if (error.byte > text.size()) {
      throw InputError(fmt::format("{}: truncated: the JSON ends after {} bytes, inside a value",
                                   path, text.size()));
    }
    throw InputError(fmt::format("{}: byte {}: expected JSON, as sprocket writes profile.json",
                                 path, error.byte));
  } catch (const Json::exception& error) {
    throw InputError(fmt::format("{}: {}", path, error.what()));
  }
}

void check_schema(const Json& json, const std::string& path) {
  if (!json.is_object() || !json.contains("schema")) {
    throw InputError(fmt::format(
        "{}: no profile: expected an object with the key \"schema\", as sprocket writes it", path));
  }
  int schema = 0;
  read_integer({json["schema"], path, "schema"}, schema);
  if (schema > kProfileSchema) {
    throw InputError(fmt::format(
        "{}: schema {}, this program reads {}: a newer sprocket wrote it; read it with that one",
        path, schema, kProfileSchema));
  }
  if (schema < kProfileSchema) {
    throw InputError(fmt::format(
        "{}: schema {}, this program reads {}: an older sprocket wrote it; profile the job again",
        path, schema, kProfileSchema));
  }
}

// What programs rely on that take the lists together.
void check_lengths(const Report& report, const std::string& path) {
  const auto expect = [&](const std::string& key, size_t found, size_t expected) {
    if (found == expected) return;
    throw InputError(
        fmt::format("{}: {}: expected {} values, found {}", path, key, expected, found));
  };
  for_each_field<EachStep>([&](const auto& each) {
    expect(fmt::format("each.{}", each.key), (report.each.*each.member).size(),
           report.step.each_seconds.size());
  });
  for (size_t i = 0; i < report.bytes.size(); ++i) {
    expect(fmt::format("bytes[{}]", i), report.bytes[i].size(), report.bytes.size());
  }
  if (!report.timeline) return;
  const auto expect_index = [&](const std::string& key, int found, size_t size) {
    if (found >= 0 && static_cast<size_t>(found) < size) return;
    throw InputError(
        fmt::format("{}: {}: expected an index below {}, found {}", path, key, size, found));
  };
  for (size_t r = 0; r < report.timeline->ranks.size(); ++r) {
    const std::vector<TimelineSpan>& spans = report.timeline->ranks[r].spans;
    for (size_t i = 0; i < spans.size(); ++i) {
      const std::string key = fmt::format("timeline.ranks[{}].spans[{}]", r, i);
      expect_index(key + "[1]", spans[i].name, report.timeline->names.size());
      expect_index(key + "[2]", spans[i].phase, report.phases.size());
    }
  }
}

}  // namespace

std::string report_json(const Report& report) {
  const Json json = to_json(report, "");
  // A key a line, and of lists of rows a row a line: it can be read and compared line by line.
  std::string text;
  for (const auto& [key, value] : json.items()) {
    text += fmt::format("{}\"{}\": ", text.empty() ? "{\n" : ",\n", key);
    const auto dump = [](const Json& part) {
      return part.dump(-1, ' ', false, Json::error_handler_t::replace);
    };
    if (!value.is_array() || value.empty()) {
      text += dump(value);
      continue;
    }
    const char* separator = "[\n ";
    for (const Json& row : value) {
      text += separator + dump(row);
      separator = ",\n ";
    }
    text += "\n]";
  }
  return text + "\n}\n";
}

Report read_report(const std::string& path) {
  const Json json = parse(path);
  check_schema(json, path);
  Report report;
  from_json({json, path, ""}, report);
  check_lengths(report, path);
  return report;
}

}  // namespace sprocket::profile
