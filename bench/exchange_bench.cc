// Sprocket's side of bench/exchange.py, under mpirun with `--pipes FOLDER` (bench/rank_requests.h):
// one layer's attention, forward and backward, by any method and strategy, on one problem in turn.
//
//   {"op": "hello"}                                process id and libraries
//   {"op": "problem", "heads": H, "head_dim": D}   forgets all variants
//   {"op": "variant", "id": …, "input": "",
//    "job": "attention { … } parallel { … } compute { … } problem { … }"}
//       input: empty for independent normal numbers, which make a selection uniformly random, or a
//       file of `sprocket attention`, of whose heads the first H are taken. With twice the file's
//       D, q and k stand twice, scaled so that the logits stay the same, and v and gate twice as
//       well.
//   {"op": "run", "id": …, "backward": true, "digest": false}
//       milliseconds, stages, bytes and messages of this rank; digest: products of the results with
//       numbers that depend on the token alone, whose sums over ranks are the same for all ways to
//       compute one function
#include <unistd.h>

#include <cmath>
#include <map>
#include <memory>
#include <optional>
#include <tuple>
#include <utility>

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/sum.h>
#include <c10/core/GradMode.h>

#include <CLI/CLI.hpp>

#include "base/philox.h"
#include "base/timeline.h"
#include "bench/rank_requests.h"
#include "configs/load.h"
#include "parallel/comm/mpi_backend.h"
#include "parallel/comm/recorder.h"
#include "parallel/mesh.h"
#include "parallel/sequence_attention.h"
#include "runtime/attention/attention_input.h"
#include "runtime/attention/rank_tokens.h"
#include "runtime/attention/stage_times.h"
#include "runtime/plan/job_specs.h"

namespace {

using namespace sprocket;
using nlohmann::json;

constexpr std::pair<const char*, int> kTensors[] = {
    {"q", 1}, {"k", 2}, {"v", 3}, {"gate", 4}, {"grad_out", 5}};

struct Problem {
  int heads = 1, head_dim = 64;
};

using Tensors = std::map<std::string, at::Tensor>;  // [1, own tokens, H, D] in block order

at::Tensor random_tokens(const Problem& problem, int stream, std::span<const int64_t> places) {
  const int64_t row = int64_t{problem.heads} * problem.head_dim;
  at::Tensor x = at::empty({1, std::ssize(places), problem.heads, problem.head_dim}, at::kFloat);
  const RandomStream numbers(11, 0, stream, RandomPurpose::kTest);
  for (int64_t i = 0; i < std::ssize(places); ++i) {
    numbers.normal({static_cast<float*>(x.data_ptr()) + i * row, static_cast<size_t>(row)},
                   places[i] * row);
  }
  return x;
}

at::Tensor file_tokens(const Problem& problem, const runtime::AttentionInput& file,
                       const std::string& name, std::span<const int64_t> places) {
  at::Tensor x = file.tokens_of(name, places, at::kFloat).narrow(2, 0, problem.heads);
  if (problem.head_dim == file.head_dim()) return x.contiguous();
  SPROCKET_CHECK_EQ(problem.head_dim, 2 * file.head_dim());
  // (2 q·k / sqrt(2)) / sqrt(2 D) = q·k / sqrt(D).
  if (name == "q" || name == "k") x = x * std::pow(2.0, -0.25);
  return at::cat({x, x}, 3);
}

Tensors load_tensors(const Problem& problem, const std::string& input,
                     const parallel::TokenLayoutSpec& sequence, const runtime::RankTokens& tokens,
                     at::ScalarType type) {
  std::optional<runtime::AttentionInput> file;
  if (!input.empty()) {
    file.emplace(runtime::AttentionInput::open(input));
    file->check({"q", "k", "v", "gate"}, sequence);
    SPROCKET_CHECK(problem.heads <= file->heads(), "{} has {} heads, expected {}", input,
                   file->heads(), problem.heads);
  }
  Tensors result;
  for (const auto& [name, stream] : kTensors) {
    const bool from_file = file && name != std::string("grad_out");
    const at::Tensor x = from_file ? file_tokens(problem, *file, name, tokens.places)
                                   : random_tokens(problem, stream, tokens.places);
    const at::Tensor ordered = at::empty_like(x);
    runtime::permute_tokens(x, tokens.to_block, 1, ordered);
    result[name] = ordered.to(type);
  }
  return result;
}

struct Variant {
  const parallel::Mesh* mesh = nullptr;
  const Tensors* tensors = nullptr;
  parallel::AttentionSpec spec;
  std::unique_ptr<parallel::SequenceAttention> attention;
};

struct Traffic {
  int64_t bytes = 0, messages = 0;
};

Traffic traffic_of(const parallel::Mesh& mesh) {
  Traffic sum;
  for (const comm::Communicator* group : {&mesh.tensors().outer(), &mesh.tensors().ulysses()}) {
    const auto totals = group->recorder().totals();
    sum.bytes += totals.bytes_sent;
    sum.messages += totals.messages_sent;
  }
  return sum;
}

double product(const at::Tensor& a, const at::Tensor& b) {
  return at::sum(a.to(at::kDouble) * b.to(at::kDouble)).item<double>();
}

class Server {
 public:
  explicit Server(const comm::MpiSession& session) : session_(session) { at::set_num_threads(1); }

