#include "runtime/checkpoint/checkpoint_io.h"

#include <google/protobuf/text_format.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/error.h"
#include "base/timeline.h"
#include "models/safetensors/tensor_set.h"
#include "models/safetensors/writer.h"
#include "runtime/checkpoint/durable.h"
#include "runtime/checkpoint/manifest.h"
#include "runtime/checkpoint/run_checkpoints.h"
#include "runtime/jobs/rank_agreement.h"
#include "runtime/media/output_file.h"

namespace sprocket::runtime {
namespace {

namespace fs = std::filesystem;

// Which rank writes which tensors of one kind, and into which file.
class Division {
 public:
  Division(std::string kind, const std::vector<CheckpointTensor>& tensors, int ranks)
      : kind_(std::move(kind)), tensors_(tensors), owner_(tensors.size()) {
    int64_t total = 0;
    for (const CheckpointTensor& tensor : tensors) total += std::ssize(tensor.values);
    // The rank in whose equal share of the elements a tensor's middle falls: never decreasing.
    int64_t before = 0;
    for (size_t i = 0; i < tensors.size(); ++i) {
      const int64_t elements = std::ssize(tensors[i].values);
      const int64_t middle = std::min(before + elements / 2, std::max<int64_t>(total - 1, 0));
      owner_[i] = total == 0 ? 0 : static_cast<int>(middle * ranks / total);
      before += elements;
    }
    for (const int owner : owner_) file_index_.emplace(owner, 0);
    int index = 0;
    for (auto& [owner, file] : file_index_) file = ++index;
  }

  // Relative to the checkpoint; nullopt: the rank has nothing to write.
  std::optional<std::string> file_of(int rank) const {
    const auto found = file_index_.find(rank);
    if (found == file_index_.end()) return std::nullopt;
    if (file_index_.size() == 1) return fmt::format("{0}/{0}.safetensors", kind_);
    return fmt::format("{0}/{0}-{1:05}-of-{2:05}.safetensors", kind_, found->second,
                       file_index_.size());
  }

  void write(const std::string& folder, int rank) const {
    const auto file = file_of(rank);
    if (!file) return;
    std::vector<safetensors::TensorToWrite> own;
    for (size_t i = 0; i < tensors_.size(); ++i) {
      if (owner_[i] != rank) continue;
      const CheckpointTensor& tensor = tensors_[i];
      own.push_back({{tensor.name, safetensors::ElementType::kF32, tensor.shape},
                     std::as_bytes(tensor.values)});
    }
    safetensors::write_file((fs::path(folder) / *file).string(), own, {}, true);
  }

  // The index over several files, and its name; nullopt when one file needs none.
  std::optional<std::pair<std::string, std::string>> index() const {
    if (file_index_.size() <= 1) return std::nullopt;
    nlohmann::json index;
    int64_t bytes = 0;
    for (size_t i = 0; i < tensors_.size(); ++i) {
      index["weight_map"][tensors_[i].name] = fs::path(*file_of(owner_[i])).filename().string();
      bytes += static_cast<int64_t>(tensors_[i].values.size_bytes());
    }
    index["metadata"]["total_size"] = bytes;
    return std::pair(fmt::format("{0}/{0}.safetensors.index.json", kind_), index.dump(1));
  }

