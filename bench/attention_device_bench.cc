// Time of one layer's sparse attention on a device (bench/device_attention_layer.h), as JSON lines.
//
// Alone: every combination of --tokens, --head-dims and --blocks, stage by stage, medians of
// kRounds calls by CUDA events. forward_tflops counts 4 * D for every query-key pair of the
// selected blocks, over the time of `forward`; backward_tflops 2.5 times that, over
// `clear_gradients`, `delta` and `backward`, which is what a dense backward does in one call. Every
// layer is first compared with attention in double at a few rows; errors are in the line, and large
// ones end the program.
//
// With --pipes FOLDER (bench/rank_requests.h) it is the resident side of
// bench/device_attention.py:
//
//   {"op": "hello"}                    process id, device, capability, versions
//   {"op": "layer", "id": …, "tokens": …, "heads": …, "head_dim": …, "block_rows": …,
//    "sparsity": "0.9", "capability": "9.0", "workspace_mib": …}
//       makes and checks a layer with the kernels of a capability, at most the device's
//   {"op": "run", "id": …, "calls": n} enqueues n + 1 calls; milliseconds of all but the first, by
//                                      stage
//   {"op": "forget"}                   frees all layers
#include <cuda_runtime_api.h>
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>

#include <algorithm>
#include <cstdio>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "bench/device_attention_layer.h"
#include "bench/device_memory.h"
#include "bench/rank_requests.h"

