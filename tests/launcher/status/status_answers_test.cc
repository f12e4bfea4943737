#include "launcher/status/status_answers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "launcher/status/status_json.h"
#include "tests/launcher/status/example_status.h"

namespace sprocket::launcher {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

const std::string kToken(64, 'a');

Question ask(const std::string& target) {
  Question question;
  question.known_method = true;
  question.target = target;
  question.host = "127.0.0.1:8080";
  return question;
}

Answer of(const Question& question, const Access& access = {}) {
  return answer(question, access, example_status());
}

std::string header(const Answer& answer, const std::string& name) {
  for (const auto& [key, value] : answer.headers) {
    if (key == name) return value;
  }
  return "";
}

TEST(StatusAnswers, WhatCanBeAsked) {
  const Answer page = of(ask("/"));
  EXPECT_EQ(page.code, 200u);
  EXPECT_EQ(page.type, "text/html; charset=utf-8");
  EXPECT_THAT(page.body, StartsWith("<!doctype html>"));
  EXPECT_THAT(header(page, "Content-Security-Policy"), HasSubstr("default-src 'none'"));
  const Answer json = of(ask("/status.json?now"));
  EXPECT_EQ(json.type, "application/json");
  EXPECT_EQ(json.body, to_json(example_status()) + "\n");
  EXPECT_THAT(of(ask("/metrics")).body, HasSubstr("sprocket_job_steps_done 120"));
  EXPECT_EQ(of(ask("/healthz")).body, "ok\n");
}

TEST(StatusAnswers, HealthSaysWhatIsWrong) {
  JobStatus status = example_status();
  status.ranks[1].lost = true;
  const Answer sick = answer(ask("/healthz"), {}, status);
  EXPECT_EQ(sick.code, 503u);
  EXPECT_EQ(sick.body, "rank 1 is lost\n");
}

TEST(StatusAnswers, NothingElseIsThere) {
  for (const char* target : {"", "//", "/index.html", "/../etc/passwd", "/status.json/..",
                             "/%2e%2e/etc/passwd", "http://other/", "*", "/Metrics"}) {
    EXPECT_EQ(of(ask(target)).code, 404u) << target;
  }
  Question post = ask("/");
  post.known_method = false;
  EXPECT_EQ(of(post).code, 405u);
  EXPECT_EQ(header(of(post), "Allow"), "GET, HEAD");
}

TEST(StatusAnswers, OnTheLoopbackOnlyItsOwnNamesAreAnswered) {
  for (const char* host : {"localhost", "localhost:1", "127.0.0.1", "127.0.0.1:8080", "127.0.0.2:1",
                           "[::1]", "[::1]:8080"}) {
    Question question = ask("/");
    question.host = host;
    EXPECT_EQ(of(question).code, 200u) << host;
  }
  for (const char* host : {"", "evil.example", "evil.example:8080", "localhost.evil.example",
                           "127.0.0.1.evil.example", "[::1", "::1", ":8080", "[::1]x:1"}) {
    Question question = ask("/status.json");
    question.host = host;
    EXPECT_EQ(of(question).code, 421u) << host;
  }
  Access elsewhere;
  elsewhere.loopback = false;
  elsewhere.token = kToken;
  Question question = ask("/healthz");
  question.host = "node7:8080";
  question.authorization = "Bearer " + kToken;
  EXPECT_EQ(of(question, elsewhere).code, 200u);
}

TEST(StatusAnswers, ATokenIsAskedFor) {
  const Access access{.token = kToken, .port = 8080};
  for (const char* target : {"/", "/status.json", "/metrics", "/healthz", "/nothing"}) {
    const Answer refused = of(ask(target), access);
    EXPECT_EQ(refused.code, 401u) << target;
    EXPECT_EQ(header(refused, "WWW-Authenticate"), "Bearer");
    EXPECT_THAT(refused.body, Not(HasSubstr(kToken)));
  }
  const std::string wrong_end = kToken.substr(1) + "b";
  for (const std::string& shown :
       {"Bearer " + wrong_end, "Bearer " + kToken + "a", "Bearer " + kToken.substr(1),
        std::string("Bearer "), "bearer " + kToken, "Basic " + kToken, kToken}) {
    Question question = ask("/status.json");
    question.authorization = shown;
    EXPECT_EQ(of(question, access).code, 401u) << shown;
  }
  Question question = ask("/status.json");
  question.authorization = "Bearer " + kToken;
  EXPECT_EQ(of(question, access).code, 200u);
}

TEST(StatusAnswers, ABrowserShowsItOnce) {
  const Access access{.token = kToken, .port = 8080};
  const Answer moved = of(ask("/?token=" + kToken), access);
  EXPECT_EQ(moved.code, 303u);
  EXPECT_EQ(header(moved, "Location"), "/");
  EXPECT_EQ(header(moved, "Set-Cookie"),
            "sprocket_8080=" + kToken + "; HttpOnly; SameSite=Strict; Path=/");
  EXPECT_EQ(of(ask("/?token=" + kToken.substr(1)), access).code, 401u);
  EXPECT_EQ(of(ask("/status.json?token=" + kToken), access).code, 401u);
  for (const auto& [cookie, code] : std::initializer_list<std::pair<std::string, unsigned>>{
           {"sprocket_8080=" + kToken, 200},
           {"a=b; sprocket_8080=" + kToken + "; c", 200},
           {"sprocket_9090=" + kToken, 401},
           {"xsprocket_8080=" + kToken, 401},
           {"sprocket_8080=" + kToken + "a", 401},
           {"sprocket_8080", 401},
           {";;;=", 401}}) {
    Question question = ask("/status.json");
    question.cookie = cookie;
    EXPECT_EQ(of(question, access).code, code) << cookie;
  }
}

}  // namespace
}  // namespace sprocket::launcher
