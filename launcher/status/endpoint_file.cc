#include "launcher/status/endpoint_file.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "launcher/launch/process_state.h"

namespace sprocket::launcher {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

constexpr size_t kMaxBytes = 4096;
constexpr int kSchema = 1;

bool is_of_loopback(const std::string& url) {
  return url.starts_with("http://127.") || url.starts_with("http://[::1]");
}

}  // namespace

std::unique_ptr<control::PrivateFile> write_endpoint(const std::string& folder,
                                                     const Endpoint& endpoint) {
  const json text = {{"schema", kSchema},
                     {"url", endpoint.url},
                     {"token", endpoint.token},
                     {"host", endpoint.host},
                     {"process", endpoint.process}};
  return std::make_unique<control::PrivateFile>((fs::path(folder) / kEndpointName).string(),
                                                text.dump() + "\n");
}

Endpoint read_endpoint(const std::string& folder, const std::string& own_host) {
  const std::string path = (fs::path(folder) / kEndpointName).string();
  if (!fs::exists(path)) {
    throw InputError(
        fmt::format("{}: no job is supervised here: expected {}, which `sprocket launch` keeps in "
                    "the folder of "
                    "a run until the job ends",
                    folder, kEndpointName));
  }
  const std::string text =
      control::read_private_file(path, kMaxBytes, "the file that `sprocket launch` keeps there");
  Endpoint endpoint;
  try {
    const json object = json::parse(text);
    if (const int schema = object.at("schema").get<int>(); schema != kSchema) {
      throw InputError(fmt::format("{}: expected schema {}, found {}", path, kSchema, schema));
    }
    object.at("url").get_to(endpoint.url);
    object.at("token").get_to(endpoint.token);
    object.at("host").get_to(endpoint.host);
    object.at("process").get_to(endpoint.process);
  } catch (const json::exception&) {
    throw InputError(fmt::format(
        "{}: expected what `sprocket launch` writes there, found something else", path));
  }
  if (endpoint.host == own_host && process_state(endpoint.process) == ProcessState::kGone) {
    throw InputError(fmt::format(
        "{}: the supervisor (process {}) is gone, the file is what it left: it was killed", path,
        endpoint.process));
  }
  if (endpoint.host != own_host && is_of_loopback(endpoint.url)) {
    throw InputError(fmt::format(
        "{}: the supervisor is on host {} and answers there alone, expected it on this one ({}): "
        "ask there, or launch with --http and --http-listen",
        path, endpoint.host, own_host));
  }
  return endpoint;
}

}  // namespace sprocket::launcher
