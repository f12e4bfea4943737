#include <filesystem>
#include <regex>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "configs/cluster.h"

namespace sprocket::config {
namespace {

using ::testing::HasSubstr;

constexpr char kHead[] =
    "name: 'two boxes' nodes: 2 devices: 1\nmemory_gib: 8 copy_gb_s: 10 call_us: 5\n";
constexpr char kLink[] =
    "link { class: BETWEEN_NODES bandwidth_gb_s: 1 latency_us: 50 message_us: 5 duplex: FULL "
    "adapter: PER_DEVICE overlap: 0.5 }\n";
constexpr char kRates[] =
    "rates { precision: FP32 attention_forward_tflops: 1 attention_backward_tflops: 1 "
    "attention_forward_row_ns: 0 attention_backward_row_ns: 0\n"
    "  linear_tflops: 1 selection_tflops: 1 }\n";

std::string problems(const std::string& text) {
  try {
    parse_cluster(text, "c.txtpb");
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

std::string whole() { return std::string(kHead) + kLink + kRates; }

TEST(Cluster, ReadsWhatItWrites) {
  const Cluster cluster = parse_cluster(whole(), "c.txtpb");
  EXPECT_EQ(cluster.nodes(), 2);
  EXPECT_EQ(cluster.link(0).class_(), Link::BETWEEN_NODES);
  EXPECT_EQ(to_text(parse_cluster(to_text(cluster), "again")), to_text(cluster));
}

TEST(Cluster, UnknownLinkClass) {
  EXPECT_EQ(problems(replaced(whole(), "BETWEEN_NODES", "BETWEEN_NODE")),
            "c.txtpb:3:15: link[0].class: expected one of INSIDE_NODE, BETWEEN_NODES, found "
            "BETWEEN_NODE; did you mean BETWEEN_NODES?");
}

TEST(Cluster, ZeroAndNegativeFigures) {
  EXPECT_EQ(problems(replaced(whole(), "bandwidth_gb_s: 1", "bandwidth_gb_s: 0")),
            "c.txtpb:3:29: link[0].bandwidth_gb_s: 0; legal: above 0, at most 1000000000");
  EXPECT_EQ(problems(replaced(whole(), "latency_us: 50", "latency_us: -1")),
            "c.txtpb:3:47: link[0].latency_us: -1; legal: 0 to 1000000000");
  EXPECT_EQ(problems(replaced(whole(), "overlap: 0.5", "overlap: 1.5")),
            "c.txtpb:3:109: link[0].overlap: 1.5; legal: 0 to 1");
  EXPECT_EQ(problems(replaced(whole(), "nodes: 2", "nodes: 0")),
            "c.txtpb:1:19: nodes: 0; legal: 1 to 1048576");
  EXPECT_EQ(problems(replaced(whole(), "linear_tflops: 1", "linear_tflops: 1e30")),
            "c.txtpb:5:3: rates[0].linear_tflops: 1e+30; legal: above 0, at most 1000000000");
}

TEST(Cluster, MissingFieldsAreNamedWhereTheyBelong) {
  EXPECT_EQ(problems(replaced(whole(), "latency_us: 50", "")),
            "c.txtpb:3:1: link[0].latency_us: not given; every field of a cluster is needed");
  EXPECT_EQ(problems(replaced(whole(), "memory_gib: 8", "")),
            "c.txtpb: memory_gib: not given; every field of a cluster is needed");
  EXPECT_EQ(problems(std::string(kHead) + kRates),
            "c.txtpb: link: no link of class BETWEEN_NODES; expected one, because there are 2 "
            "nodes");
  EXPECT_EQ(problems(replaced(whole(), "devices: 1", "devices: 4")),
            "c.txtpb: link: no link of class INSIDE_NODE; expected one, because a node has 4 "
            "devices");
  EXPECT_EQ(problems(std::string(kHead) + kLink),
            "c.txtpb: rates: not given; expected one for each precision");
}

TEST(Cluster, ThePeakMayBeLeftOut) {
  EXPECT_FALSE(parse_cluster(whole(), "c.txtpb").rates(0).has_peak_tflops());
  const std::string with_peak =
      replaced(whole(), "linear_tflops: 1", "linear_tflops: 1 peak_tflops: 4");
  EXPECT_EQ(parse_cluster(with_peak, "c.txtpb").rates(0).peak_tflops(), 4);
  EXPECT_EQ(problems(replaced(with_peak, "peak_tflops: 4", "peak_tflops: 0")),
            "c.txtpb:5:20: rates[0].peak_tflops: 0; legal: above 0, at most 1000000000");
}

TEST(Cluster, TheSecondOfTwoLinksIsToldApart) {
  EXPECT_EQ(problems(whole() + replaced(kLink, "bandwidth_gb_s: 1", "bandwidth_gb_s: 0")),
            "c.txtpb:6:8: link[1].class: BETWEEN_NODES is given by link[0] already; expected each "
            "class once\n"
            "c.txtpb:6:29: link[1].bandwidth_gb_s: 0; legal: above 0, at most 1000000000");
  EXPECT_EQ(problems(whole() + kRates),
            "c.txtpb:6:9: rates[1].precision: FP32 is given by rates[0] already; expected each "
            "precision once");
}

TEST(Cluster, AllProblemsAtOnce) {
  const std::string text =
      replaced(replaced(replaced(whole(), "FULL", "BOTH"), "overlap", "overlop"), "copy_gb_s: 10",
               "copy_gb_s: fast");
  const std::string found = problems(text);
  EXPECT_THAT(found, HasSubstr("c.txtpb:2:26: copy_gb_s: expected a number, found fast"));
  EXPECT_THAT(found, HasSubstr("link[0].duplex: expected one of FULL, HALF, found BOTH"));
  EXPECT_THAT(found, HasSubstr("link[0].overlop: unknown field; did you mean overlap?"));
  EXPECT_THAT(found, HasSubstr("link[0].overlap: not given"));
}

TEST(Cluster, FieldsOfTheRootAreListed) {
  EXPECT_THAT(problems(whole() + "gpus: 3"),
              HasSubstr("gpus: unknown field; fields of a cluster: name, nodes, devices"));
  EXPECT_THAT(problems("nodes: {"), HasSubstr("c.txtpb:1:8"));
}

TEST(Cluster, MissingFile) {
  try {
    load_cluster("/nowhere/c.txtpb");
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_STREQ(error.what(),
                 "/nowhere/c.txtpb: expected a cluster description in text format, found no such "
                 "file");
  }
}

TEST(Cluster, ShippedOnesAreLegal) {
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(SPROCKET_SOURCE_DIR "/configs")) {
    if (!entry.path().filename().string().starts_with("cluster_")) continue;
    ++count;
    EXPECT_NO_THROW(load_cluster(entry.path().string())) << entry.path();
  }
  EXPECT_GE(count, 3);
}

}  // namespace
}  // namespace sprocket::config
