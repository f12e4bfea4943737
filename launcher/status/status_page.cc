#include "launcher/status/status_page.h"

// By the assembler (launcher/CMakeLists.txt).
extern "C" {
extern const char sprocket_status_page[], sprocket_status_page_end[];
}

namespace sprocket::launcher {

std::string_view status_page() {
  return {sprocket_status_page,
          static_cast<size_t>(sprocket_status_page_end - sprocket_status_page)};
}

}  // namespace sprocket::launcher
