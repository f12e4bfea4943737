#include "configs/load.h"

#include <algorithm>

#include <fmt/format.h>
#include <google/protobuf/text_format.h>

#include "base/error.h"
#include "configs/defaults.h"
#include "configs/text_file.h"
#include "configs/validate.h"

namespace sprocket::config {
namespace {

// A text-format string literal.
std::string quoted(const std::string& value) {
  std::string text = "\"";
  for (const char c : value) {
    if (c == '"' || c == '\\') text += '\\';
    text += c;
  }
  return text + "\"";
}

// The values of repeated fields that flags give replace those of the file.
void clear_repeated(google::protobuf::Message& message, const google::protobuf::Message& given) {
  const auto& reflection = *given.GetReflection();
  std::vector<const google::protobuf::FieldDescriptor*> fields;
  reflection.ListFields(given, &fields);
  for (const auto* field : fields) {
    if (field->is_repeated()) {
      message.GetReflection()->ClearField(&message, field);
    } else if (field->message_type() && message.GetReflection()->HasField(message, field)) {
      clear_repeated(*message.GetReflection()->MutableMessage(&message, field),
                     reflection.GetMessage(given, field));
    }
  }
}

class Loader {
 public:
  explicit Loader(LoadedJob& loaded) : loaded_(loaded) {}

  void add_file(const Source& source) { merge(source, loaded_.job); }
  void add_flag(const std::string& name, const std::string& text) {
    merge({name, text, true}, from_flags_);
  }

  void finish(const LoadOptions& options) {
    clear_repeated(loaded_.job, from_flags_);
    loaded_.job.MergeFrom(from_flags_);
    apply_defaults(loaded_.job);
    if (complete_) add_violations(find_violations(loaded_.job, options));
    if (problems_.empty()) return;
    std::stable_sort(problems_.begin(), problems_.end(), [&](const Problem& a, const Problem& b) {
      const auto key = [&](const Problem& problem) {
        const auto source = std::find(sources_.begin(), sources_.end(), problem.location.source);
        return std::tuple(source - sources_.begin(), problem.location.line,
                          problem.location.column);
      };
      return key(a) < key(b);
    });
    std::string text;
    for (const Problem& problem : problems_) {
      if (!text.empty()) text += '\n';
      text += problem.to_string();
    }
    throw ConfigError(text);
  }

 private:
  void merge(const Source& source, Job& into) {
    sources_.push_back(source.name);
    Scan scan = scan_text(*Job::descriptor(), source);
    google::protobuf::TextFormat::Parser parser;
    Job part;
    if (!parser.MergeFromString(scan.accepted, &part)) {
      throw InternalError(
          fmt::format("{}: accepted text does not parse:\n{}", source.name, scan.accepted));
    }
    if (source.is_flag) clear_repeated(into, part);
    into.MergeFrom(part);
    for (auto& [path, location] : scan.locations) loaded_.locations[path] = std::move(location);
    rejected_.merge(scan.rejected);
    std::move(scan.problems.begin(), scan.problems.end(), std::back_inserter(problems_));
    complete_ = complete_ && scan.complete;
  }

  // A rule whose field was refused already says nothing new.
  void add_violations(std::vector<Violation> violations) {
    for (Violation& violation : violations) {
      const auto& paths = violation.paths;
      if (std::any_of(paths.begin(), paths.end(),
                      [&](const auto& path) { return is_rejected(path); })) {
        continue;
      }
      const auto given = loaded_.locations.find(paths.front());
      problems_.push_back({given == loaded_.locations.end() ? Location{} : given->second,
                           paths.front(), std::move(violation.message)});
    }
  }

  bool is_rejected(const std::string& path) const {
    return std::any_of(rejected_.begin(), rejected_.end(), [&](const std::string& rejected) {
      return path == rejected || path.starts_with(rejected + ".");
    });
  }

  LoadedJob& loaded_;
  Job from_flags_;
  std::vector<std::string> sources_;
  std::vector<Problem> problems_;
  std::set<std::string> rejected_;
  bool complete_ = true;
};

}  // namespace

std::string LoadedJob::where(const std::string& path) const {
  const auto given = locations.find(path);
  return given == locations.end() ? path : given->second.to_string() + ": " + path;
}

LoadedJob parse_job(const std::string& text, const std::string& name,
                    const std::vector<std::string>& overrides, const LoadOptions& options) {
  LoadedJob loaded;
  loaded.name = name;
  Loader loader(loaded);
  loader.add_file({name, text});
  for (const std::string& override : overrides) {
    loader.add_flag(fmt::format("--set '{}'", override), override);
  }
  if (options.output_directory) {
    loader.add_flag("--output", "output.directory: " + quoted(*options.output_directory));
  }
  if (options.heads) {
    loader.add_flag("--input", fmt::format("model.heads: {} model.dim: {}", *options.heads,
                                           8 * *options.heads));
  }
  loader.finish(options);
  const auto resolve_outer = [&](Parallel& parallel) {
    if (!options.world || parallel.outer() != 0) return;
    parallel.set_outer(*options.world / (parallel.ulysses() * parallel.data()));
  };
  resolve_outer(*loaded.job.mutable_parallel());
  if (loaded.job.has_distillation()) {
    resolve_outer(*loaded.job.mutable_distillation()->mutable_teacher()->mutable_parallel());
    resolve_outer(*loaded.job.mutable_distillation()->mutable_fake_score()->mutable_parallel());
  }
  return loaded;
}

LoadedJob load_job(const std::string& file, const std::vector<std::string>& overrides,
                   const LoadOptions& options) {
  return parse_job(read_text_file(file, "a job description"), file, overrides, options);
}

}  // namespace sprocket::config