  json answer(const json& request) {
    const std::string op = request.at("op");
    if (op == "hello") return {{"pid", getpid()}, {"library", comm::mpi_library_version()}};
    if (op == "problem") {
      variants_.clear();
      tensors_.clear();
      problem_ = {request.at("heads"), request.at("head_dim")};
      return json::object();
    }
    if (op == "variant") {
      variants_[request.at("id")] = make_variant(request.at("job"), request.at("input"));
      return json::object();
    }
    if (op == "run") {
      return run(variants_.at(request.at("id")), request.at("backward"), request.at("digest"));
    }
    throw std::invalid_argument("op: expected hello, problem, variant or run, found " + op);
  }

 private:
  const parallel::Mesh& mesh_of(const parallel::MeshShape& shape) {
    auto& mesh = meshes_[{shape.outer, shape.ulysses}];
    if (!mesh) {
      comm::CommunicatorOptions options;
      options.timeline = &timeline_;
      mesh = std::make_unique<parallel::Mesh>(comm::make_mpi_world(options), shape);
    }
    return *mesh;
  }

  Variant make_variant(const std::string& text, const std::string& input) {
    config::LoadOptions load;
    load.purpose = config::Purpose::kAttention;
    load.world = session_.size();
    load.heads = problem_.heads;
    const config::Job job = config::parse_job(text, "variant", {}, load).job;
    const config::TokenGrid& grid = job.problem().grid();
    const parallel::TokenLayoutSpec sequence =
        runtime::token_layout_spec(job.attention(), {grid.t(), grid.h(), grid.w()});
    parallel::TokenLayout layout = parallel::make_token_layout(sequence);

    Variant variant;
    variant.mesh = &mesh_of(runtime::mesh_shape(job));
    variant.spec = runtime::attention_spec(job.attention(), 0);
    const auto tokens = runtime::rank_tokens(
        layout, parallel::make_shard_plan(layout, variant.mesh->shape()), session_.rank());
    const bool bf16 = runtime::compute_dtype(job) == DType::kBF16;
    // Variants that hold the same tokens in the same order share them.
    const auto key = std::make_tuple(input, bf16, tokens.places, tokens.to_block);
    Tensors& tensors = tensors_[key];
    if (tensors.empty()) {
      tensors = load_tensors(problem_, input, sequence, tokens, bf16 ? at::kBFloat16 : at::kFloat);
    }
    variant.tensors = &tensors;
    variant.attention = std::make_unique<parallel::SequenceAttention>(
        *variant.mesh, std::move(layout), runtime::strategy_spec(job, 1));
    return variant;
  }

  json run(Variant& variant, bool backward, bool digest) {
    const c10::AutoGradMode gradients(backward);
    Tensors x;
    for (const auto& [name, tensor] : *variant.tensors) {
      x[name] = tensor.detach().set_requires_grad(backward && name != "grad_out");
    }
    const at::Tensor gate = variant.spec.coarse_gated() ? x["gate"] : at::Tensor();
    parallel::AttentionSlot slot;
    variant.mesh->world().barrier();
    timeline_.take();
    timeline_.set_recording(true);
    const Traffic before = traffic_of(*variant.mesh);
    const int64_t begin = monotonic_ns();
    at::Tensor out;
    {
      const PhaseScope phase(&timeline_, Phase::kForward);
      out = variant.attention->forward(x["q"], x["k"], x["v"], {gate, {}}, variant.spec, slot);
    }
    const int64_t middle = monotonic_ns();
    const Traffic between = traffic_of(*variant.mesh);
    if (backward) {
      const PhaseScope phase(&timeline_, Phase::kBackward);
      out.backward(x["grad_out"]);
    }
    const int64_t end = monotonic_ns();
    timeline_.set_recording(false);
    const Traffic after = traffic_of(*variant.mesh);
    const runtime::CallTimes times =
        runtime::call_times(timeline_.take(), middle - begin, backward ? end - middle : 0);
    json answer{{"total_ms", static_cast<double>(end - begin) / 1e6},
                {"forward", times.forward},
                {"backward", times.backward},
                {"forward_bytes", between.bytes - before.bytes},
                {"backward_bytes", after.bytes - between.bytes},
                {"forward_messages", between.messages - before.messages},
                {"backward_messages", after.messages - between.messages},
                {"density", slot.statistics.density},
                {"coverage", slot.statistics.coverage}};
    if (digest) {
      const at::Tensor& probe = x["grad_out"];
      answer["digest"]["out"] = product(out.detach(), probe);
      for (const char* name : {"q", "k", "v"}) {
        if (backward) answer["digest"][name] = product(x[name].grad(), probe);
      }
    }
    return answer;
  }

  using TensorsKey = std::tuple<std::string, bool, std::vector<int64_t>, std::vector<int64_t>>;

  const comm::MpiSession& session_;
  Timeline timeline_;
  Problem problem_;
  std::map<std::pair<int, int>, std::unique_ptr<parallel::Mesh>> meshes_;
  std::map<TensorsKey, Tensors> tensors_;
  std::map<std::string, Variant> variants_;
};

}  // namespace

int main(int argc, char** argv) {
  std::string pipes;
  CLI::App app{"Sprocket's side of bench/exchange.py"};
  app.add_option("--pipes", pipes, "folder of the ranks' named pipes")->required();
  CLI11_PARSE(app, argc, argv);
  const comm::MpiSession session(nullptr, nullptr);
  Server server(session);
  bench::serve_requests(pipes, session.rank(), [&](const json& r) { return server.answer(r); });
}
