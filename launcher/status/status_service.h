// Answers questions about a job for as long as it is supervised, over all its attempts.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "launcher/status/endpoint_file.h"
#include "launcher/status/http_server.h"
#include "launcher/status/job_status.h"
#include "launcher/status/status_answers.h"

namespace sprocket::launcher {

struct StatusOptions {
  // Empty: any that is free, on the loopback, with a token.
  std::optional<uint16_t> port;
  std::string listen = "127.0.0.1";  // numeric address
};

// All functions are the supervisor's thread's.
class StatusService {
 public:
  // Throws ConfigError when the address or port cannot be had, OutputError.
  StatusService(const StatusOptions& options, JobFacts facts);
  ~StatusService();
  StatusService(const StatusService&) = delete;
  StatusService& operator=(const StatusService&) = delete;

  // Is shown from the next publish().
  JobFacts& facts() { return facts_; }
  // Shows the attempt that `watch` is of; null: none runs. As soon as the ranks have said where
  // their files go, an endpoint file lies there.
  void publish(const JobWatch* watch);
  // The same, at most four times a second.
  void refresh(const JobWatch& watch);

 private:
  void place_endpoint(const std::string& folder);

  JobFacts facts_;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::chrono::steady_clock::time_point published_;
  Access access_;
  std::string url_;
  std::unique_ptr<control::PrivateFile> token_file_, endpoint_;
  bool endpoint_failed_ = false;
  std::mutex mutex_;
  JobStatus newest_;
  std::optional<HttpServer> server_;
};

}  // namespace sprocket::launcher
