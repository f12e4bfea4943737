// Sprocket's side of bench/attention.py: stays resident, reads one JSON request per line from
// standard input and answers each with one JSON line.
//
//   {"op": "peaks", "threads": 1}                 the processor's fp32 and bf16 peaks
//   {"op": "prepare", "id": …, "length": …, "heads": …, "head_dim": …, "block": …, "dtype": "fp32",
//    "threads": …, "keep": 0, "table": "", "inputs": ""}
//       keep > 0: `table` names a file of int32 [heads][blocks][keep], ascending block ids of each
//       query block; inputs: a file of fp32 [4][length][heads][head_dim] (Q, K, V, dO), empty:
//       random values
//   {"op": "run", "id": …, "backward": true}      milliseconds of one call each
//   {"op": "save", "id": …, "path": …}            O, dQ, dK, dV as fp32
//   {"op": "release"}                             forgets all problems
#include <chrono>
#include <fstream>
#include <iostream>
#include <map>
#include <memory>

#include <nlohmann/json.hpp>

#include "bench/attention_problem.h"
#include "bench/machine_peaks.h"

namespace {

using namespace sprocket;
using nlohmann::json;

class AnyProblem {
 public:
  virtual ~AnyProblem() = default;
  virtual json describe() const = 0;
  virtual json run(bool backward) = 0;
  virtual void save(const std::string& path) const = 0;
};

template <class Run>
double milliseconds(Run run) {
  const auto start = std::chrono::steady_clock::now();
  run();
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start)
      .count();
}

template <class T>
class TypedProblem : public AnyProblem {
 public:
  TypedProblem(const bench::AttentionShape& shape, kernels::SegmentTable table,
               const std::string& inputs)
      : problem_(shape, std::move(table)) {
    if (inputs.empty()) {
      problem_.fill_randomly();
    } else {
      problem_.load(inputs);
    }
  }

  json describe() const override {
    return {{"density", problem_.table().density()},
            {"forward_gflop", problem_.forward_gflop()},
            {"forward_workspace_mib",
             problem_.workspace_bytes(kernels::Direction::kForward) / 1048576.0},
            {"backward_workspace_mib",
             problem_.workspace_bytes(kernels::Direction::kBackward) / 1048576.0}};
  }

  json run(bool backward) override {
    json answer{{"forward_ms", milliseconds([&] { problem_.forward(); })}};
    if (backward) answer["backward_ms"] = milliseconds([&] { problem_.backward(); });
    return answer;
  }

  void save(const std::string& path) const override { problem_.save(path); }

 private:
  bench::AttentionProblem<T> problem_;
};

kernels::SegmentTable read_table(const bench::AttentionShape& shape, int keep,
                                 const std::string& path) {
  const int blocks = shape.blocks();
  if (keep == 0) return kernels::make_dense_table(1, shape.heads, blocks, blocks);
  kernels::SegmentTable table{1, shape.heads, blocks, blocks, {0}, {}};
  table.kv_block.resize(int64_t{shape.heads} * blocks * keep);
  std::ifstream file(path, std::ios::binary);
  file.read(reinterpret_cast<char*>(table.kv_block.data()),
            static_cast<std::streamsize>(table.kv_block.size() * sizeof(int32_t)));
  SPROCKET_CHECK(file.good(), "{} does not hold {} block ids", path, table.kv_block.size());
  for (int64_t row = 1; row <= table.rows(); ++row) table.row_offsets.push_back(row * keep);
  return table;
}

std::unique_ptr<AnyProblem> prepare(const json& request) {
  bench::AttentionShape shape;
  shape.length = request.at("length");
  shape.heads = request.at("heads");
  shape.head_dim = request.at("head_dim");
  shape.block = request.at("block");
  shape.threads = request.at("threads");
  auto table = read_table(shape, request.at("keep"), request.at("table"));
  const std::string inputs = request.at("inputs"), dtype = request.at("dtype");
  if (dtype == "fp32") {
    return std::make_unique<TypedProblem<float>>(shape, std::move(table), inputs);
  }
  if (dtype == "bf16") {
    return std::make_unique<TypedProblem<BFloat16>>(shape, std::move(table), inputs);
  }
  throw std::invalid_argument("dtype: expected fp32 or bf16, found " + dtype);
}

class Server {
 public:
  json answer(const json& request) {
    const std::string op = request.at("op");
    if (op == "peaks") {
      const bench::MachinePeaks peaks = bench::measure_peaks(request.at("threads"));
      return {{"fp32_gflops", peaks.fp32_gflops}, {"bf16_gflops", peaks.bf16_gflops}};
    }
    if (op == "prepare") {
      auto& problem = problems_[request.at("id")];
      problem = prepare(request);
      return problem->describe();
    }
    if (op == "release") {
      problems_.clear();
      return json::object();
    }
    AnyProblem& problem = *problems_.at(request.at("id"));
    if (op == "run") return problem.run(request.at("backward"));
    if (op == "save") {
      problem.save(request.at("path"));
      return json::object();
    }
    throw std::invalid_argument("op: expected peaks, prepare, run, save or release, found " + op);
  }

 private:
  std::map<std::string, std::unique_ptr<AnyProblem>> problems_;
};

}  // namespace

int main() {
  Server server;
  for (std::string line; std::getline(std::cin, line);) {
    json answer;
    try {
      answer = server.answer(json::parse(line));
    } catch (const std::exception& error) {
      answer = {{"error", error.what()}};
    }
    std::cout << answer.dump() << std::endl;
  }
}