namespace sprocket::bench {
namespace {

using nlohmann::json;

constexpr int kRounds = 7;
// Rounding of bf16 operands stays below a third of this; a wrong block or row is far above.
constexpr double kLargestError = 2e-2;

struct Capability {
  int major = 0, minor = 0;
  std::string text() const { return fmt::format("{}.{}", major, minor); }
  bool operator<(const Capability& other) const {
    return std::pair(major, minor) < std::pair(other.major, other.minor);
  }
};

Capability parse_capability(const std::string& text) {
  Capability result;
  char end = 0;
  if (std::sscanf(text.c_str(), "%d.%d%c", &result.major, &result.minor, &end) != 2) {
    throw ConfigError(fmt::format("capability: expected a text such as 9.0, found '{}'", text));
  }
  return result;
}

Capability device_capability() {
  Capability result;
  check_cuda(cudaDeviceGetAttribute(&result.major, cudaDevAttrComputeCapabilityMajor, 0),
             "cudaDeviceGetAttribute");
  check_cuda(cudaDeviceGetAttribute(&result.minor, cudaDevAttrComputeCapabilityMinor, 0),
             "cudaDeviceGetAttribute");
  return result;
}

json about() {
  cudaDeviceProp properties;
  check_cuda(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties");
  int runtime = 0, driver = 0;
  check_cuda(cudaRuntimeGetVersion(&runtime), "cudaRuntimeGetVersion");
  check_cuda(cudaDriverGetVersion(&driver), "cudaDriverGetVersion");
  return {{"pid", getpid()},
          {"device", properties.name},
          {"capability", device_capability().text()},
          {"multiprocessors", properties.multiProcessorCount},
          {"cuda_runtime", runtime},
          {"cuda_driver", driver}};
}

// A layer with what its shape says about it.
struct Subject {
  DeviceAttentionLayer layer;
  json facts;  // shape, work, errors
};

class Laboratory {
 public:
  Subject make(const DeviceLayerShape& shape) {
    const Capability capability{shape.major, shape.minor};
    if (device_capability() < capability) {
      throw ConfigError(fmt::format("kernels for capability {} on a device of {}",
                                    capability.text(), device_capability().text()));
    }
    Subject subject{DeviceAttentionLayer(shape), {}};
    for (const auto& stage : subject.layer.stages()) stage.call(stream_.view());
    const DeviceLayerWork work = subject.layer.work();
    const DeviceLayerErrors errors = subject.layer.errors(stream_.view());
    subject.facts = {{"tokens", shape.tokens},
                     {"heads", shape.heads},
                     {"head_dim", shape.head_dim},
                     {"block_rows", shape.block_rows},
                     {"sparsity", shape.sparsity.to_string()},
                     {"dtype", "bf16"},
                     {"kernels", capability.text()},
                     {"workspace_mib", shape.workspace_bytes >> 20},
                     {"pairs", work.pairs},
                     {"area", work.area},
                     {"errors",
                      {{"out", errors.out},
                       {"lse", errors.lse},
                       {"dq", errors.dq},
                       {"dk", errors.dk},
                       {"dv", errors.dv}}}};
    for (const auto& [name, error] : subject.facts["errors"].items()) {
      if (error.get<double>() <= kLargestError) continue;
      throw InternalError(
          fmt::format("wrong results: an error of {} in {}, at most {} is right; {}",
                      error.get<double>(), name, kLargestError, subject.facts.dump()));
    }
    return subject;
  }

  // Milliseconds of `calls` calls by stage. One more goes before, so that the device is at work
  // when the first measured one is enqueued.
  json run(const Subject& subject, int calls) {
    const auto& stages = subject.layer.stages();
    clock_.mark(stream_.view());
    for (int call = -1; call < calls; ++call) {
      for (const auto& stage : stages) {
        stage.call(stream_.view());
        clock_.mark(stream_.view());
      }
    }
    const std::vector<double> seconds = clock_.take_seconds();
    json times;
    for (int call = 0; call < calls; ++call) {
      for (size_t i = 0; i < stages.size(); ++i) {
        times[stages[i].name].push_back(1e3 * seconds[(call + 1) * stages.size() + i]);
      }
    }
    return times;
  }

 private:
  CudaStream stream_;
  DeviceClock clock_;
};

DeviceLayerShape shape_of(const json& request) {
  DeviceLayerShape shape;
  shape.tokens = request.at("tokens");
  shape.heads = request.at("heads");
  shape.head_dim = request.at("head_dim");
  shape.block_rows = request.at("block_rows");
  shape.sparsity = Decimal::parse(request.at("sparsity").get<std::string>());
  shape.workspace_bytes = request.at("workspace_mib").get<int64_t>() << 20;
  const Capability capability = parse_capability(request.at("capability"));
  shape.major = capability.major;
  shape.minor = capability.minor;
  return shape;
}

class Server {
 public:
  json answer(const json& request) {
    const std::string op = request.at("op");
    if (op == "hello") return about();
    if (op == "layer") {
      const std::string id = request.at("id");
      subjects_.erase(id);
      return subjects_.emplace(id, laboratory_.make(shape_of(request))).first->second.facts;
    }
    if (op == "run") return laboratory_.run(subjects_.at(request.at("id")), request.at("calls"));
    if (op == "forget") {
      subjects_.clear();
      return json::object();
    }
    throw ConfigError("op: expected hello, layer, run or forget, found " + op);
  }

 private:
  Laboratory laboratory_;
  std::map<std::string, Subject> subjects_;
};

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

json line_of(Laboratory& laboratory, const DeviceLayerShape& shape) {
  const Subject subject = laboratory.make(shape);
  json line = subject.facts, stages;
  const json times = laboratory.run(subject, kRounds);
  for (const auto& [name, values] : times.items())
    stages[name] = median(values.get<std::vector<double>>());
  const auto sum = [&](std::initializer_list<const char*> names) {
    double milliseconds = 0;
    for (const char* name : names) milliseconds += stages[name].get<double>();
    return milliseconds;
  };
  const double flop = 4.0 * shape.head_dim * line["area"].get<double>();
  const double backward = sum({"clear_gradients", "delta", "backward"});
  const auto tflops = [](double operations, double milliseconds) {
    return milliseconds > 0 ? operations / milliseconds * 1e-9 : 0;
  };
  line["bench"] = "attention";
  line["stages_ms"] = stages;
  line["forward_tflops"] = tflops(flop, sum({"forward"}));
  line["backward_tflops"] = tflops(2.5 * flop, backward);
  line["selection_share"] = sum({"pool_queries_and_keys", "select", "invert"}) /
                            std::max(sum({"forward"}) + backward, 1e-9);
  return line;
}

int run_program(int argc, char** argv) {
  CLI::App app("Time of one layer's sparse attention on a device, as JSON lines");
  std::vector<int64_t> tokens{32760, 75600};
  std::vector<int> head_dims{128, 64}, blocks{64, 128};
  std::string sparsity = "0.9", capability, pipes;
  DeviceLayerShape shape;
  shape.heads = 12;
  int64_t workspace_mib = 1024;
  bool smoke = false;
  app.add_option("--tokens", tokens, "Lengths")->check(CLI::PositiveNumber);
  app.add_option("--heads", shape.heads, "Heads")->check(CLI::PositiveNumber);
  app.add_option("--head-dims", head_dims, "64 or 128");
  app.add_option("--blocks", blocks, "Rows of a block")->check(CLI::Range(1, 128));
  app.add_option("--sparsity", sparsity, "Share of blocks that a row leaves out");
  app.add_option("--capability", capability,
                 "Take the kernels of this compute capability instead of the device's");
  app.add_option("--workspace-mib", workspace_mib, "What the backward may use");
  app.add_flag("--smoke", smoke,
               "One tiny shape, as a simulator can do it: its times mean nothing");
  app.add_option("--pipes", pipes, "Answer requests in this folder instead");
  CLI11_PARSE(app, argc, argv);
  if (!has_device()) {
    fmt::print(stderr, "attention_device_bench: expected a CUDA device, found none\n");
    return kNoDevice;
  }
  if (!pipes.empty()) {
    Server server;
    serve_requests(pipes, 0, [&](const json& request) { return server.answer(request); });
    return 0;
  }
  if (smoke) {
    tokens = {200};
    shape.heads = 2;
    head_dims = {64};
    blocks = {64};
    sparsity = "0.5";
  }
  const Capability kernels =
      capability.empty() ? device_capability() : parse_capability(capability);
  shape.major = kernels.major;
  shape.minor = kernels.minor;
  shape.sparsity = Decimal::parse(sparsity);
  shape.workspace_bytes = workspace_mib << 20;
  Laboratory laboratory;
  for (const int64_t length : tokens) {
    for (const int head_dim : head_dims) {
      for (const int rows : blocks) {
        shape.tokens = length;
        shape.head_dim = head_dim;
        shape.block_rows = rows;
        fmt::print("{}\n", line_of(laboratory, shape).dump());
        std::fflush(stdout);
      }
    }
  }
  return 0;
}

}  // namespace
}  // namespace sprocket::bench

int main(int argc, char** argv) {
  try {
    return sprocket::bench::run_program(argc, argv);
  } catch (const std::exception& error) {
    fmt::print(stderr, "attention_device_bench: {}\n", error.what());
    return 1;
  }
}
