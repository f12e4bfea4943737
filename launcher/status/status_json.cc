#include "launcher/status/status_json.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/error.h"

namespace sprocket::launcher {
namespace {

using nlohmann::json;

template <class T>
json known(const std::optional<T>& value) {
  return value ? json(*value) : json(nullptr);
}

template <class T>
void read(const json& object, const char* name, std::optional<T>& value) {
  const json& found = object.at(name);
  if (!found.is_null()) value = found.get<T>();
}

template <class T>
void read(const json& object, const char* name, T& value) {
  object.at(name).get_to(value);
}

JobState state_of_name(const std::string& name) {
  for (int i = 0; i < kJobStates; ++i) {
    if (name == name_of(static_cast<JobState>(i))) return static_cast<JobState>(i);
  }
  throw InputError(fmt::format("\"{}\" is no state of a job", name));
}

json rank_json(const RankStatus& rank) {
  return {{"rank", rank.rank},
          {"host", rank.host},
          {"process", rank.process},
          {"connected", rank.connected},
          {"lost", rank.lost},
          {"section", rank.section},
          {"operation", rank.operation},
          {"in_operation", rank.in_operation},
          {"step", rank.step},
          {"memory_bytes", rank.memory_bytes},
          {"silent_seconds", rank.silent_seconds},
          {"own_seconds", known(rank.own_seconds)},
          {"exposed_communication_share", known(rank.exposed_share)}};
}

RankStatus rank_of(const json& object) {
  RankStatus rank;
  read(object, "rank", rank.rank);
  read(object, "host", rank.host);
  read(object, "process", rank.process);
  read(object, "connected", rank.connected);
  read(object, "lost", rank.lost);
  read(object, "section", rank.section);
  read(object, "operation", rank.operation);
  read(object, "in_operation", rank.in_operation);
  read(object, "step", rank.step);
  read(object, "memory_bytes", rank.memory_bytes);
  read(object, "silent_seconds", rank.silent_seconds);
  read(object, "own_seconds", rank.own_seconds);
  read(object, "exposed_communication_share", rank.exposed_share);
  return rank;
}

JobStatus job_of(const json& job) {
  JobStatus status;
  read(job, "command", status.command);
  read(job, "folder", status.folder);
  read(job, "host", status.host);
  read(job, "process", status.process);
  status.state = state_of_name(job.at("state").get<std::string>());
  read(job, "seconds", status.seconds);
  read(job, "step", status.step);
  read(job, "total_steps", status.total_steps);
  read(job, "loss", status.loss);
  read(job, "step_seconds", status.step_seconds);
  read(job, "tokens_per_second", status.tokens_per_second);
  read(job, "exposed_communication_share", status.exposed_share);
  read(job, "eta_seconds", status.eta_seconds);
  read(job, "slowest_rank", status.slowest_rank);
  read(job, "straggler", status.straggler);
  read(job, "straggler_sentence", status.straggler_sentence);
  read(job, "restarts", status.restarts);
  read(job, "last_failure", status.last_failure);
  read(job, "checkpoint_step", status.checkpoint_step);
  read(job, "checkpoint_age_seconds", status.checkpoint_age);
  read(job, "idle_seconds", status.idle_seconds);
  read(job, "idle_limit_seconds", status.idle_limit);
  return status;
}

}  // namespace

std::string to_json(const JobStatus& status) {
  json ranks = json::array();
  for (const RankStatus& rank : status.ranks) ranks.push_back(rank_json(rank));
  const json all = {{"schema", kStatusSchema},
                    {"job",
                     {{"command", status.command},
                      {"folder", status.folder},
                      {"host", status.host},
                      {"process", status.process},
                      {"state", name_of(status.state)},
                      {"trouble", trouble_of(status)},
                      {"seconds", status.seconds},
                      {"step", status.step},
                      {"total_steps", status.total_steps},
                      {"loss", known(status.loss)},
                      {"step_seconds", known(status.step_seconds)},
                      {"tokens_per_second", known(status.tokens_per_second)},
                      {"exposed_communication_share", known(status.exposed_share)},
                      {"eta_seconds", known(status.eta_seconds)},
                      {"slowest_rank", known(status.slowest_rank)},
                      {"straggler", known(status.straggler)},
                      {"straggler_sentence", status.straggler_sentence},
                      {"restarts", status.restarts},
                      {"last_failure", status.last_failure},
                      {"checkpoint_step", status.checkpoint_step},
                      {"checkpoint_age_seconds", known(status.checkpoint_age)},
                      {"idle_seconds", status.idle_seconds},
                      {"idle_limit_seconds", status.idle_limit}}},
                    {"ranks", std::move(ranks)}};
  // What ranks said of themselves may be anything.
  return all.dump(-1, ' ', false, json::error_handler_t::replace);
}

JobStatus status_of_json(std::string_view text, const std::string& where) {
  try {
    const json all = json::parse(text);
    const int schema = all.at("schema").get<int>();
    if (schema != kStatusSchema) {
      throw InputError(fmt::format("schema {}, expected {}", schema, kStatusSchema));
    }
    JobStatus status = job_of(all.at("job"));
    for (const json& rank : all.at("ranks")) status.ranks.push_back(rank_of(rank));
    return status;
  } catch (const json::exception& error) {
    throw InputError(fmt::format("{}: expected the status of a job, found something else ({})",
                                 where, error.what()));
  } catch (const InputError& error) {
    throw InputError(
        fmt::format("{}: expected the status of a job, found {}", where, error.what()));
  }
}

}  // namespace sprocket::launcher
