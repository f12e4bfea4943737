#include "configs/text_scan.h"

#include <algorithm>
#include <cctype>
#include <limits>
#include <optional>
#include <string_view>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include "configs/spelling.h"

namespace sprocket::config {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::io::Tokenizer;
using Token = Tokenizer::Token;

class LexicalErrors : public google::protobuf::io::ErrorCollector {
 public:
  struct Entry {
    int line, column;
    std::string message;
  };
  void AddError(int line, int column, const std::string& message) override {
    entries.push_back({line, column, message});
  }
  std::vector<Entry> entries;
};

std::vector<std::string> field_names(const Descriptor& type) {
  std::vector<std::string> names;
  for (int i = 0; i < type.field_count(); ++i) names.push_back(type.field(i)->name());
  return names;
}

std::vector<std::string> value_names(const google::protobuf::EnumDescriptor& type) {
  std::vector<std::string> names;
  for (int i = 0; i < type.value_count(); ++i) names.push_back(type.value(i)->name());
  return names;
}

// Paths below `type` of fields with this name: what someone meant who put it into a wrong message.
std::vector<std::string> find_homes(const Descriptor& type, const std::string& name) {
  std::vector<std::string> homes;
  for (int i = 0; i < type.field_count(); ++i) {
    const FieldDescriptor& field = *type.field(i);
    if (field.name() == name) homes.push_back(name);
    if (field.message_type() == nullptr) continue;
    for (const std::string& home : find_homes(*field.message_type(), name)) {
      homes.push_back(field.name() + "." + home);
    }
  }
  return homes;
}

std::string expected_value(const FieldDescriptor& field) {
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return "an integer";
    case FieldDescriptor::CPPTYPE_INT64:
      return "an integer";
    case FieldDescriptor::CPPTYPE_UINT32:
      return "an integer >= 0";
    case FieldDescriptor::CPPTYPE_UINT64:
      return "an integer >= 0";
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return "a number";
    case FieldDescriptor::CPPTYPE_FLOAT:
      return "a number";
    case FieldDescriptor::CPPTYPE_BOOL:
      return "true or false";
    case FieldDescriptor::CPPTYPE_STRING:
      return "a quoted string";
    case FieldDescriptor::CPPTYPE_ENUM:
      return fmt::format("one of {}", fmt::join(value_names(*field.enum_type()), ", "));
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return fmt::format("{{ … }} with some of {}",
                         fmt::join(field_names(*field.message_type()), ", "));
  }
  return "";
}

bool fits_integer(const FieldDescriptor& field, const std::string& digits, bool negative) {
  uint64_t limit = 0;
  if (field.cpp_type() == FieldDescriptor::CPPTYPE_INT32) {
    limit = static_cast<uint64_t>(std::numeric_limits<int32_t>::max()) + (negative ? 1 : 0);
  } else if (field.cpp_type() == FieldDescriptor::CPPTYPE_INT64) {
    limit = static_cast<uint64_t>(std::numeric_limits<int64_t>::max()) + (negative ? 1 : 0);
  } else if (negative) {
    return false;
  } else {
    limit = field.cpp_type() == FieldDescriptor::CPPTYPE_UINT32
                ? std::numeric_limits<uint32_t>::max()
                : std::numeric_limits<uint64_t>::max();
  }
  uint64_t value = 0;
  return Tokenizer::ParseInteger(digits, limit, &value);
}

class Scanner {
 public:
  Scanner(const Descriptor& type, const Source& source) : root_(type), source_(source) {
    google::protobuf::io::ArrayInputStream input(source.text.data(),
                                                 static_cast<int>(source.text.size()));
    LexicalErrors errors;
    Tokenizer tokenizer(&input, &errors);
    tokenizer.set_comment_style(Tokenizer::SH_COMMENT_STYLE);
    tokenizer.set_allow_f_after_float(true);
    tokenizer.set_allow_multiline_strings(false);
    while (tokenizer.Next()) tokens_.push_back(tokenizer.current());
    tokens_.push_back(tokenizer.current());
    for (const auto& error : errors.entries) {
      scan_.problems.push_back({at(error.line, error.column), "", error.message});
      scan_.complete = false;
    }
  }

  Scan run() {
    if (scan_.complete) scan_.complete = read_entries(root_, "", nullptr);
    return std::move(scan_);
  }

