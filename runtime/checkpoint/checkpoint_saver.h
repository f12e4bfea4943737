// Saving checkpoints on all ranks, at once or while training goes on.
//
//   step_00001000/
//     model/*.safetensors   parameters, fp32, official names
//     optim/*.safetensors   exp_avg.<name>, exp_avg_sq.<name>
//     …/*.safetensors       of other parts, such as a distillation's second network
//     state.txtpb           CheckpointState
//     MANIFEST              written last (manifest.h)
//
// Every rank writes its share of the tensors in a thread of its own: into step_00001000.tmp-<id>,
// synced and hashed. When all ranks' files are on the disk, rank 0's thread completes the folder
// and renames it: there is never a half-written folder of the final name. The threads never
// communicate: ranks agree on where a save is in poll() and finish(), which the training calls.
#pragma once

#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <string>

#include "parallel/comm/communicator.h"
#include "runtime/checkpoint/checkpoint_tensors.h"
#include "runtime/checkpoint/run_checkpoints.h"
#include "runtime/checkpoint/staging.h"
#include "runtime/checkpoint/state.pb.h"

namespace sprocket::runtime {

// How a save ended, the same on all ranks.
struct SaveOutcome {
  int64_t step = 0;
  std::string path;  // of the new checkpoint
  // An AgreedError, mostly OutputError: there is no new checkpoint, the unfinished folder is
  // removed, and older ones are untouched.
  std::exception_ptr error;
};

class CheckpointSaver {
 public:
  // Collective. `world` must outlive the saver; run_folder has to lie in a file system that all
  // ranks see. After each save checkpoints are removed as `retention` says.
  CheckpointSaver(comm::Communicator& world, std::string run_folder, const Retention& retention);
  // Waits for what this rank's thread is writing. A save of which the ranks have not agreed that
  // all files are written leaves an unfinished folder.
  ~CheckpointSaver();
  CheckpointSaver(const CheckpointSaver&) = delete;
  CheckpointSaver& operator=(const CheckpointSaver&) = delete;

  // Collective; every rank holds all tensors, with equal values, and an equal state. No save may be
  // under way. Returns when it has ended.
  SaveOutcome save(const CheckpointState& state, const CheckpointTensors& tensors);

  // The same, with the same files, but returns as soon as this rank's share of the tensors is
  // copied, into memory that is kept for the next save.
  void begin(const CheckpointState& state, const CheckpointTensors& tensors);
  bool under_way() const { return save_ != nullptr; }
  // How the save that was under way ended; nullopt: there is none, or it has not ended. Waits for
  // no disk. Collective while one is under way.
  std::optional<SaveOutcome> poll();
  // Waits for the end of the save that is under way. Collective.
  SaveOutcome finish();

 private:
  struct Save;
  void prepare(const CheckpointState& state, const CheckpointTensors& tensors);
  void start_writing();
  bool threads_have_ended();
  std::optional<SaveOutcome> advance();

  comm::Communicator& world_;
  std::string run_folder_, id_;
  Retention retention_;
  Staging staging_;
  std::unique_ptr<Save> save_;  // the one under way
};

}  // namespace sprocket::runtime
