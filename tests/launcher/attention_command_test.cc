// `sprocket attention` as a user runs it, alone and under mpirun: what it says and its exit codes.
// What it computes is tested in tests/runtime/attention_job_test.cc.
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/exit_code.h"
#include "tests/launcher/process.h"
#include "tests/runtime/attention_files.h"

namespace sprocket::launcher {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::InputTensor;
using ::testing::Not;
using testing::path_in_test_folder;
using testing::random_tensor;
using testing::values_of;
using testing::write_tensors;

constexpr testing::Extents kExtents = {2, 3 * 5 * 6 + 10, 6, 8};

std::string job_file() {
  return write_file(
      "job.txtpb",
      "attention { method: VSA cube { t: 2 h: 2 w: 3 } vsa { sparsity { start: 0.6 } } } "
      "problem { grid { t: 3 h: 5 w: 6 } prefix: 7 prefix: 3 } "
      "compute { precision: FP64 threads: 1 }");
}

std::vector<InputTensor> input_tensors() {
  std::vector<InputTensor> tensors;
  for (const char* name : {"q", "k", "v", "gate", "grad_out"}) {
    tensors.push_back(random_tensor(name, kExtents));
  }
  return tensors;
}

ProcessResult attend(const std::string& input, const std::string& output, const std::string& flags,
                     int ranks = 1) {
  const std::string mpirun = fmt::format(
      "env OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMP_NUM_THREADS=1 "
      "timeout 100 mpirun --oversubscribe --mca mpi_yield_when_idle 1 -np {}",
      ranks);
  return run_sprocket(fmt::format("attention --config {} --input {} --output {} {}", job_file(),
                                  input, output, flags),
                      ranks == 1 ? "" : mpirun);
}

int lines_with(const std::string& text, const std::string& what) {
  int count = 0;
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++count;
  return count;
}

TEST(AttentionCommand, ManyRanksWriteTheFileOfOne) {
  std::vector<InputTensor> tensors = input_tensors();
  tensors.push_back({"qq", {1}, {0}, safetensors::ElementType::kF32});
  const std::string input = write_tensors("input.safetensors", tensors);
  const std::string one_path = path_in_test_folder("one"), picture = path_in_test_folder("one.png");
  const std::string flags = "--backward --dump-selection ";
  const ProcessResult one = attend(input, one_path, flags + "--repeat 2 --draw " + picture);
  ASSERT_EQ(one.code, 0) << one.err;
  EXPECT_GT(std::filesystem::file_size(picture), 1000u);
  EXPECT_THAT(one.out, AllOf(HasSubstr("Attention: VSA\n"), HasSubstr("GFLOP/s kernel"),
                             HasSubstr("Medians of 2 calls after a warm-up.\n")));
  EXPECT_THAT(one.err, AllOf(HasSubstr("the tensor \"qq\" is not read; known are q, k, v, gate"),
                             Not(HasSubstr("grad_out\" is not"))));
  const auto expected = safetensors::File::open(one_path);
  for (const auto& [ranks, parallel] :
       {std::pair{2, "--set 'parallel.ulysses: 2'"}, {3, "--set 'parallel.strategy: RING'"}}) {
    const std::string path = path_in_test_folder("many");
    const ProcessResult many = attend(input, path, flags + parallel, ranks);
    ASSERT_EQ(many.code, 0) << many.err;
    EXPECT_EQ(lines_with(many.out, "Attention: VSA"), 1) << "printed by one rank";
    EXPECT_EQ(lines_with(many.err, "\"qq\" is not read"), 1);
    const auto found = safetensors::File::open(path);
    for (const safetensors::TensorInfo& tensor : expected.tensors()) {
      const std::vector<double> a = values_of(expected, tensor.name),
                                b = values_of(found, tensor.name);
      ASSERT_EQ(a.size(), b.size()) << tensor.name;
      double largest = 0;
      for (size_t i = 0; i < a.size(); ++i) largest = std::max(largest, std::abs(a[i] - b[i]));
      EXPECT_LE(largest, 1e-10) << tensor.name << " on " << ranks << " ranks";
    }
  }
}

// Nothing is left behind by a call that fails, and the error is said once.
TEST(AttentionCommand, RefusalsHaveTheirExitCodes) {
  std::vector<InputTensor> tensors = input_tensors();
  const std::string input = write_tensors("input.safetensors", tensors);
  tensors[1].values[kExtents.at(1, 17, 3) + 5] = std::numeric_limits<double>::quiet_NaN();
  const std::string nan = write_tensors("nan.safetensors", tensors);
  const std::string output = path_in_test_folder("refused");
  const struct {
    std::string input, output, flags;
    int ranks;
    ExitCode code;
    std::string message;
  } cases[] = {
      {nan, output, "", 1, ExitCode::kInput, "found k[b 1, token 17, h 3, d 5] = nan"},
      {nan, output, "", 3, ExitCode::kInput, "found k[b 1, token 17, h 3, d 5] = nan"},
      {"/nowhere/in", output, "", 1, ExitCode::kInput, "/nowhere/in"},
      {input, output, "--set 'problem.grid.t: 4'", 2, ExitCode::kInput, "q: expected 130 tokens"},
      {input, output, "--set 'attention.vsa.sparsity.start: 1'", 1, ExitCode::kConfig,
       "attention.vsa.sparsity.start: 1; legal: 0 <="},
      {input, output, "--draw-head 1", 1, ExitCode::kConfig, "--draw-head requires --draw"},
      {input, "/nowhere/out", "", 2, ExitCode::kOutput, "/nowhere/out"},
      {input, "/dev/null", "", 1, ExitCode::kOutput, "/dev/null: cannot be written"},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(fmt::format("{} {}, {} ranks", c.output, c.flags, c.ranks));
    const ProcessResult result = attend(c.input, c.output, c.flags, c.ranks);
    EXPECT_EQ(result.code, static_cast<int>(c.code)) << result.err;
    EXPECT_EQ(lines_with(result.err, c.message), 1) << result.err;
    EXPECT_EQ(result.out, "");
  }
  const std::filesystem::path path = output;
  for (const auto& entry : std::filesystem::directory_iterator(path.parent_path())) {
    EXPECT_FALSE(entry.path().filename().string().starts_with("refused")) << entry.path();
  }
}

}  // namespace
}  // namespace sprocket::launcher
