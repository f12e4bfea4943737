#include "launcher/status/status_service.h"

#include <boost/asio/ip/address.hpp>
#include <filesystem>

#include "base/error.h"
#include "base/log.h"
#include "runtime/control/secret.h"

namespace sprocket::launcher {
namespace {

namespace fs = std::filesystem;
using std::chrono::duration;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr auto kRefresh = milliseconds(250);

// False as well for what is no address, which the server refuses.
bool is_loopback(const std::string& address) {
  boost::system::error_code error;
  return boost::asio::ip::make_address(address, error).is_loopback();
}

std::string url_of(const std::string& listen, const std::string& host, uint16_t port) {
  if (listen == "0.0.0.0" || listen == "::") return fmt::format("http://{}:{}", host, port);
  const bool v6 = listen.find(':') != std::string::npos;
  return v6 ? fmt::format("http://[{}]:{}", listen, port)
            : fmt::format("http://{}:{}", listen, port);
}

}  // namespace

StatusService::StatusService(const StatusOptions& options, JobFacts facts)
    : facts_(std::move(facts)) {
  access_.loopback = is_loopback(options.listen);
  if (!options.port || !access_.loopback) access_.token = control::Secret::random().hex();
  newest_ = make_status(facts_, nullptr);
  newest_.state = JobState::kStarting;
  HttpOptions http;
  http.listen = options.listen;
  http.port = options.port.value_or(0);
  server_.emplace(http, "--http", [this](const Question& question) {
    const std::lock_guard lock(mutex_);
    return answer(question, access_, newest_);
  });
  {
    const std::lock_guard lock(mutex_);
    access_.port = server_->port();
  }
  url_ = url_of(options.listen, facts_.host, server_->port());
  if (!options.port) return;
  if (access_.token.empty()) {
    spdlog::info("launch: status at {}/", url_);
    return;
  }
  const fs::path file =
      fs::temp_directory_path() / ("sprocket-" + control::random_name() + ".token");
  token_file_ = std::make_unique<control::PrivateFile>(file.string(), access_.token + "\n");
  spdlog::info("launch: status at {}/ for who shows the token of {}", url_, file.string());
}

StatusService::~StatusService() {
  // Whoever sees that the file is gone knows that the job has ended.
  endpoint_.reset();
  server_.reset();
}

void StatusService::publish(const JobWatch* watch) {
  published_ = steady_clock::now();
  facts_.seconds = duration<double>(published_ - start_).count();
  if (watch && watch->newest_checkpoint() > facts_.checkpoint_step) {
    facts_.checkpoint_step = watch->newest_checkpoint();
    facts_.checkpoint_at = facts_.seconds;
  }
  JobStatus status = make_status(facts_, watch);
  if (!status.folder.empty()) place_endpoint(status.folder);
  const std::lock_guard lock(mutex_);
  newest_ = std::move(status);
}

void StatusService::refresh(const JobWatch& watch) {
  if (steady_clock::now() - published_ >= kRefresh) publish(&watch);
}

void StatusService::place_endpoint(const std::string& folder) {
  // `sample` makes its folder when it has a video.
  std::error_code error;
  if (endpoint_ || endpoint_failed_ || !fs::exists(folder, error)) return;
  try {
    endpoint_ = write_endpoint(folder, {url_, access_.token, facts_.host, facts_.process});
  } catch (const OutputError& failure) {
    endpoint_failed_ = true;
    spdlog::warn("launch: `sprocket status` will not find the job: {}", failure.what());
  }
}

}  // namespace sprocket::launcher
