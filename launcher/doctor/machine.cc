#include "launcher/doctor/machine.h"

#include <sched.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <sstream>

#include <fmt/format.h>

#include "kernels/isa.h"

namespace sprocket::launcher {
namespace {

constexpr int64_t kMiB = int64_t{1} << 20;
constexpr int64_t kGiB = int64_t{1} << 30;

std::string size(int64_t bytes) {
  if (bytes < 0) return "unlimited";
  if (bytes < 10 * kGiB) return fmt::format("{} MiB", bytes / kMiB);
  return fmt::format("{} GiB", bytes / kGiB);
}

// The value of a line "name : value" of a /proc file; empty when there is none.
std::string proc_value(const char* file, std::string_view name) {
  std::ifstream stream(file);
  std::string line;
  while (std::getline(stream, line)) {
    if (!line.starts_with(name)) continue;
    const size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    const size_t begin = line.find_first_not_of(" \t", colon + 1);
    return begin == std::string::npos ? "" : line.substr(begin);
  }
  return "";
}

int64_t meminfo(std::string_view name) {
  std::istringstream stream(proc_value("/proc/meminfo", name));
  int64_t kibibytes = 0;
  stream >> kibibytes;
  return kibibytes * 1024;
}

int64_t control_group_memory() {
  for (const char* file :
       {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}) {
    std::ifstream stream(file);
    int64_t limit = 0;
    // Version 1 writes an almost endless number for "no limit".
    if (stream >> limit && limit < (int64_t{1} << 60)) return limit;
  }
  return -1;
}

double control_group_cores() {
  std::ifstream stream("/sys/fs/cgroup/cpu.max");
  double quota = 0, period = 0;
  return stream >> quota >> period && period > 0 ? quota / period : 0;
}

int64_t soft_limit(int resource) {
  rlimit limit{};
  getrlimit(static_cast<__rlimit_resource_t>(resource), &limit);
  return limit.rlim_cur == RLIM_INFINITY ? -1 : static_cast<int64_t>(limit.rlim_cur);
}

bool has_flag(const std::string& flags, const std::string& flag) {
  return (" " + flags + " ").find(" " + flag + " ") != std::string::npos;
}

}  // namespace

Finding judge_shared_memory(int64_t free, int64_t total) {
  Finding finding{Verdict::kGood, "shared memory",
                  fmt::format("/dev/shm: {} free of {}", size(free), size(total)), ""};
  // Open MPI keeps a few tens of MiB per local rank there.
  if (free < 32 * kMiB) {
    finding.verdict = Verdict::kProblem;
    finding.remedy =
        "MPI ranks of one machine meet there: free it, or enlarge it (mount -o remount,size=1G "
        "/dev/shm; docker run --shm-size=1g)";
  } else if (free < 256 * kMiB) {
    finding.verdict = Verdict::kAdvice;
    finding.remedy = "little for many ranks: mount -o remount,size=1G /dev/shm, or --shm-size=1g";
  }
  return finding;
}

Finding judge_memory(int64_t available, int64_t total, int64_t control_group_limit) {
  Finding finding{Verdict::kGood, "memory",
                  fmt::format("{} available of {}", size(available), size(total)), ""};
  if (control_group_limit >= 0 && control_group_limit < total) {
    finding.found += fmt::format("; limited to {} by the control group", size(control_group_limit));
    available = std::min(available, control_group_limit);
  }
  if (available < 4 * kGiB) {
    finding.verdict = Verdict::kAdvice;
    finding.remedy =
        "the quickstart wants about 4 GiB; `sprocket train --dry-run` says what a job wants";
  }
  return finding;
}

Finding judge_open_files(int64_t limit) {
  Finding finding{Verdict::kGood, "open files",
                  limit < 0 ? "unlimited" : fmt::format("{} per process", limit), ""};
  if (limit >= 0 && limit < 256) {
    finding.verdict = Verdict::kProblem;
    finding.remedy = "libraries and MPI connections need more: ulimit -n 4096";
  } else if (limit >= 0 && limit < 1024) {
    finding.verdict = Verdict::kAdvice;
    finding.remedy = "few for jobs of many ranks: ulimit -n 4096";
  }
  return finding;
}

Finding judge_locked_memory(int64_t limit) {
  Finding finding{Verdict::kGood, "locked memory", size(limit), ""};
  if (limit >= 0 && limit < kMiB) {
    finding.verdict = Verdict::kAdvice;
    finding.remedy = "fast networks (InfiniBand, RoCE) want it unlimited: ulimit -l unlimited";
  }
  return finding;
}

Finding judge_stack(int64_t limit) {
  Finding finding{Verdict::kGood, "stack", size(limit), ""};
  if (limit >= 0 && limit < 2 * kMiB) {
    finding.verdict = Verdict::kAdvice;
    finding.remedy = "threads get as much, and libraries expect some MiB: ulimit -s 8192";
  }
  return finding;
}

Finding judge_processes(int64_t limit) {
  Finding finding{Verdict::kGood, "processes",
                  limit < 0 ? "unlimited" : fmt::format("{} of the user, threads included", limit),
                  ""};
  if (limit >= 0 && limit < 1024) {
    finding.verdict = limit < 128 ? Verdict::kProblem : Verdict::kAdvice;
    finding.remedy =
        "every rank has a thread for each of its processors, and some more: ulimit -u 4096";
  }
  return finding;
}

Finding judge_core_files(int64_t limit) {
  return {Verdict::kGood, "core files",
          limit == 0 ? "none: a crash leaves nothing to look into (ulimit -c unlimited, if wanted)"
                     : size(limit),
          ""};
}

Finding judge_cores(int cores, int online, double quota) {
  Finding finding{Verdict::kGood, "cores", fmt::format("{} of {} online usable", cores, online),
                  ""};
  if (quota > 0 && quota < cores) {
    finding.verdict = Verdict::kAdvice;
    finding.found += fmt::format("; the control group grants {:.3g}", quota);
    finding.remedy = fmt::format(
        "threads beyond the quota are stopped and started: set compute.threads so that all ranks "
        "together use at most {:.0f}",
        std::max(1.0, std::floor(quota)));
  }
  return finding;
}

Finding judge_instruction_set(std::string_view isa, const std::string& cpu_flags) {
  Finding finding{Verdict::kGood, "instruction set",
                  fmt::format("{}{}", isa,
                              has_flag(cpu_flags, "avx512_bf16") ? " with bf16 dot products"
                                                                 : " without bf16 dot products"),
                  ""};
  if (isa != kernels::name_of(kernels::Isa::kAvx512)) {
    finding.verdict = Verdict::kAdvice;
    finding.remedy = "kernels run, more slowly than on a processor with AVX-512";
  } else if (!has_flag(cpu_flags, "avx512_bf16")) {
    finding.verdict = Verdict::kAdvice;
    finding.remedy = "compute.precision: BF16 saves memory here, but no time";
  }
  return finding;
}

int64_t available_memory() {
  const int64_t available = meminfo("MemAvailable"), limit = control_group_memory();
  return limit < 0 ? available : std::min(available, limit);
}

std::vector<int> usable_cores() {
  cpu_set_t usable;
  CPU_ZERO(&usable);
  sched_getaffinity(0, sizeof usable, &usable);
  std::vector<int> cores;
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    if (CPU_ISSET(core, &usable)) cores.push_back(core);
  }
  return cores;
}

