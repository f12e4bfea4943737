#include "runtime/profile/html_report.h"

#include <string_view>

#include "base/error.h"

// The page's sources and the charts' library, by the assembler (html/CMakeLists.txt).
extern "C" {
extern const char sprocket_html_page[], sprocket_html_page_end[];
extern const char sprocket_html_style[], sprocket_html_style_end[];
extern const char sprocket_html_charts[], sprocket_html_charts_end[];
extern const char sprocket_html_script[], sprocket_html_script_end[];
}

namespace sprocket::profile {
namespace {

const std::string_view kPage(sprocket_html_page, sprocket_html_page_end);
const std::string_view kStyle(sprocket_html_style, sprocket_html_style_end);
const std::string_view kCharts(sprocket_html_charts, sprocket_html_charts_end);
const std::string_view kScript(sprocket_html_script, sprocket_html_script_end);

// A script element ends at "</script", and a comment in it changes how it is read: neither can be
// without '<', which JSON has in strings only and may write as an escape.
void append_json(const std::string& json, std::string& page) {
  for (const char c : json) {
    if (c == '<') {
      page += "\\u003c";
    } else {
      page += c;
    }
  }
}

}  // namespace

std::string html_report(const std::string& profile_json) {
  std::string page;
  page.reserve(kPage.size() + kCharts.size() + kScript.size() + profile_json.size() + 65536);
  std::string_view rest = kPage;
  for (;;) {
    const size_t open = rest.find("{{");
    page += rest.substr(0, open);
    if (open == std::string_view::npos) return page;
    const size_t close = rest.find("}}", open);
    const std::string_view place = rest.substr(open + 2, close - open - 2);
    if (place == "style") {
      page += kStyle;
    } else if (place == "charts") {
      page += kCharts;
    } else if (place == "script") {
      page += kScript;
    } else {
      SPROCKET_CHECK(place == "profile", "the page has a place '{}'", place);
      append_json(profile_json, page);
    }
    rest.remove_prefix(close + 2);
  }
}

}  // namespace sprocket::profile
