#include "launcher/launch/hosts.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <sstream>

#include "base/error.h"

namespace sprocket::launcher {
namespace {

constexpr int kMaxSlots = 1 << 20;

bool is_name(const std::string& text) {
  // A name that begins with a dash would be a flag of mpirun's.
  return !text.empty() && text.front() != '-' &&
         std::all_of(text.begin(), text.end(), [](unsigned char c) {
           return std::isalnum(c) != 0 || c == '-' || c == '.' || c == '_';
         });
}

// 10.0.0.1 is not host 10 with a domain.
bool is_address(const std::string& name) {
  return name.find_first_not_of("0123456789.") == std::string::npos;
}

int parse_slots(const std::string& text, const std::string& where) {
  int slots = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), slots);
  if (error != std::errc() || end != text.data() + text.size() || slots < 1 || slots > kMaxSlots) {
    throw ConfigError(fmt::format("{}: expected a number of ranks from 1 to {}, found \"{}\"",
                                  where, kMaxSlots, text));
  }
  return slots;
}

void add(std::vector<HostSlots>& hosts, const HostSlots& host, const std::string& where) {
  if (!is_name(host.name)) {
    throw ConfigError(
        fmt::format("{}: expected the name of a host, found \"{}\"", where, host.name));
  }
  for (const HostSlots& other : hosts) {
    if (other.name == host.name) {
      throw ConfigError(fmt::format("{}: {} is named twice", where, host.name));
    }
    if (same_host(other.name, host.name)) {
      throw ConfigError(
          fmt::format("{}: {} is named twice, first as {}", where, host.name, other.name));
    }
  }
  hosts.push_back(host);
}

}  // namespace

std::vector<HostSlots> parse_hosts(const std::string& text) {
  std::vector<HostSlots> hosts;
  std::istringstream items(text + ",");
  for (std::string item; std::getline(items, item, ',');) {
    HostSlots host{item, 1};
    if (const size_t colon = item.find(':'); colon != std::string::npos) {
      host = {item.substr(0, colon), parse_slots(item.substr(colon + 1), "--hosts: " + item)};
    }
    add(hosts, host, "--hosts");
  }
  return hosts;
}

std::vector<HostSlots> read_hostfile(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw ConfigError(fmt::format("--hostfile: cannot read {}", path));
  std::vector<HostSlots> hosts;
  int number = 0;
  for (std::string line; std::getline(file, line);) {
    const std::string where = fmt::format("{}:{}", path, ++number);
    std::istringstream words(line.substr(0, line.find('#')));
    HostSlots host;
    if (!(words >> host.name)) continue;
    for (std::string word; words >> word;) {
      if (word.starts_with("slots=")) {
        host.slots = parse_slots(word.substr(6), where);
      } else {
        throw ConfigError(fmt::format("{}: expected NAME slots=N, found \"{}\"", where, word));
      }
    }
    add(hosts, host, where);
  }
  if (hosts.empty()) throw ConfigError(fmt::format("{}: expected hosts, found none", path));
  return hosts;
}

std::vector<HostSlots> hosts_for(const std::vector<HostSlots>& hosts, int ranks) {
  std::vector<HostSlots> used;
  for (const HostSlots& host : hosts) {
    if (total_slots(used) >= ranks) break;
    used.push_back(host);
  }
  return used;
}

bool same_host(const std::string& a, const std::string& b) {
  if (a == b) return true;
  const std::string &shorter = a.size() < b.size() ? a : b, &longer = a.size() < b.size() ? b : a;
  return !shorter.empty() && shorter.find('.') == std::string::npos &&
         longer.starts_with(shorter + ".") && !is_address(longer);
}

int total_slots(const std::vector<HostSlots>& hosts) {
  int slots = 0;
  for (const HostSlots& host : hosts) slots += host.slots;
  return slots;
}

}  // namespace sprocket::launcher
