// Where the supervisor of a run answers: a file in the run's folder while the job is supervised.
#pragma once

#include <memory>
#include <string>

#include "runtime/control/private_file.h"

namespace sprocket::launcher {

inline constexpr const char* kEndpointName = "sprocket_status.json";

struct Endpoint {
  std::string url;    // "http://127.0.0.1:41233"
  std::string token;  // empty: it asks for none
  std::string host;   // of the supervisor
  int process = 0;
};

// In `folder`, of mode 0600. Throws OutputError.
std::unique_ptr<control::PrivateFile> write_endpoint(const std::string& folder,
                                                     const Endpoint& endpoint);

// Throws InputError for a folder without one, for one that others can read, for contents that are
// none, and for what a supervisor of `own_host` that is gone has left.
Endpoint read_endpoint(const std::string& folder, const std::string& own_host);

}  // namespace sprocket::launcher
