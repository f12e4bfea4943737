// What the project's autograd functions share: where they run, and how they say so.
//
// Legend of tensor suffixes in this folder: B batch, L tokens, D channels, H heads, R = B * L rows.
// T is the compute dtype (fp32, bf16 or fp64), A its accumulator: fp64 for fp64, fp32 otherwise.
#pragma once

#include <memory>
#include <utility>

#include <ATen/core/ivalue.h>

#include "base/timeline.h"

namespace sprocket::models {

struct OpContext {
  Timeline* timeline = nullptr;  // may be null
  int layer = -1;
  int threads = 1;
};

// A compute interval of one operation. In a backward it also sets the phase and the layer, which
// the engine does not carry over from the forward.
class ForwardScope {
 public:
  // work: see Timeline::Scope.
  template <class WorkOf>
  ForwardScope(const OpContext& op, const char* name, WorkOf&& work)
      : scope_(op.timeline, Activity::kCompute, name, std::forward<WorkOf>(work)) {}

 private:
  Timeline::Scope scope_;
};

class BackwardScope {
 public:
  template <class WorkOf>
  BackwardScope(const OpContext& op, const char* name, WorkOf&& work)
      : phase_(op.timeline, Phase::kBackward),
        layer_(op.timeline, op.layer),
        scope_(op.timeline, Activity::kCompute, name, std::forward<WorkOf>(work)) {}

 private:
  PhaseScope phase_;
  LayerScope layer_;
  Timeline::Scope scope_;
};

// Keeps a plain struct in an autograd context, from forward to backward.
template <class State>
struct StateHolder : torch::CustomClassHolder {
  explicit StateHolder(State value) : state(std::move(value)) {}
  State state;
};

template <class State, class Context>
void keep_state(Context* ctx, State state) {
  ctx->saved_data["state"] =
      c10::IValue::make_capsule(c10::make_intrusive<StateHolder<State>>(std::move(state)));
}

template <class State, class Context>
State& state_of(Context* ctx) {
  return c10::static_intrusive_pointer_cast<StateHolder<State>>(
             ctx->saved_data["state"].toCapsule())
      ->state;
}

}  // namespace sprocket::models