 private:
  std::string kind_;
  const std::vector<CheckpointTensor>& tensors_;
  std::vector<int> owner_;
  std::map<int, int> file_index_;  // rank -> number of its file, from 1
};

void write_text(const std::string& folder, const std::string& file, const std::string& text,
                std::vector<ManifestEntry>& entries) {
  media::write_output_file((fs::path(folder) / file).string(), std::as_bytes(std::span(text)));
  entries.push_back(describe_file(folder, file));
}

std::string text_of(const CheckpointState& state) {
  std::string text;
  google::protobuf::TextFormat::PrintToString(state, &text);
  return text;
}

void fill(const safetensors::TensorSet& set, const CheckpointTensor& tensor) {
  const safetensors::TensorInfo& info = set.at(tensor.name);
  if (info.shape != tensor.shape) {
    throw InputError(fmt::format("{}: {} has the shape [{}], expected [{}]", set.path(),
                                 tensor.name, fmt::join(info.shape, ", "),
                                 fmt::join(tensor.shape, ", ")));
  }
  const auto data = set.data(tensor.name);
  if (!safetensors::convert_to_float(info.type, data, tensor.values)) {
    throw InputError(fmt::format("{}: {} has the type {}, expected a floating one", set.path(),
                                 tensor.name, safetensors::name_of(info.type)));
  }
}

void load_kind(const std::string& folder, const std::vector<CheckpointTensor>& tensors) {
  if (tensors.empty()) return;
  const auto set = safetensors::TensorSet::open(folder);
  if (set.names().size() != tensors.size()) {
    throw InputError(fmt::format("{}: holds {} tensors, expected {}", set.path(),
                                 set.names().size(), tensors.size()));
  }
  for (const CheckpointTensor& tensor : tensors) fill(set, tensor);
}

std::vector<CheckpointPart> parts_of(const CheckpointTensors& tensors) {
  std::vector<CheckpointPart> parts = {{"model", tensors.model}, {"optim", tensors.optimizer}};
  parts.insert(parts.end(), tensors.others.begin(), tensors.others.end());
  return parts;
}

}  // namespace

std::string save_checkpoint(comm::Communicator& world, const std::string& run_folder,
                            const CheckpointState& state, const CheckpointTensors& tensors,
                            int keep) {
  const bool first = world.rank() == 0;
  const std::string final_path = (fs::path(run_folder) / checkpoint_name(state.step())).string();
  const std::string id = fmt::format("{}-{:x}", ::getpid(), monotonic_ns());
  const std::string folder = broadcast_text(world, fmt::format("{}.tmp-{}", final_path, id), 0);
  const std::vector<CheckpointPart> parts = parts_of(tensors);
  std::vector<Division> divisions;
  for (const CheckpointPart& part : parts) {
    divisions.emplace_back(part.folder, part.tensors, world.size());
  }
  try {
    run_on_all(world, [&] {
      if (!first) return;
      for (const CheckpointPart& part : parts) create_folder(folder + "/" + part.folder);
    });
    std::vector<ManifestEntry> own;
    run_on_all(world, [&] {
      for (const Division& division : divisions) {
        division.write(folder, world.rank());
        if (const auto file = division.file_of(world.rank())) {
          own.push_back(describe_file(folder, *file));
        }
      }
    });
    const std::vector<std::string> lists = gather_text(world, manifest_text(own));
    run_on_all(world, [&] {
      if (!first) return;
      std::vector<ManifestEntry> entries;
      for (const std::string& list : lists) {
        for (ManifestEntry& entry : parse_manifest(list, "a rank's list of files")) {
          entries.push_back(std::move(entry));
        }
      }
      for (const Division& division : divisions) {
        if (const auto index = division.index()) {
          write_text(folder, index->first, index->second, entries);
        }
      }
      write_text(folder, "state.txtpb", text_of(state), entries);
      for (const CheckpointPart& part : parts) sync_folder(folder + "/" + part.folder);
      const std::string manifest = manifest_text(entries);
      media::write_output_file((fs::path(folder) / kManifestName).string(),
                               std::as_bytes(std::span(manifest)));
      sync_folder(folder);
      put_folder(folder, final_path);
    });
  } catch (const CommError&) {
    throw;  // other ranks may still be writing; the next start removes the folder
  } catch (...) {
    std::error_code ignored;
    if (first) fs::remove_all(folder, ignored);
    throw;
  }
  if (first) prune_checkpoints(run_folder, keep);
  return final_path;
}

void load_tensors(const std::string& checkpoint_path, const CheckpointTensors& tensors) {
  for (const CheckpointPart& part : parts_of(tensors)) {
    load_kind((fs::path(checkpoint_path) / part.folder).string(), part.tensors);
  }
}

}  // namespace sprocket::runtime
