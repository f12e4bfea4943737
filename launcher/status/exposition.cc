#include "launcher/status/exposition.h"

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

namespace sprocket::launcher {
namespace {

using prometheus::Family;
using prometheus::Gauge;
using prometheus::Registry;

Family<Gauge>& family(Registry& registry, const char* name, const char* help) {
  return prometheus::BuildGauge().Name(name).Help(help).Register(registry);
}

void add(Registry& registry, const char* name, const char* help,
         const std::optional<double>& value) {
  if (value) family(registry, name, help).Add({}).Set(*value);
}

std::optional<double> unless_negative(int64_t value) {
  if (value < 0) return std::nullopt;
  return static_cast<double>(value);
}

void add_job(Registry& registry, const JobStatus& status) {
  auto& states = family(registry, "sprocket_job_state", "1 for the state that the job is in.");
  for (int i = 0; i < kJobStates; ++i) {
    const auto state = static_cast<JobState>(i);
    states.Add({{"state", name_of(state)}}).Set(state == status.state ? 1 : 0);
  }
  add(registry, "sprocket_job_healthy", "1 while /healthz answers 200.",
      trouble_of(status).empty() ? 1 : 0);
  add(registry, "sprocket_job_seconds", "Since the launch.", status.seconds);
  add(registry, "sprocket_job_steps_done", "Steps done of the whole job.",
      unless_negative(status.step));
  if (status.total_steps > 0) {
    add(registry, "sprocket_job_steps", "Steps that the job is to do.",
        static_cast<double>(status.total_steps));
  }
  add(registry, "sprocket_job_loss", "Of the last step.", status.loss);
  add(registry, "sprocket_job_step_seconds", "Of a step, the median of the last ones.",
      status.step_seconds);
  add(registry, "sprocket_job_tokens_per_second", "Of all ranks.", status.tokens_per_second);
  add(registry, "sprocket_job_exposed_communication_ratio",
      "Share of a step in communication that no compute hid, mean of the ranks.",
      status.exposed_share);
  add(registry, "sprocket_job_eta_seconds", "Steps that are left by the time of a step.",
      status.eta_seconds);
  prometheus::BuildCounter()
      .Name("sprocket_job_restarts_total")
      .Help("Times that the ranks were started again.")
      .Register(registry)
      .Add({})
      .Increment(status.restarts);
  add(registry, "sprocket_job_checkpoint_step", "The newest checkpoint saved since the launch.",
      unless_negative(status.checkpoint_step));
  add(registry, "sprocket_job_checkpoint_age_seconds", "Since that was saved.",
      status.checkpoint_age);
  add(registry, "sprocket_job_idle_seconds", "Since any rank made progress.", status.idle_seconds);
}

void add_ranks(Registry& registry, const JobStatus& status) {
  auto& connected = family(registry, "sprocket_rank_connected", "1 while the rank is heard.");
  auto& silent = family(registry, "sprocket_rank_silent_seconds", "Since it was heard.");
  auto& steps = family(registry, "sprocket_rank_steps_done", "Steps done of the whole job.");
  auto& memory = family(registry, "sprocket_rank_memory_bytes", "Resident memory.");
  auto& own = family(registry, "sprocket_rank_own_seconds",
                     "Of a step without its exposed communication, the median of the last ones.");
  auto& exposed = family(registry, "sprocket_rank_exposed_communication_ratio",
                         "Share of a step in communication that no compute hid.");
  auto& straggler = family(registry, "sprocket_rank_straggler",
                           "1 for a rank that the others wait for in most of the last steps.");
  for (const RankStatus& rank : status.ranks) {
    const prometheus::Labels labels = {{"rank", std::to_string(rank.rank)}, {"host", rank.host}};
    connected.Add(labels).Set(rank.connected ? 1 : 0);
    straggler.Add(labels).Set(status.straggler == rank.rank ? 1 : 0);
    if (rank.process == 0) continue;
    silent.Add(labels).Set(rank.silent_seconds);
    memory.Add(labels).Set(static_cast<double>(rank.memory_bytes));
    if (rank.step >= 0) steps.Add(labels).Set(static_cast<double>(rank.step));
    if (rank.own_seconds) own.Add(labels).Set(*rank.own_seconds);
    if (rank.exposed_share) exposed.Add(labels).Set(*rank.exposed_share);
  }
}

}  // namespace

std::string exposition(const JobStatus& status) {
  Registry registry;
  add_job(registry, status);
  add_ranks(registry, status);
  return prometheus::TextSerializer().Serialize(registry.Collect());
}

}  // namespace sprocket::launcher
