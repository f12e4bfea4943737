#include "runtime/checkpoint/state_text.h"

#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/text_format.h>

#include "base/error.h"

namespace sprocket::runtime {
namespace {

// Unknown fields, too, are read by recursion. The state's own go four levels deep.
constexpr int kDeepest = 64;

// Keeps the first error and drops warnings, which would go to stderr otherwise.
class FirstError : public google::protobuf::io::ErrorCollector {
 public:
  void AddError(int line, int column, const std::string& message) override {
    if (text_.empty()) text_ = fmt::format("{}:{}: {}", line + 1, column + 1, message);
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

}  // namespace

CheckpointState parse_state(const std::string& text, const std::string& where) {
  CheckpointState state;
  google::protobuf::TextFormat::Parser parser;
  parser.AllowUnknownField(true);  // so that a newer schema is named instead of its first new field
  parser.SetRecursionLimit(kDeepest);
  FirstError error;
  parser.RecordErrorsTo(&error);
  if (!parser.ParseFromString(text, &state)) {
    throw InputError(fmt::format("{}:{}; expected the state of a checkpoint", where, error.text()));
  }
  if (state.schema() != kCheckpointSchema) {
    throw InputError(
        fmt::format("{}: schema {}, this program reads {}; use the version that wrote it", where,
                    state.schema(), kCheckpointSchema));
  }
  return state;
}

}  // namespace sprocket::runtime