 private:
  // ---- tokens
  const Token& token(size_t ahead = 0) const {
    return tokens_[std::min(next_ + ahead, tokens_.size() - 1)];
  }
  bool at_end() const { return token().type == Tokenizer::TYPE_END; }
  bool is_symbol(std::string_view symbol, size_t ahead = 0) const {
    return token(ahead).type == Tokenizer::TYPE_SYMBOL && token(ahead).text == symbol;
  }
  std::string found() const {
    if (at_end()) return source_.is_flag ? "the end" : "the end of the file";
    constexpr size_t kLongest = 40;
    const std::string& text = token().text;
    return text.size() <= kLongest ? text : text.substr(0, kLongest) + "…";
  }
  Location at(int line, int column) const {
    if (source_.is_flag) return {source_.name, 0, 0};
    return {source_.name, line + 1, column + 1};
  }
  Location here() const { return at(token().line, token().column); }

  void report(Location location, const std::string& path, std::string message) {
    scan_.problems.push_back({std::move(location), path, std::move(message)});
  }
  bool broken(const std::string& path, std::string message) {
    report(here(), path, std::move(message));
    return false;
  }

  // ---- grammar; functions return false when the rest cannot be read

  // Entries up to the closing token (`open` is the opening one), or to the end of the text.
  bool read_entries(const Descriptor& type, const std::string& prefix, const Token* open) {
    std::map<std::string, Token> seen;
    const std::string close = open == nullptr ? "" : (open->text == "{" ? "}" : ">");
    while (true) {
      if (at_end()) {
        if (open == nullptr) return true;
        return broken(path_of(prefix),
                      fmt::format("expected {} for the {} at {}, found {}", close, open->text,
                                  at(open->line, open->column).to_string(), found()));
      }
      if (open != nullptr && is_symbol(close)) return true;
      if (token().type != Tokenizer::TYPE_IDENTIFIER) {
        return broken(path_of(prefix), fmt::format("expected a field's name, found {}", found()));
      }
      if (!read_entry(type, prefix, seen, open == nullptr && source_.is_flag)) return false;
      if (is_symbol(",") || is_symbol(";")) ++next_;
    }
  }

  bool read_entry(const Descriptor& type, const std::string& prefix,
                  std::map<std::string, Token>& seen, bool dotted) {
    const Token name = token();
    std::string path = prefix + name.text;
    const Location location = here();
    const FieldDescriptor* field = type.FindFieldByName(name.text);
    if (field && field->is_repeated() && field->message_type()) {
      path += fmt::format("[{}]", repeated_[path]++);
    }
    ++next_;
    if (field == nullptr) {
      while (is_symbol(".") && token(1).type == Tokenizer::TYPE_IDENTIFIER) next_ += 2;
      report(location, path, unknown_field(type, prefix, name.text));
      return skip_value(path);
    }
    if (dotted && is_symbol(".")) {
      ++next_;
      if (field->message_type() == nullptr) {
        report(location, path, fmt::format("has no fields; expected {}", expected_value(*field)));
        while (token().type == Tokenizer::TYPE_IDENTIFIER || is_symbol(".")) ++next_;
        return skip_value(path);
      }
      if (token().type != Tokenizer::TYPE_IDENTIFIER) {
        return broken(path,
                      fmt::format("expected a field's name after the dot, found {}", found()));
      }
      scan_.accepted += name.text + " {\n";
      // In a flag the same message may be named in several entries; its fields may not.
      const bool readable = read_entry(*field->message_type(), path + ".", flag_seen_[path], true);
      scan_.accepted += "}\n";
      return readable;
    }
    const bool may_repeat = field->is_repeated() || (source_.is_flag && field->message_type());
    if (!may_repeat) {
      const auto [first, is_new] = seen.emplace(name.text, name);
      if (!is_new) {
        report(location, path,
               source_.is_flag ? "given twice; expected once"
                               : fmt::format("given twice; expected once, first found in line {}",
                                             first->second.line + 1));
        scan_.rejected.insert(path);
        return skip_value(path);
      }
    }
    scan_.locations.emplace(path, location);
    return field->message_type() ? read_message(*field, path) : read_scalar_or_list(*field, path);
  }

