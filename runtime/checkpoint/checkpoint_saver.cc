#include "runtime/checkpoint/checkpoint_saver.h"

#include <google/protobuf/text_format.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <future>
#include <span>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/timeline.h"
#include "models/safetensors/writer.h"
#include "runtime/checkpoint/durable.h"
#include "runtime/checkpoint/manifest.h"
#include "runtime/checkpoint/shard_plan.h"
#include "runtime/jobs/rank_agreement.h"
#include "runtime/media/output_file.h"

namespace sprocket::runtime {
namespace {

namespace fs = std::filesystem;

struct OwnFile {
  std::string file;
  std::vector<safetensors::TensorToWrite> tensors;
};

void write_text(const std::string& folder, const std::string& file, const std::string& text) {
  media::write_output_file((fs::path(folder) / file).string(), std::as_bytes(std::span(text)));
}

// What other ranks have written is here too, as it is in a file system that all of them see.
void check_visible(const std::string& folder, const ManifestEntry& entry, int rank) {
  std::error_code error;
  const uintmax_t bytes = fs::file_size(fs::path(folder) / entry.file, error);
  if (!error && bytes == entry.bytes) return;
  throw OutputError(fmt::format(
      "{}/{}: rank {} wrote {} bytes of it, rank 0 finds {}; expected output.directory in a file "
      "system that all ranks share",
      folder, entry.file, rank, entry.bytes,
      error ? error.message() : fmt::format("{} bytes", bytes)));
}

}  // namespace

struct CheckpointSaver::Save {
  int64_t step = 0;
  std::string folder, final_path;
  std::vector<std::string> parts;                          // their folders
  std::vector<OwnFile> files;                              // of this rank
  std::vector<std::pair<std::string, std::string>> texts;  // file and contents, written by rank 0
  std::vector<ManifestEntry> written;                      // of `files`
  bool completing = false;                                 // all ranks' files are on the disk
  // This rank's thread; not valid when it has nothing to do. The last member, because its
  // destructor waits for a thread that uses the others.
  std::future<void> work;

  void write_files() {
    for (const std::string& part : parts) create_folder((fs::path(folder) / part).string());
    for (const OwnFile& own : files) {
      safetensors::write_file((fs::path(folder) / own.file).string(), own.tensors, {}, true);
      written.push_back(describe_file(folder, own.file));
    }
  }

  // `lists`: manifests of what each rank has written.
  void complete(const std::vector<std::string>& lists, const std::string& run_folder,
                const Retention& retention) const {
    std::vector<ManifestEntry> entries;
    for (size_t rank = 0; rank < lists.size(); ++rank) {
      for (ManifestEntry& entry : parse_manifest(lists[rank], "a rank's list of files")) {
        check_visible(folder, entry, static_cast<int>(rank));
        entries.push_back(std::move(entry));
      }
    }
    for (const auto& [file, text] : texts) {
      write_text(folder, file, text);
      entries.push_back(describe_file(folder, file));
    }
    for (const std::string& part : parts) sync_folder((fs::path(folder) / part).string());
    write_text(folder, std::string(kManifestName), manifest_text(entries));
    sync_folder(folder);
    put_folder(folder, final_path);
    prune_checkpoints(run_folder, retention);
  }
};

CheckpointSaver::CheckpointSaver(comm::Communicator& world, std::string run_folder,
                                 const Retention& retention)
    : world_(world),
      run_folder_(std::move(run_folder)),
      id_(broadcast_text(world, fmt::format("{}-{:x}", ::getpid(), monotonic_ns()), 0)),
      retention_(retention) {}

CheckpointSaver::~CheckpointSaver() = default;

void CheckpointSaver::prepare(const CheckpointState& state, const CheckpointTensors& tensors) {
  SPROCKET_CHECK(!save_, "step {} is saved while step {} is under way", state.step(), save_->step);
  save_ = std::make_unique<Save>();
  Save& save = *save_;
  save.step = state.step();
  save.final_path = (fs::path(run_folder_) / checkpoint_name(state.step())).string();
  save.folder = fmt::format("{}.tmp-{}", save.final_path, id_);
  for (const CheckpointPart& part : parts_of(tensors)) {
    save.parts.push_back(part.folder);
    PartPlan plan = plan_part(part, world_.size());
    if (!plan.index.empty()) {
      save.texts.emplace_back(std::move(plan.index_file), std::move(plan.index));
    }
    for (const ShardPlan& shard : plan.shards) {
      if (shard.rank != world_.rank()) continue;
      OwnFile& own = save.files.emplace_back(OwnFile{shard.file, {}});
      for (const size_t i : shard.tensors) {
        const CheckpointTensor& tensor = part.tensors[i];
        own.tensors.push_back({{tensor.name, safetensors::ElementType::kF32, tensor.shape},
                               std::as_bytes(tensor.values)});
      }
    }
  }
  std::string& text = save.texts.emplace_back("state.txtpb", "").second;
  google::protobuf::TextFormat::PrintToString(state, &text);
}

void CheckpointSaver::start_writing() {
  save_->work = std::async(std::launch::async, [save = save_.get()] { save->write_files(); });
}

SaveOutcome CheckpointSaver::save(const CheckpointState& state, const CheckpointTensors& tensors) {
  prepare(state, tensors);
  start_writing();
  return finish();
}

void CheckpointSaver::begin(const CheckpointState& state, const CheckpointTensors& tensors) {
  prepare(state, tensors);
  size_t bytes = 0;
  for (const OwnFile& own : save_->files) {
    for (const safetensors::TensorToWrite& tensor : own.tensors) bytes += tensor.data.size();
  }
  staging_.reserve(bytes);
  for (OwnFile& own : save_->files) {
    for (safetensors::TensorToWrite& tensor : own.tensors) tensor.data = staging_.copy(tensor.data);
  }
  start_writing();
}

std::optional<SaveOutcome> CheckpointSaver::poll() {
  if (!save_ || !threads_have_ended()) return std::nullopt;
  return advance();
}

SaveOutcome CheckpointSaver::finish() {
  SPROCKET_CHECK(save_, "no save is under way");
  for (;;) {
    if (auto outcome = advance()) return *outcome;
  }
}

bool CheckpointSaver::threads_have_ended() {
  const std::future<void>& work = save_->work;
  int64_t ended =
      !work.valid() || work.wait_for(std::chrono::seconds(0)) == std::future_status::ready ? 1 : 0;
  world_.all_reduce(comm::Buffer::of(std::span(&ended, 1)), comm::ReduceOp::kMin).wait_host();
  return ended == 1;
}

// Waits for the threads of all ranks, then gives rank 0's the rest to do, or closes the save.
std::optional<SaveOutcome> CheckpointSaver::advance() {
  Save& save = *save_;
  SaveOutcome outcome{save.step, save.final_path, nullptr};
  try {
    run_on_all(world_, [&save] {
      if (save.work.valid()) save.work.get();
    });
    if (!std::exchange(save.completing, true)) {
      std::vector<std::string> lists = gather_text(world_, manifest_text(save.written));
      if (world_.rank() == 0) {
        save.work = std::async(std::launch::async, [&save, this, lists = std::move(lists)] {
          save.complete(lists, run_folder_, retention_);
        });
      }
      return std::nullopt;
    }
  } catch (const AgreedError&) {
    outcome.error = std::current_exception();
    std::error_code ignored;
    if (world_.rank() == 0) fs::remove_all(save.folder, ignored);
  }
  save_.reset();
  return outcome;
}

}  // namespace sprocket::runtime
