// What the status port answers to whom.
//
//   /             the page (page.html), which asks for /status.json by itself
//   /status.json  launcher/status/status_json.h
//   /metrics      launcher/status/exposition.h
//   /healthz      200, or 503 and why (trouble_of)
#pragma once

#include <cstdint>
#include <string>

#include "launcher/status/http_server.h"
#include "launcher/status/job_status.h"

namespace sprocket::launcher {

struct Access {
  // Questions must show it, as `Authorization: Bearer …` or in a cookie; /?token=… is answered by
  // that cookie. Empty: anybody may ask.
  std::string token;
  uint16_t port = 0;  // in the cookie's name, which browsers keep for all ports of a host
  // Listens on the loopback alone: questions for any other host name are refused. A page of another
  // site could otherwise have its name resolved to this port, and read the answers.
  bool loopback = true;
};

Answer answer(const Question& question, const Access& access, const JobStatus& status);

}  // namespace sprocket::launcher
