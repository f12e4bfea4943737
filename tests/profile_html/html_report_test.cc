#include "runtime/profile/html_report.h"

#include <gtest/gtest.h>

namespace sprocket::profile {
namespace {

size_t count(const std::string& text, const std::string& what) {
  size_t found = 0;
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++found;
  return found;
}

const std::string kOpening = R"(<script type="application/json" id="profile">)";

std::string carried(const std::string& page) {
  const size_t begin = page.find(kOpening) + kOpening.size();
  return page.substr(begin, page.find("</script>", begin) - begin);
}

TEST(HtmlReport, CarriesTheProfile) {
  const std::string json = R"({"schema":2,"title":"plain, \"quoted\" \\ пусть"})";
  EXPECT_EQ(carried(html_report(json)), json);
}

TEST(HtmlReport, MarkupInStringsStaysInItsPlace) {
  const std::string page = html_report(R"({"title":"</script><!--<script>{{style}}"})");
  EXPECT_EQ(carried(page), R"({"title":"\u003c/script>\u003c!--\u003cscript>{{style}}"})");
}

TEST(HtmlReport, NoTextEndsTheElementThatHoldsIt) {
  const std::string page = html_report("{}");
  EXPECT_EQ(count(page, "</script"), 3u);
  EXPECT_EQ(count(page, "</style"), 1u);
  EXPECT_EQ(page.substr(page.size() - 8), "</html>\n");
}

TEST(HtmlReport, CarriesTheChartsWithTheirLicence) {
  const std::string page = html_report("{}");
  EXPECT_NE(page.find("Licensed to the Apache Software Foundation (ASF)"), std::string::npos);
  EXPECT_GT(page.size(), 1'000'000u);
}

TEST(HtmlReport, RefersToNothingOutside) {
  const std::string page = html_report("{}");
  EXPECT_EQ(count(page, "<link"), 0u);
  EXPECT_EQ(count(page, "<script src"), 0u);
  EXPECT_EQ(count(page, "@import"), 0u);
  EXPECT_NE(page.find("default-src 'none'"), std::string::npos);
}

}  // namespace
}  // namespace sprocket::profile
