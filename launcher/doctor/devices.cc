#include "launcher/doctor/devices.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace sprocket::launcher {
namespace {

std::string cuda_version(int version) {
  return fmt::format("{}.{}", version / 1000, version % 1000 / 10);
}

std::string nccl_version(int version) {
  return fmt::format("{}.{}.{}", version / 10'000, version / 100 % 100, version % 100);
}

Finding judge_cuda(const DeviceFacts& facts) {
  Finding finding{Verdict::kGood, "CUDA",
                  fmt::format("headers {}, runtime {}, driver {}", cuda_version(facts.cuda_headers),
                              cuda_version(facts.cuda_runtime),
                              facts.cuda_driver == 0
                                  ? "none"
                                  : fmt::format("for up to {}", cuda_version(facts.cuda_driver))),
                  ""};
  if (facts.cuda_driver == 0) {
    finding.verdict = Verdict::kAdvice;
    finding.remedy = "compute.device: CUDA needs NVIDIA's driver; jobs on the processor do not";
  } else if (facts.cuda_driver / 1000 < facts.cuda_runtime / 1000) {
    finding.verdict = Verdict::kProblem;
    finding.remedy = fmt::format("update NVIDIA's driver to one for CUDA {} or newer",
                                 facts.cuda_runtime / 1000);
  }
  return finding;
}

Finding judge_nccl(const DeviceFacts& facts) {
  Finding finding{Verdict::kGood, "NCCL version",
                  fmt::format("headers {}, library {}", nccl_version(facts.nccl_headers),
                              nccl_version(facts.nccl_library)),
                  ""};
  if (facts.nccl_library < facts.nccl_headers) {
    finding.verdict = Verdict::kProblem;
    finding.remedy =
        "the library is older than what this program was built for: unset LD_LIBRARY_PATH, or "
        "build again with it";
  }
  return finding;
}

}  // namespace

std::vector<Finding> judge_devices(const DeviceFacts& facts) {
  std::vector<Finding> findings = {judge_cuda(facts), judge_nccl(facts)};
  if (!facts.devices.empty()) {
    findings.push_back({Verdict::kGood, "devices",
                        fmt::format("{}: {}", facts.devices.size(), fmt::join(facts.devices, ", ")),
                        ""});
  } else {
    findings.push_back(
        {Verdict::kAdvice, "devices", facts.error.empty() ? "none" : "none: " + facts.error,
         "`nvidia-smi` shows what the driver sees, CUDA_VISIBLE_DEVICES hides some"});
  }
  return findings;
}

}  // namespace sprocket::launcher
