// Serves the example as `sprocket launch --http` serves a job, at a port that it prints, and after
// that whatever status it is given: one JSON object a line. Ends with its standard input.
#include <cstdio>
#include <iostream>
#include <mutex>

#include "launcher/status/http_server.h"
#include "launcher/status/status_answers.h"
#include "launcher/status/status_json.h"
#include "tests/launcher/status/example_status.h"

int main() {
  using namespace sprocket::launcher;
  std::mutex mutex;
  JobStatus status = example_status();
  const HttpServer server(HttpOptions{}, "port", [&](const Question& question) {
    const std::lock_guard lock(mutex);
    return answer(question, Access{}, status);
  });
  std::cout << server.port() << std::endl;
  for (std::string line; std::getline(std::cin, line);) {
    JobStatus next = status_of_json(line, "standard input");
    const std::lock_guard lock(mutex);
    status = std::move(next);
  }
}