int64_t free_shared_memory() {
  struct statvfs shm {};
  if (statvfs("/dev/shm", &shm) != 0) return 0;
  return static_cast<int64_t>(shm.f_bavail) * static_cast<int64_t>(shm.f_frsize);
}

std::vector<Finding> check_machine() {
  struct statvfs shm {};
  const bool has_shm = statvfs("/dev/shm", &shm) == 0;
  const auto unit = static_cast<int64_t>(shm.f_frsize);
  return {
      {Verdict::kGood, "processor", proc_value("/proc/cpuinfo", "model name"), ""},
      judge_cores(static_cast<int>(usable_cores().size()),
                  static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN)), control_group_cores()),
      judge_instruction_set(kernels::name_of(kernels::detected_isa()),
                            proc_value("/proc/cpuinfo", "flags")),
      judge_memory(meminfo("MemAvailable"), meminfo("MemTotal"), control_group_memory()),
      has_shm ? judge_shared_memory(static_cast<int64_t>(shm.f_bavail) * unit,
                                    static_cast<int64_t>(shm.f_blocks) * unit)
              : judge_shared_memory(0, 0),
      judge_open_files(soft_limit(RLIMIT_NOFILE)),
      judge_locked_memory(soft_limit(RLIMIT_MEMLOCK)),
      judge_stack(soft_limit(RLIMIT_STACK)),
      judge_processes(soft_limit(RLIMIT_NPROC)),
      judge_core_files(soft_limit(RLIMIT_CORE)),
  };
}

}  // namespace sprocket::launcher
