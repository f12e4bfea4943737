// How a driver (bench/rank_team.py) talks to the ranks of a resident benchmark: each reads JSON
// lines from the named pipe FOLDER/request.RANK and answers each with one line in
// FOLDER/answer.RANK.
//
// Not through rank 0 and MPI: a rank that waits for a request sleeps and sends nothing, so that the
// other programs of the run have cores and links to themselves.
#pragma once

#include <exception>
#include <fstream>
#include <string>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace sprocket::bench {

// Answers requests until the driver closes the pipe. What `answer` throws becomes {"error": text}.
template <class Answer>
void serve_requests(const std::string& folder, int rank, Answer&& answer) {
  std::ifstream requests(fmt::format("{}/request.{}", folder, rank));
  std::ofstream answers(fmt::format("{}/answer.{}", folder, rank));
  SPROCKET_CHECK(requests.good() && answers.good(), "{} has no pipes of rank {}", folder, rank);
  for (std::string line; std::getline(requests, line);) {
    nlohmann::json reply;
    try {
      reply = answer(nlohmann::json::parse(line));
    } catch (const std::exception& error) {
      reply = {{"error", error.what()}};
    }
    answers << reply.dump() << std::endl;
  }
}

}  // namespace sprocket::bench
