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

bool absent_by_default(const google::protobuf::Descriptor& type) {
  for (const auto* absent :
       {LatentExtents::descriptor(), AttentionProblem::descriptor(), Distillation::descriptor(),
        Vsa::descriptor(), Bsa::descriptor(), Psa::descriptor(), Asa::descriptor(),
        SlidingTile::descriptor(), CogVideoX::descriptor(), FlowMatching::descriptor(),
        Ddpm::descriptor(), Lora::descriptor()}) {
    if (&type == absent) return true;
  }
  return false;
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
    } else if (!absent_by_default(*field.message_type()) || reflection.HasField(message, &field)) {
      set_unset_fields(*reflection.MutableMessage(&message, &field));
    }
  }
}

void complete_schedule(Schedule& schedule, double default_start) {
  if (!schedule.has_start()) schedule.set_start(default_start);
  if (!schedule.has_end()) schedule.set_end(schedule.start());
}

void complete_list(google::protobuf::RepeatedField<double>& list,
                   std::initializer_list<double> defaults) {
  if (list.empty()) list.Add(defaults.begin(), defaults.end());
}

// Defaults that depend on other fields, and those that the schema cannot state. The options of a
// method are written out when it is chosen or they were given in part.
void complete_attention(Attention& attention) {
  const Attention::Method method = attention.method();
  const bool curve = method == Attention::PSA || method == Attention::ASA;
  if (!attention.has_order()) attention.set_order(curve ? Attention::HILBERT : Attention::KD);
  if (attention.max_coverage().empty()) attention.add_max_coverage();
  for (Schedule& schedule : *attention.mutable_max_coverage()) {
    complete_schedule(schedule, 1);
    set_unset_fields(schedule);
  }
  if (method == Attention::VSA || attention.has_vsa()) {
    complete_schedule(*attention.mutable_vsa()->mutable_sparsity(), 0);
  }
  if (method == Attention::BSA || attention.has_bsa()) {
    Bsa& bsa = *attention.mutable_bsa();
    complete_schedule(*bsa.mutable_keep_ratio(), 0.5);
    complete_schedule(*bsa.mutable_sparsity(), 0.9);
    if (!bsa.has_min_blocks()) bsa.set_min_blocks(bsa.rule() == Bsa::MASS ? 4 : 1);
  }
  if (method == Attention::PSA || attention.has_psa()) {
    Psa& psa = *attention.mutable_psa();
    complete_list(*psa.mutable_threshold(), {0.5, 0.6, 0.7, 0.8});
    complete_list(*psa.mutable_quota(), {0.1, 0.05, 0.0, 0.2});
    complete_list(*psa.mutable_similarity(), {0.7, 0.65, 0.6});
  }
  if (method == Attention::ASA) attention.mutable_asa();
  if (method == Attention::SLIDING_TILE || attention.has_sliding_tile()) {
    Window& window = *attention.mutable_sliding_tile()->mutable_window();
    if (!window.has_t()) window.set_t(3);
    if (!window.has_h()) window.set_h(3);
    if (!window.has_w()) window.set_w(3);
  }
}

// What a network beside the student has unless it is given; the student's is complete.
void complete_role(const Job& job, const Attention& attention, Role& role) {
  if (!role.has_attention()) *role.mutable_attention() = attention;
  Attention& own = *role.mutable_attention();
  const Attention& student = job.attention();
  if (!own.has_order()) own.set_order(student.order());
  if (!own.has_cube()) *own.mutable_cube() = student.cube();
  if (!own.has_block_tokens()) own.set_block_tokens(student.block_tokens());
  if (!own.has_domains()) own.set_domains(student.domains());
  complete_attention(own);
  if (!role.has_parallel()) *role.mutable_parallel() = job.parallel();
  if (!role.has_optimizer()) *role.mutable_optimizer() = job.training().optimizer();
}

void complete_distillation(Job& job) {
  Distillation& distillation = *job.mutable_distillation();
  const bool sparse_fake = distillation.recipe() == Distillation::TDM;
  complete_role(job, Attention(), *distillation.mutable_teacher());
  complete_role(job, sparse_fake ? job.attention() : Attention(),
                *distillation.mutable_fake_score());
  Role& fake_score = *distillation.mutable_fake_score();
  if (!fake_score.has_lora() && job.training().has_lora()) {
    *fake_score.mutable_lora() = job.training().lora();
    fake_score.mutable_lora()->clear_weights();  // the student's
  }
  complete_list(*distillation.mutable_dmd2()->mutable_timestep(), {1000, 750, 500, 250});
}

// The parts that only one family of models has.
void complete_family(Job& job) {
  switch (job.model().family()) {
    case Model::WAN:
      job.mutable_flow();
      return;
    case Model::COGVIDEOX:
      job.mutable_model()->mutable_cogvideox();
      job.mutable_ddpm();
      return;
  }
}

void complete_sampling(const Model& model, Sampling& sampling) {
  if (!sampling.has_sampler() && model.family() == Model::COGVIDEOX) {
    sampling.set_sampler(Sampling::DDIM);
  }
  if (sampling.has_schedule()) return;
  sampling.set_schedule(sampling.sampler() == Sampling::UNIPC ? Sampling::DIFFUSERS_UNIPC
                                                              : Sampling::DIFFUSERS_EULER);
}

}  // namespace

void apply_defaults(Job& job) {
  complete_family(job);
  complete_attention(*job.mutable_attention());
  if (job.has_distillation()) complete_distillation(job);
  complete_sampling(job.model(), *job.mutable_sampling());
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
