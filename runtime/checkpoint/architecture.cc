#include "runtime/checkpoint/architecture.h"

#include <fmt/ranges.h>
#include <google/protobuf/text_format.h>

#include "base/error.h"
#include "configs/attention_rules.h"

namespace sprocket::runtime {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

std::string value_text(const Message& message, const FieldDescriptor* field) {
  std::string text;
  google::protobuf::TextFormat::PrintFieldValueToString(message, field, -1, &text);
  return text;
}

void compare(const Message& checkpoint, const Message& job, const std::string& path,
             std::vector<std::string>& differences) {
  for (int i = 0; i < checkpoint.GetDescriptor()->field_count(); ++i) {
    const FieldDescriptor* field = checkpoint.GetDescriptor()->field(i);
    const std::string field_path = path + "." + field->name();
    if (field_path == "model.weights") continue;
    if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      compare(checkpoint.GetReflection()->GetMessage(checkpoint, field),
              job.GetReflection()->GetMessage(job, field), field_path, differences);
      continue;
    }
    const std::string theirs = value_text(checkpoint, field), ours = value_text(job, field);
    if (theirs != ours) {
      differences.push_back(fmt::format("{}: checkpoint {}, job {}", field_path, theirs, ours));
    }
  }
}

std::string gate_text(const config::Attention& attention) {
  const bool coarse = config::has_coarse_gate(attention), fine = config::has_fine_gate(attention);
  if (!coarse && !fine) return "no gates";
  return coarse && fine ? "a coarse and a fine gate" : coarse ? "a coarse gate" : "a fine gate";
}

std::string adapters_text(const config::Lora& lora) {
  if (lora.rank() == 0) return "no adapters";
  const double alpha = lora.alpha() > 0 ? lora.alpha() : lora.rank();
  return fmt::format("adapters of rank {}, alpha {}, of {}", lora.rank(), alpha,
                     lora.target().empty() ? "the layers by default"
                                           : fmt::format("{}", fmt::join(lora.target(), ", ")));
}

void compare_adapters(const std::string& path, const config::Lora& checkpoint,
                      const config::Lora& job, std::vector<std::string>& differences) {
  const std::string theirs = adapters_text(checkpoint), ours = adapters_text(job);
  if (theirs == ours) return;
  differences.push_back(fmt::format("{}: checkpoint has {}, job {}", path, theirs, ours));
}

}  // namespace

std::vector<std::string> model_differences(const config::Job& checkpoint, const config::Job& job) {
  std::vector<std::string> differences;
  compare(checkpoint.model(), job.model(), "model", differences);
  return differences;
}

std::vector<std::string> architecture_differences(const config::Job& checkpoint,
                                                  const config::Job& job) {
  std::vector<std::string> differences = model_differences(checkpoint, job);
  const std::string theirs = gate_text(checkpoint.attention()), ours = gate_text(job.attention());
  if (theirs != ours) {
    differences.push_back(
        fmt::format("attention.method, attention.vsa.coarse, attention.vsa.fine_gate: checkpoint "
                    "has {}, job {}",
                    theirs, ours));
  }
  compare_adapters("training.lora", checkpoint.training().lora(), job.training().lora(),
                   differences);
  if (checkpoint.has_distillation() && job.has_distillation()) {
    compare_adapters("distillation.fake_score.lora", checkpoint.distillation().fake_score().lora(),
                     job.distillation().fake_score().lora(), differences);
  }
  return differences;
}

std::vector<std::string> layout_differences(const config::Job& checkpoint, const config::Job& job) {
  const config::Attention &theirs = checkpoint.attention(), &ours = job.attention();
  std::vector<std::string> differences;
  if (theirs.method() == config::Attention::DENSE && ours.method() != config::Attention::DENSE) {
    return differences;
  }
  const auto expect_equal = [&](const char* path, const auto& their, const auto& our) {
    if (their == our) return;
    differences.push_back(fmt::format("{}: checkpoint {}, job {}", path, their, our));
  };
  expect_equal("attention.order", config::Attention::Order_Name(theirs.order()),
               config::Attention::Order_Name(ours.order()));
  const bool runs = ours.order() == config::Attention::HILBERT;
  const bool cubes = theirs.order() != config::Attention::HILBERT;
  if (runs && !cubes) {
    expect_equal("attention.block_tokens", theirs.block_tokens(), ours.block_tokens());
  } else if (!runs && cubes) {
    const auto text = [](const config::Cube& cube) {
      return fmt::format("{} x {} x {}", cube.t(), cube.h(), cube.w());
    };
    expect_equal("attention.cube", text(theirs.cube()), text(ours.cube()));
  }
  expect_equal("attention.domains", theirs.domains(), ours.domains());
  return differences;
}

void check_architecture(const std::string& checkpoint_path, const config::Job& checkpoint,
                        const config::Job& job) {
  const std::vector<std::string> differences = architecture_differences(checkpoint, job);
  if (!differences.empty()) {
    throw InputError(fmt::format("{}: a checkpoint of another architecture:\n  {}", checkpoint_path,
                                 fmt::join(differences, "\n  ")));
  }
  const std::vector<std::string> layout = layout_differences(checkpoint, job);
  if (!layout.empty()) {
    throw InputError(fmt::format(
        "{}: a checkpoint of another layout of the tokens:\n  {}\n  the weights alone start a new "
        "run with model.weights: \"{}/model\"",
        checkpoint_path, fmt::join(layout, "\n  "), checkpoint_path));
  }
}

}  // namespace sprocket::runtime
