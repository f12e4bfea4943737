#include "launcher/launch/start_command.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/error.h"

namespace sprocket::launcher {
namespace {

// Seconds before a time limit of Slurm at which the job is asked to save.
constexpr int kWarningSeconds = 300;

constexpr const char* kResume = "--resume";

bool is_resume_with_value(const std::string& word) { return word.starts_with("--resume="); }

void append(std::vector<std::string>& words, std::initializer_list<std::string> more) {
  words.insert(words.end(), more);
}

std::string host_list(const std::vector<HostSlots>& hosts) {
  std::string list;
  for (const HostSlots& host : hosts) {
    list += fmt::format("{}{}:{}", list.empty() ? "" : ",", host.name, host.slots);
  }
  return list;
}

std::vector<std::string> mpirun_words(const StartPlan& plan) {
  std::vector<std::string> words = {"mpirun", "-np", std::to_string(plan.ranks)};
  if (plan.hosts.empty()) {
    // Slots would be cores, of which a machine may have fewer than processors.
    append(words, {"--oversubscribe"});
  } else {
    append(words, {"--host", host_list(hosts_for(plan.hosts, plan.ranks))});
    // What mpirun and its daemons learn of a host or a link that is gone, after 30 s without an
    // answer; by default it would take 8 minutes, and the ranks of that host would stay so long.
    append(words, {"--mca", "oob_tcp_keepalive_time", "10", "--mca", "oob_tcp_keepalive_intvl", "5",
                   "--mca", "oob_tcp_keepalive_probes", "4"});
  }
  if (!plan.agent.empty()) append(words, {"--mca", "plm_rsh_agent", plan.agent});
  append(words, {"--bind-to", plan.binding});
  if (is_oversubscribed(plan)) append(words, {"--mca", "mpi_yield_when_idle", "1"});
  if (!plan.hosts.empty()) {
    append(words, {"--wdir", plan.folder});
    for (const std::string& name : plan.exported) append(words, {"-x", name});
  }
  return words;
}

std::vector<std::string> srun_words(const StartPlan& plan) {
  return {"srun",
          fmt::format("--ntasks={}", plan.ranks),
          "--mpi=pmix",
          "--export=ALL",
          "--kill-on-bad-exit=1",
          "--cpu-bind=none",
          fmt::format("--chdir={}", plan.folder)};
}

std::string quoted(const std::string& word) {
  const bool plain = !word.empty() && std::all_of(word.begin(), word.end(), [](unsigned char c) {
    return std::isalnum(c) != 0 || std::string_view("-_./:=,+@%").find(c) != std::string::npos;
  });
  if (plain) return word;
  std::string text = "'";
  for (const char c : word) text += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return text + "'";
}

}  // namespace

bool is_oversubscribed(const StartPlan& plan) {
  return plan.starter == Starter::kMpirun &&
         (plan.crowded || (plan.hosts.empty() && plan.ranks > plan.processors));
}

void check_start_plan(const StartPlan& plan) {
  const int slots = total_slots(plan.hosts);
  if (!plan.hosts.empty() && plan.ranks > slots) {
    throw ConfigError(
        fmt::format("--np {}: the hosts take {} ranks; legal: 1 to {}", plan.ranks, slots, slots));
  }
  if (plan.agent.find(':') != std::string::npos) {
    throw ConfigError(fmt::format(
        "--agent {}: expected a command without a colon, behind which mpirun expects another one",
        plan.agent));
  }
}

std::vector<std::string> start_command(const StartPlan& plan, const std::vector<std::string>& job) {
  std::vector<std::string> words =
      plan.starter == Starter::kMpirun ? mpirun_words(plan) : srun_words(plan);
  words.push_back(plan.program);
  words.insert(words.end(), job.begin(), job.end());
  return words;
}

std::string shell_line(const std::vector<std::string>& words) {
  std::string line;
  for (const std::string& word : words) line += (line.empty() ? "" : " ") + quoted(word);
  return line;
}

std::string sbatch_script(const StartPlan& plan, const std::string& name,
                          const std::vector<std::string>& launch) {
  return fmt::format(
      "#!/bin/bash\n"
      "#SBATCH --job-name={}\n"
      "#SBATCH --ntasks={}\n"
      "# {} s before the time limit the job is asked to save and to end.\n"
      "#SBATCH --signal=B:TERM@{}\n"
      "# After the loss of a node it is started again, and goes on from the newest checkpoint.\n"
      "#SBATCH --requeue\n"
      "#SBATCH --open-mode=append\n"
      "cd {} || exit 4\n"
      "exec {}\n",
      name, plan.ranks, kWarningSeconds, kWarningSeconds, quoted(plan.folder), shell_line(launch));
}

std::vector<std::string> with_resume(std::vector<std::string> job, const std::string& value) {
  std::erase_if(job, is_resume_with_value);
  for (auto at = std::find(job.begin(), job.end(), kResume); at != job.end();
       at = std::find(job.begin(), job.end(), kResume)) {
    job.erase(at, std::min(at + 2, job.end()));
  }
  append(job, {kResume, value});
  return job;
}

std::string resume_of(const std::vector<std::string>& job, const std::string& otherwise) {
  std::string value = otherwise;
  for (size_t i = 0; i < job.size(); ++i) {
    if (is_resume_with_value(job[i])) value = job[i].substr(std::string(kResume).size() + 1);
    if (job[i] == kResume && i + 1 < job.size()) value = job[i + 1];
  }
  return value;
}

std::vector<std::string> with_contact(std::vector<std::string> job, const std::string& path) {
  job.insert(job.begin() + 1, {"--supervised", path});
  return job;
}

}  // namespace sprocket::launcher
