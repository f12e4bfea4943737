// A watch that is told what ranks would say, without ranks.
#pragma once

#include <string>

#include "base/exit_code.h"
#include "launcher/launch/job_watch.h"

namespace sprocket::launcher {

inline control::Report joined(int rank, const std::string& host = "here") {
  control::Report report{control::Report::Kind::kJoined, rank, {}, ""};
  report.message.mutable_hello()->set_host(host);
  report.message.mutable_hello()->set_process(1000 + rank);
  return report;
}

inline control::Report lost(int rank) {
  return {control::Report::Kind::kLost, rank, {}, "End of file"};
}

inline control::Report finished(int rank, int code = 0) {
  control::Report report{control::Report::Kind::kMessage, rank, {}, ""};
  report.message.mutable_finished()->set_exit_code(code);
  return report;
}

inline control::Report failed(int rank, ExitCode code, const std::string& what,
                              bool of_a_peer = false) {
  control::Report report{control::Report::Kind::kMessage, rank, {}, ""};
  report.message.mutable_error()->set_exit_code(static_cast<int>(code));
  report.message.mutable_error()->set_message(what);
  report.message.mutable_error()->set_of_a_peer(of_a_peer);
  return report;
}

// In an exchange of the group sp.outer, or past it.
inline control::Report beat(int rank, int64_t step, int64_t sequence, bool unfinished) {
  control::Report report{control::Report::Kind::kMessage, rank, {}, ""};
  control::Heartbeat& heartbeat = *report.message.mutable_heartbeat();
  heartbeat.set_section(static_cast<int>(control::Section::kStep));
  heartbeat.set_step(step);
  control::Operation& operation = *heartbeat.add_operation();
  operation.set_communicator("sp.outer");
  operation.set_leader(0);
  operation.set_ranks(4);
  operation.set_sequence(sequence);
  operation.set_name("exchange");
  operation.set_unfinished(unfinished);
  operation.set_step(step);
  operation.set_phase("backward");
  operation.set_layer(3);
  operation.set_age_ms(100);
  return report;
}

}  // namespace sprocket::launcher
