#include "runtime/metrics/run_board.h"

#include <array>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/error.h"

namespace sprocket::runtime {
namespace {

using nlohmann::json;
using tensorboard::Scalar;

// Keys that are shown in a group; others are tags as they are.
constexpr std::array<std::pair<std::string_view, std::string_view>, 12> kGroups{{
    {"step_seconds", "throughput"},
    {"tokens_per_second", "throughput"},
    {"tflops_dense_equivalent", "throughput"},
    {"tflops_executed", "throughput"},
    {"data_wait_seconds", "time"},
    {"compute_share", "time"},
    {"exposed_communication_share", "time"},
    {"checkpoint_stall_seconds", "time"},
    {"memory_peak_bytes", "machine"},
    {"skipped_steps", "faults"},
    {"bad_samples", "faults"},
    {"failed_saves", "faults"},
}};

std::string tag_of(const std::string& key) {
  for (const auto& [name, group] : kGroups) {
    if (name == key) return fmt::format("{}/{}", group, key);
  }
  return key;
}

void append_layers(const std::string& key, const json& summary, std::vector<Scalar>& curves) {
  for (const char* name : {"mean", "min", "max"}) {
    if (!summary.contains(name)) continue;
    curves.push_back({fmt::format("attention/{}_{}", key, name), summary.at(name).get<double>()});
  }
  if (!summary.contains("by_layer")) return;
  int layer = 0;
  for (const json& value : summary.at("by_layer")) {
    curves.push_back({fmt::format("{}/layer_{:02}", key, layer++), value.get<double>()});
  }
}

// Prompts are the user's bytes, and readers refuse a file with one that is no UTF-8.
std::string valid_utf8(const std::string& text) {
  return json::parse(json(text).dump(-1, ' ', false, json::error_handler_t::replace))
      .get<std::string>();
}

}  // namespace

std::vector<Scalar> metrics_curves(const json& line) {
  std::vector<Scalar> curves;
  for (const auto& [key, value] : line.items()) {
    if (key == "step") continue;
    if (value.is_number()) curves.push_back({tag_of(key), value.get<double>()});
    if (value.is_object()) append_layers(key, value, curves);
  }
  return curves;
}

void RunBoard::write_metrics(const json& line) {
  events_.write(line.at("step").get<int64_t>(), metrics_curves(line));
}

void RunBoard::write_validation(const json& line) {
  std::vector<Scalar> curves{{"validation/loss", line.at("loss").get<double>()}};
  for (const json& value : line.at("by_level")) {
    curves.push_back(
        {fmt::format("validation/loss_level_{}", curves.size() - 1), value.get<double>()});
  }
  events_.write(line.at("step").get<int64_t>(), curves);
}

void RunBoard::write_sample(int64_t step, size_t number, const std::string& prompt,
                            const media::AnimatedPng& animation) {
  events_.write(step, tensorboard::Picture{fmt::format("sample/{}", number), valid_utf8(prompt),
                                           animation.width, animation.height, animation.file});
}

void RunBoard::write_sample_psnr(int64_t step, size_t number, double psnr) {
  events_.write(step, std::vector<Scalar>{{fmt::format("sample_psnr/{}", number), psnr}});
}

}  // namespace sprocket::runtime
