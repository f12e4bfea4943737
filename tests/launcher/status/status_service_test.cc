#include "launcher/status/status_service.h"

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "launcher/status/status_client.h"
#include "launcher/status/status_json.h"
#include "tests/launcher/launch/watched_job.h"

namespace sprocket::launcher {
namespace {

namespace fs = std::filesystem;
using std::chrono::seconds;
using ::testing::AllOf;
using ::testing::HasSubstr;

class StatusServiceTest : public ::testing::Test {
 protected:
  StatusServiceTest() {
    folder_ = ::testing::TempDir() + "status_" + std::to_string(getpid());
    fs::create_directories(folder_);
    facts_.job = {"train"};
    facts_.host = "here";
    facts_.process = getpid();
  }
  ~StatusServiceTest() override { fs::remove_all(folder_); }

  std::string endpoint_path() const { return folder_ + "/" + kEndpointName; }
  void write_text(const std::string& text, mode_t mode = 0600) const {
    std::ofstream(endpoint_path(), std::ios::trunc) << text;
    chmod(endpoint_path().c_str(), mode);
  }
  std::string refusal(const std::string& host = "here") const {
    try {
      read_endpoint(folder_, host);
    } catch (const InputError& error) {
      return error.what();
    }
    return "";
  }
  JobStatus ask(const Endpoint& endpoint) const {
    return status_of_json(ask_status(endpoint.url, endpoint.token, seconds(5)), endpoint.url);
  }
  void make_steps(int64_t step, int64_t checkpoint = -1) {
    watch_.take(joined(0));
    control::Report report = beat(0, step, 10 * step, false);
    report.message.mutable_heartbeat()->set_folder(folder_);
    report.message.mutable_heartbeat()->set_checkpoint_step(checkpoint);
    watch_.take(report);
  }

  std::string folder_;
  JobFacts facts_;
  JobWatch watch_{1, {}};
};

TEST_F(StatusServiceTest, IsFoundByTheFolderAndGoneAtTheEnd) {
  {
    StatusService service({}, facts_);
    service.publish(&watch_);
    EXPECT_FALSE(fs::exists(endpoint_path())) << "nobody has said where";
    make_steps(7, 5);
    service.publish(&watch_);
    struct stat status {};
    ASSERT_EQ(stat(endpoint_path().c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 07777, 0600u);
    const Endpoint endpoint = read_endpoint(folder_, "here");
    EXPECT_EQ(endpoint.token.size(), 64u);
    EXPECT_EQ(endpoint.process, getpid());
    JobStatus seen = ask(endpoint);
    EXPECT_EQ(seen.step, 7);
    EXPECT_EQ(seen.state, JobState::kRunning);
    EXPECT_EQ(seen.checkpoint_step, 5);
    service.facts().restarts = 1;
    service.facts().last_failure = "crash: x";
    service.publish(nullptr);
    seen = ask(endpoint);
    EXPECT_EQ(seen.state, JobState::kWaiting);
    EXPECT_EQ(seen.last_failure, "crash: x");
    EXPECT_EQ(seen.checkpoint_step, 5) << "it is still there between two attempts";
    EXPECT_THROW(ask({endpoint.url, "", "here", 1}), InputError);
    EXPECT_THROW(ask({endpoint.url, std::string(64, '0'), "here", 1}), InputError);
  }
  EXPECT_THAT(refusal(), HasSubstr("no job is supervised here"));
}

TEST_F(StatusServiceTest, AFolderThatCannotBeWrittenIsNoReasonToEnd) {
  make_steps(1);
  control::Report report = beat(0, 2, 20, false);
  report.message.mutable_heartbeat()->set_folder("/proc");
  watch_.take(report);
  StatusService service({}, facts_);
  service.publish(&watch_);
  service.publish(&watch_);
}

TEST_F(StatusServiceTest, OnTheLoopbackAPortOfOnesChoiceAsksForNoToken) {
  uint16_t port = 0;
  {
    const HttpServer probe(HttpOptions{}, "probe", [](const Question&) { return Answer{}; });
    port = probe.port();
  }
  StatusService service({port, "127.0.0.1"}, facts_);
  service.publish(&watch_);
  EXPECT_EQ(ask({fmt::format("http://127.0.0.1:{}", port), "", "", 0}).command, "train");
}

TEST_F(StatusServiceTest, ElsewhereItDoes) {
  StatusService service({0, "0.0.0.0"}, facts_);
  make_steps(1);
  service.publish(&watch_);
  const Endpoint endpoint = read_endpoint(folder_, "here");
  EXPECT_EQ(endpoint.token.size(), 64u);
  const std::string url =
      "http://127.0.0.1:" + endpoint.url.substr(endpoint.url.find_last_of(':') + 1);
  EXPECT_THROW(ask({url, "", "", 0}), InputError);
  EXPECT_EQ(ask({url, endpoint.token, "", 0}).step, 1);
}

TEST_F(StatusServiceTest, WhatIsNoEndpointIsRefused) {
  EXPECT_THAT(refusal(), AllOf(HasSubstr(folder_), HasSubstr("no job is supervised here")));
  const nlohmann::json good = {{"schema", 1},
                               {"url", "http://127.0.0.1:1"},
                               {"token", "t"},
                               {"host", "here"},
                               {"process", getpid()}};
  write_text(good.dump());
  EXPECT_EQ(refusal(), "");
  EXPECT_THAT(refusal("there"),
              HasSubstr("the supervisor is on host here and answers there alone"));
  write_text(good.dump(), 0644);
  EXPECT_THAT(refusal(), HasSubstr("found mode 0644"));
  for (const std::string& text : {std::string(), std::string("{}"), good.dump().substr(0, 20)}) {
    write_text(text);
    EXPECT_THAT(refusal(), HasSubstr("found something else")) << text;
  }
  write_text(std::string(5000, ' '));
  EXPECT_THAT(refusal(), HasSubstr("found more"));
  nlohmann::json other = good;
  other["schema"] = 2;
  write_text(other.dump());
  EXPECT_THAT(refusal(), HasSubstr("expected schema 1, found 2"));
}

TEST_F(StatusServiceTest, WhatAKilledSupervisorLeftIsRefused) {
  const pid_t child = fork();
  if (child == 0) _exit(0);
  ASSERT_EQ(waitpid(child, nullptr, 0), child);
  auto file = write_endpoint(folder_, {"http://127.0.0.1:1", "t", "here", child});
  EXPECT_THAT(refusal(), HasSubstr("is gone, the file is what it left"));
}

}  // namespace
}  // namespace sprocket::launcher
