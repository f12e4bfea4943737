#include "configs/defaults.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/text_format.h>

#include "base/error.h"

namespace sprocket::config {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

void set_to_default(Message& message, const FieldDescriptor& field) {
  const google::protobuf::Reflection& reflection = *message.GetReflection();
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return reflection.SetInt32(&message, &field, field.default_value_int32());
    case FieldDescriptor::CPPTYPE_INT64:
      return reflection.SetInt64(&message, &field, field.default_value_int64());
    case FieldDescriptor::CPPTYPE_UINT32:
      return reflection.SetUInt32(&message, &field, field.default_value_uint32());
    case FieldDescriptor::CPPTYPE_UINT64:
      return reflection.SetUInt64(&message, &field, field.default_value_uint64());
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return reflection.SetDouble(&message, &field, field.default_value_double());
    case FieldDescriptor::CPPTYPE_FLOAT:
      return reflection.SetFloat(&message, &field, field.default_value_float());
    case FieldDescriptor::CPPTYPE_BOOL:
      return reflection.SetBool(&message, &field, field.default_value_bool());
    case FieldDescriptor::CPPTYPE_ENUM:
      return reflection.SetEnum(&message, &field, field.default_value_enum());
    case FieldDescriptor::CPPTYPE_STRING:
      return reflection.SetString(&message, &field, field.default_value_string());
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return;
  }
}

void set_unset_fields(Message& message) {
  const google::protobuf::Descriptor& type = *message.GetDescriptor();
  const google::protobuf::Reflection& reflection = *message.GetReflection();
  if (&type == LatentExtents::descriptor()) return;
  for (int i = 0; i < type.field_count(); ++i) {
    const FieldDescriptor& field = *type.field(i);
    if (field.is_repeated()) continue;
    if (field.message_type() == nullptr) {
      if (!reflection.HasField(message, &field)) set_to_default(message, field);
    } else if (field.message_type() != LatentExtents::descriptor() ||
               reflection.HasField(message, &field)) {
      set_unset_fields(*reflection.MutableMessage(&message, &field));
    }
  }
}

void complete_schedule(Schedule& schedule, double default_start) {
  if (!schedule.has_start()) schedule.set_start(default_start);
  if (!schedule.has_end()) schedule.set_end(schedule.start());
}

}  // namespace

void apply_defaults(Job& job) {
  complete_schedule(*job.mutable_attention()->mutable_sparsity(), 0);
  complete_schedule(*job.mutable_attention()->mutable_max_coverage(), 1);
  set_unset_fields(job);
}

std::string to_text(const Job& job) {
  std::string text;
  google::protobuf::TextFormat::Printer printer;
  printer.SetUseUtf8StringEscaping(true);
  SPROCKET_CHECK(printer.PrintToString(job, &text), "a job could not be printed");
  return text;
}

}  // namespace sprocket::config
