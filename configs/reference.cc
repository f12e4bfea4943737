#include "configs/reference.h"

#include <set>
#include <sstream>
#include <vector>

#include <fmt/format.h>
#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor.pb.h>

#include "base/error.h"

namespace sprocket::config {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::EnumDescriptor;
using google::protobuf::FieldDescriptor;

class Writer {
 public:
  std::string write(const Descriptor& root) {
    collect(root);
    text_ =
        "# The job description\n"
        "\n"
        "Every job is one file in protobuf text format; `configs/` holds complete ones. Fields "
        "that are not "
        "given have the defaults below; `sprocket train --config FILE --dry-run` prints a job with "
        "all of "
        "them written out. Any field can be changed on the command line: `--set 'parallel.ulysses: "
        "2'`, "
        "`--set 'attention { method: VSA vsa { sparsity { start: 0.9 } } }'`; a repeated field "
        "given there "
        "replaces "
        "the file's. Unknown fields, wrong types and illegal combinations are refused before any "
        "work, all "
        "at once, with their places and the legal values.\n"
        "\n"
        "This page is written from the comments of `configs/*.proto` by `ninja "
        "config_reference`.\n";
    for (const Descriptor* message : messages_) write_message(*message);
    if (!missing_.empty()) throw InternalError("no comment on " + missing_);
    return text_;
  }

 private:
  // Depth first, in the order of the fields: a message stands after the one that uses it.
  void collect(const Descriptor& message) {
    if (!seen_.insert(&message).second) return;
    messages_.push_back(&message);
    for (int i = 0; i < message.field_count(); ++i) {
      if (message.field(i)->message_type()) collect(*message.field(i)->message_type());
    }
  }

  // The comment above a declaration, as one line.
  template <class Declaration>
  std::string comment_of(const Declaration& declaration) {
    google::protobuf::SourceLocation location;
    std::string line;
    if (declaration.GetSourceLocation(&location)) {
      std::istringstream words(location.leading_comments);
      for (std::string word; words >> word;) {
        if (!line.empty()) line += ' ';
        line += word;
      }
    }
    if (line.empty()) {
      if (!missing_.empty()) missing_ += ", ";
      missing_ += declaration.full_name();
    }
    for (size_t at = 0; (at = line.find('|', at)) != std::string::npos; at += 2)
      line.insert(at, 1, '\\');
    return line;
  }

  static std::string link(const Descriptor& message) {
    std::string anchor;
    for (const char c : message.name()) anchor += static_cast<char>(std::tolower(c));
    return fmt::format("[{}](#{})", message.name(), anchor);
  }

  static std::string type_of(const FieldDescriptor& field) {
    std::string type;
    switch (field.cpp_type()) {
      case FieldDescriptor::CPPTYPE_INT32:
      case FieldDescriptor::CPPTYPE_INT64:
        type = "integer";
        break;
      case FieldDescriptor::CPPTYPE_UINT32:
      case FieldDescriptor::CPPTYPE_UINT64:
        type = "integer >= 0";
        break;
      case FieldDescriptor::CPPTYPE_DOUBLE:
      case FieldDescriptor::CPPTYPE_FLOAT:
        type = "number";
        break;
      case FieldDescriptor::CPPTYPE_BOOL:
        type = "true or false";
        break;
      case FieldDescriptor::CPPTYPE_STRING:
        type = "string";
        break;
      case FieldDescriptor::CPPTYPE_ENUM:
        type = "name";
        break;
      case FieldDescriptor::CPPTYPE_MESSAGE:
        type = link(*field.message_type());
        break;
    }
    return field.is_repeated() ? type + ", repeated" : type;
  }

  static std::string default_of(const FieldDescriptor& field) {
    if (field.is_repeated() || field.message_type() || !field.has_default_value()) return "";
    switch (field.cpp_type()) {
      case FieldDescriptor::CPPTYPE_INT32:
        return fmt::format("{}", field.default_value_int32());
      case FieldDescriptor::CPPTYPE_INT64:
        return fmt::format("{}", field.default_value_int64());
      case FieldDescriptor::CPPTYPE_UINT32:
        return fmt::format("{}", field.default_value_uint32());
      case FieldDescriptor::CPPTYPE_UINT64:
        return fmt::format("{}", field.default_value_uint64());
      case FieldDescriptor::CPPTYPE_DOUBLE:
        return fmt::format("{}", field.default_value_double());
      case FieldDescriptor::CPPTYPE_FLOAT:
        return fmt::format("{}", field.default_value_float());
      case FieldDescriptor::CPPTYPE_BOOL:
        return field.default_value_bool() ? "true" : "false";
      case FieldDescriptor::CPPTYPE_STRING:
        return field.default_value_string();
      case FieldDescriptor::CPPTYPE_ENUM:
        return field.default_value_enum()->name();
      case FieldDescriptor::CPPTYPE_MESSAGE:
        return "";
    }
    return "";
  }

  void write_message(const Descriptor& message) {
    text_ +=
        fmt::format("\n## {}\n\n{}\n\n| field | type | default | meaning |\n|---|---|---|---|\n",
                    message.name(), comment_of(message));
    for (int i = 0; i < message.field_count(); ++i) {
      const FieldDescriptor& field = *message.field(i);
      std::string meaning = comment_of(field);
      if (field.enum_type()) meaning += values_of(*field.enum_type());
      text_ += fmt::format("| `{}` | {} | {} | {} |\n", field.name(), type_of(field),
                           default_of(field), meaning);
    }
  }

  std::string values_of(const EnumDescriptor& type) {
    std::string text;
    for (int i = 0; i < type.value_count(); ++i) {
      text += fmt::format("<br>`{}`: {}", type.value(i)->name(), comment_of(*type.value(i)));
    }
    return text;
  }

  std::vector<const Descriptor*> messages_;
  std::set<const Descriptor*> seen_;
  std::string text_, missing_;
};

}  // namespace

std::string reference_markdown(const google::protobuf::FileDescriptorSet& files) {
  google::protobuf::DescriptorPool pool;
  for (const auto& file : files.file()) {
    SPROCKET_CHECK(pool.BuildFile(file) != nullptr, "{} does not build", file.name());
  }
  const Descriptor* root = pool.FindMessageTypeByName("sprocket.config.Job");
  SPROCKET_CHECK(root != nullptr, "sprocket.config.Job is missing");
  return Writer().write(*root);
}

}  // namespace sprocket::config