  bool read_message(const FieldDescriptor& field, const std::string& path) {
    const size_t start = next_;
    if (is_symbol(":")) ++next_;
    if (!is_symbol("{") && !is_symbol("<")) {
      report(here(), path, fmt::format("expected {}, found {}", expected_value(field), found()));
      scan_.rejected.insert(path);
      next_ = start;
      return skip_value(path);
    }
    const Token open = token();
    ++next_;
    scan_.accepted += field.name() + " {\n";
    const bool readable = read_entries(*field.message_type(), path + ".", &open);
    scan_.accepted += "}\n";
    if (readable) ++next_;
    return readable;
  }

  bool read_scalar_or_list(const FieldDescriptor& field, const std::string& path) {
    if (!is_symbol(":")) {
      report(here(), path,
             fmt::format("expected : and {}, found {}", expected_value(field), found()));
      scan_.rejected.insert(path);
      return skip_value(path);
    }
    ++next_;
    if (!field.is_repeated() || !is_symbol("[")) return read_scalar(field, path);
    ++next_;
    if (is_symbol("]")) {
      ++next_;
      return true;
    }
    while (true) {
      if (!read_scalar(field, path)) return false;
      if (is_symbol("]")) break;
      if (!is_symbol(",")) return broken(path, fmt::format("expected , or ], found {}", found()));
      ++next_;
    }
    ++next_;
    return true;
  }

  // One value; a wrong one is reported and skipped.
  bool read_scalar(const FieldDescriptor& field, const std::string& path) {
    const Location location = here();
    if (next_entry_begins() || at_end() || is_symbol("}") || is_symbol(">")) {
      report(location, path, fmt::format("expected {}, found no value", expected_value(field)));
      scan_.rejected.insert(path);
      return true;
    }
    const std::string first = found();
    size_t length = 0;
    const std::optional<std::string> value = match_scalar(field, length);
    if (value) {
      scan_.accepted += fmt::format("{}: {}\n", field.name(), *value);
      next_ += length;
      return true;
    }
    scan_.rejected.insert(path);
    const std::string whole =
        is_symbol("-") ? "-" + tokens_[std::min(next_ + 1, tokens_.size() - 1)].text : first;
    std::string message = fmt::format("expected {}, found {}", expected_value(field), whole);
    if (field.enum_type() && token().type == Tokenizer::TYPE_IDENTIFIER) {
      const std::string near = nearest_name(token().text, value_names(*field.enum_type()));
      if (!near.empty()) message += fmt::format("; did you mean {}?", near);
    }
    report(location, path, message);
    return skip_one_value(path);
  }

  // The text of the value that starts here if it is one of the field's type; its length in tokens.
  std::optional<std::string> match_scalar(const FieldDescriptor& field, size_t& length) const {
    const bool negative = is_symbol("-");
    const Token& first = token(negative ? 1 : 0);
    length = negative ? 2 : 1;
    const std::string sign = negative ? "-" : "";
    switch (field.cpp_type()) {
      case FieldDescriptor::CPPTYPE_INT32:
      case FieldDescriptor::CPPTYPE_INT64:
      case FieldDescriptor::CPPTYPE_UINT32:
      case FieldDescriptor::CPPTYPE_UINT64:
        if (first.type != Tokenizer::TYPE_INTEGER) return std::nullopt;
        if (!fits_integer(field, first.text, negative)) return std::nullopt;
        return sign + first.text;
      case FieldDescriptor::CPPTYPE_DOUBLE:
      case FieldDescriptor::CPPTYPE_FLOAT: {
        const bool plain = first.type == Tokenizer::TYPE_FLOAT ||
                           (first.type == Tokenizer::TYPE_INTEGER &&
                            (first.text.size() == 1 || first.text[0] != '0'));
        if (!plain) return std::nullopt;
        // Overflows to infinity are refused: every number of a job is finite.
        if (std::abs(Tokenizer::ParseFloat(first.text)) > std::numeric_limits<double>::max()) {
          return std::nullopt;
        }
        return sign + first.text;
      }
      case FieldDescriptor::CPPTYPE_BOOL:
        if (negative || (first.text != "true" && first.text != "false")) return std::nullopt;
        return first.text;
      case FieldDescriptor::CPPTYPE_ENUM:
        if (negative || !field.enum_type()->FindValueByName(first.text)) return std::nullopt;
        return first.text;
      case FieldDescriptor::CPPTYPE_STRING: {
        if (negative || first.type != Tokenizer::TYPE_STRING) return std::nullopt;
        std::string text = first.text;
        for (; token(length).type == Tokenizer::TYPE_STRING; ++length) {
          text += " " + token(length).text;
        }
        return text;
      }
      case FieldDescriptor::CPPTYPE_MESSAGE:
        return std::nullopt;
    }
    return std::nullopt;
  }

