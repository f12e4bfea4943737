#include "launcher/launch/own_addresses.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>

#include <memory>

namespace sprocket::launcher {

std::vector<std::string> own_addresses() {
  std::vector<std::string> addresses;
  ifaddrs* list = nullptr;
  if (getifaddrs(&list) == 0) {
    const std::unique_ptr<ifaddrs, void (*)(ifaddrs*)> owner(list, freeifaddrs);
    for (const ifaddrs* item = list; item != nullptr; item = item->ifa_next) {
      const bool usable = item->ifa_addr != nullptr && item->ifa_addr->sa_family == AF_INET &&
                          (item->ifa_flags & IFF_UP) != 0 && (item->ifa_flags & IFF_LOOPBACK) == 0;
      if (!usable) continue;
      char text[INET_ADDRSTRLEN] = {};
      const auto* address = reinterpret_cast<const sockaddr_in*>(item->ifa_addr);
      if (inet_ntop(AF_INET, &address->sin_addr, text, sizeof text)) addresses.emplace_back(text);
    }
  }
  addresses.emplace_back("127.0.0.1");
  return addresses;
}

}  // namespace sprocket::launcher
