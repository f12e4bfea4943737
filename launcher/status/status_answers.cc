#include "launcher/status/status_answers.h"

#include <string_view>

#include <fmt/format.h>

#include "launcher/status/exposition.h"
#include "launcher/status/status_json.h"
#include "launcher/status/status_page.h"
#include "runtime/control/secret.h"

namespace sprocket::launcher {
namespace {

constexpr std::string_view kBearer = "Bearer ";
constexpr std::string_view kTokenQuery = "token=";
constexpr const char* kPageRules =
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src "
    "'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

std::string cookie_name(const Access& access) { return fmt::format("sprocket_{}", access.port); }

// "a=1; b=2"
std::string_view cookie_of(std::string_view cookies, const std::string& name) {
  while (!cookies.empty()) {
    const size_t end = cookies.find(';');
    std::string_view one = cookies.substr(0, end);
    while (one.starts_with(' ')) one.remove_prefix(1);
    if (one.starts_with(name) && one.substr(name.size()).starts_with('=')) {
      return one.substr(name.size() + 1);
    }
    cookies = end == std::string_view::npos ? std::string_view() : cookies.substr(end + 1);
  }
  return {};
}

bool shows_token(const Question& question, const Access& access) {
  const std::string_view authorization = question.authorization;
  if (authorization.starts_with(kBearer)) {
    return control::equal_macs(authorization.substr(kBearer.size()), access.token);
  }
  return control::equal_macs(cookie_of(question.cookie, cookie_name(access)), access.token);
}

// Without the port, which a tunnel may have changed. Only names can be made to lead here.
bool is_loopback_name(std::string_view host) {
  const size_t colon = host.starts_with('[') ? host.find("]:") : host.find(':');
  if (colon != std::string_view::npos) host = host.substr(0, colon + (host[colon] == ']' ? 1 : 0));
  const bool v4 =
      host.starts_with("127.") && host.find_first_not_of("0123456789.") == std::string_view::npos;
  return v4 || host == "localhost" || host == "[::1]";
}

Answer without_token() {
  return {.code = 401,
          .body =
              "expected the token of this launch: as `Authorization: Bearer TOKEN`, or once as "
              "/?token=TOKEN in a browser; `sprocket launch` has said which file holds it\n",
          .headers = {{"WWW-Authenticate", "Bearer"}}};
}

Answer health(const JobStatus& status) {
  const std::string trouble = trouble_of(status);
  if (trouble.empty()) return {.body = "ok\n"};
  return {.code = 503, .body = trouble + "\n"};
}

}  // namespace

Answer answer(const Question& question, const Access& access, const JobStatus& status) {
  if (access.loopback && !is_loopback_name(question.host)) {
    return {.code = 421, .body = "expected a question for localhost, found one for another host\n"};
  }
  if (!question.known_method) {
    return {.code = 405, .body = "expected GET or HEAD\n", .headers = {{"Allow", "GET, HEAD"}}};
  }
  const std::string_view target = question.target;
  const size_t mark = target.find('?');
  const std::string_view path = target.substr(0, mark);
  const std::string_view query =
      mark == std::string_view::npos ? std::string_view() : target.substr(mark + 1);
  if (path == "/" && query.starts_with(kTokenQuery) && !access.token.empty()) {
    if (!control::equal_macs(query.substr(kTokenQuery.size()), access.token)) {
      return without_token();
    }
    const std::string cookie =
        fmt::format("{}={}; HttpOnly; SameSite=Strict; Path=/", cookie_name(access), access.token);
    return {.code = 303, .headers = {{"Location", "/"}, {"Set-Cookie", cookie}}};
  }
  if (!access.token.empty() && !shows_token(question, access)) return without_token();
  if (path == "/") {
    return {.type = "text/html; charset=utf-8",
            .body = std::string(status_page()),
            .headers = {{"Content-Security-Policy", kPageRules}}};
  }
  if (path == "/status.json") return {.type = "application/json", .body = to_json(status) + "\n"};
  if (path == "/metrics") return {.type = kExpositionType, .body = exposition(status)};
  if (path == "/healthz") return health(status);
  return {.code = 404, .body = "expected /, /status.json, /metrics or /healthz\n"};
}

}  // namespace sprocket::launcher