  // A name followed by what only an entry has: the value before it was forgotten.
  bool next_entry_begins() const {
    return token().type == Tokenizer::TYPE_IDENTIFIER && (is_symbol(":", 1) || is_symbol("{", 1));
  }

  // After a field's name: skips [:] value.
  bool skip_value(const std::string& path) {
    if (is_symbol(":")) ++next_;
    if (next_entry_begins() || at_end() || is_symbol("}")) return true;
    return skip_one_value(path);
  }

  bool skip_one_value(const std::string& path) {
    if (is_symbol("{") || is_symbol("<") || is_symbol("[")) return skip_brackets(path);
    if (is_symbol("-")) ++next_;
    if (token().type == Tokenizer::TYPE_STRING) {
      while (token().type == Tokenizer::TYPE_STRING) ++next_;
      return true;
    }
    if (at_end() || token().type == Tokenizer::TYPE_SYMBOL) {
      return broken(path, fmt::format("expected a value, found {}", found()));
    }
    ++next_;
    return true;
  }

  bool skip_brackets(const std::string& path) {
    const Token open = token();
    std::string closing;
    do {
      if (at_end()) {
        return broken(path, fmt::format("expected the end of the {} at {}, found {}", open.text,
                                        at(open.line, open.column).to_string(), found()));
      }
      if (is_symbol("{")) closing += '}';
      if (is_symbol("<")) closing += '>';
      if (is_symbol("[")) closing += ']';
      if (is_symbol("}") || is_symbol(">") || is_symbol("]")) {
        if (token().text[0] != closing.back()) {
          return broken(path, fmt::format("expected {}, found {}", closing.back(), found()));
        }
        closing.pop_back();
      }
      ++next_;
    } while (!closing.empty());
    return true;
  }

  // A field that messages deeper down have as well is meant where the job itself has it.
  static void keep_shallowest(std::vector<std::string>& paths) {
    const auto depth = [](const std::string& path) { return std::ranges::count(path, '.'); };
    if (paths.empty()) return;
    const auto least = depth(*std::ranges::min_element(paths, {}, depth));
    std::erase_if(paths, [&](const std::string& path) { return depth(path) > least; });
  }

  std::string unknown_field(const Descriptor& type, const std::string& prefix,
                            const std::string& name) const {
    const std::vector<std::string> names = field_names(type);
    std::string message = "unknown field";
    if (const std::string near = nearest_name(name, names); !near.empty()) {
      message += fmt::format("; did you mean {}?", near);
    } else {
      std::vector<std::string> homes = find_homes(root_, name);
      keep_shallowest(homes);
      if (!homes.empty()) message += fmt::format("; did you mean {}?", fmt::join(homes, " or "));
    }
    std::string root = root_.name();
    root.front() = static_cast<char>(std::tolower(root.front()));
    return message + fmt::format("; fields of {}: {}",
                                 prefix.empty() ? fmt::format("a {}", root) : path_of(prefix),
                                 fmt::join(names, ", "));
  }

  static std::string path_of(const std::string& prefix) {
    return prefix.empty() ? "" : prefix.substr(0, prefix.size() - 1);
  }

  const Descriptor& root_;
  const Source& source_;
  std::vector<Token> tokens_;
  size_t next_ = 0;
  std::map<std::string, std::map<std::string, Token>> flag_seen_;
  std::map<std::string, int> repeated_;  // messages read so far, by path
  Scan scan_;
};

}  // namespace

std::string Location::to_string() const {
  return line == 0 ? source : fmt::format("{}:{}:{}", source, line, column);
}

std::string Problem::to_string() const {
  std::string text = location.to_string();
  if (!path.empty()) text += (text.empty() ? "" : ": ") + path;
  return text + (text.empty() ? "" : ": ") + message;
}

Scan scan_text(const google::protobuf::Descriptor& type, const Source& source) {
  return Scanner(type, source).run();
}

}  // namespace sprocket::config
