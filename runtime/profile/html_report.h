// report.html: a profile to look at. One file with everything in it; it asks nothing of a network.
#pragma once

#include <string>

namespace sprocket::profile {

// The page for the text of a profile.json (docs/profile.md, schema 2; UTF-8), which it carries
// inside it. Nothing in the text can leave its place in the page: markup in names and paths stays
// text. The text is not parsed here; what the page itself cannot read it says in the report's
// place.
std::string html_report(const std::string& profile_json);

}  // namespace sprocket::profile
