// Rules of single fields, collected with what they found.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "configs/validate.h"

namespace sprocket::config {

// Far above any use, far below what would overflow a product of three of them.
constexpr int64_t kLargestExtent = 1 << 20;

std::vector<int64_t> divisors(int64_t number);
// "1, 2, 3", shortened when long; "none".
std::string list(const std::vector<int64_t>& numbers);

class Findings {
 public:
  void add(std::vector<std::string> paths, std::string message) {
    violations_.push_back({std::move(paths), std::move(message)});
  }
  void add(Violation violation) { violations_.push_back(std::move(violation)); }

  // Each returns whether the value is legal. `rule` is the legal range in words.
  bool in_range(const std::string& path, int64_t value, int64_t low, int64_t high);
  bool extent(const std::string& path, int64_t value) {
    return in_range(path, value, 1, kLargestExtent);
  }
  bool at_least(const std::string& path, int64_t value, int64_t low);
  bool number(const std::string& path, double value, bool legal, const char* rule);
  // A number that counts are derived from by Decimal.
  bool fraction(const std::string& path, double value, bool legal, const char* rule);

  size_t count() const { return violations_.size(); }
  std::vector<Violation> take() { return std::move(violations_); }

 private:
  std::vector<Violation> violations_;
};

// The rules of job.model(), and of the diffusion that it learns.
void check_model(const Job& job, Findings& findings);

// The rules of adapters, which are the field `at` of the job.
void check_lora(const std::string& at, const Lora& lora, Findings& findings);

// The rules of job.attention(), and of its parts in the mesh.
void check_attention(const Job& job, Findings& findings);

// The rules of job.sampling().
void check_sampling(const Job& job, Findings& findings);

// The rules of job.distillation() and of its networks.
void check_distillation(const Job& job, const LoadOptions& options, Findings& findings);

}  // namespace sprocket::config
