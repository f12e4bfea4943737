// What `sprocket profile compare` says of two reports.
#include "runtime/profile/compare.h"

#include <algorithm>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "runtime/profile/job_difference.h"
#include "tests/data/temporary_folder.h"
#include "tests/profile/example_report.h"

namespace sprocket::profile {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::message_of;
using ::testing::Not;
using ::testing::StartsWith;

constexpr double kShares[] = {0.6, 0.2, 0.1, 0.04, 0.06, 0.05};
constexpr std::vector<double> EachStep::*kEach[] = {
    &EachStep::compute, &EachStep::exposed_communication,
    &EachStep::copies,  &EachStep::data_wait,
    &EachStep::other,   &EachStep::waiting};

// A complete window of `steps` steps of 200 ms, whose parts have each a deviation of 1 % of their
// own.
Report report_of(uint64_t seed, int steps = 10) {
  Report report = testing::example_report();
  report.window.complete = true;
  report.window.missing_ranks.clear();
  report.window.notes.clear();
  report.step.each_seconds.clear();
  for (const auto part : kEach) (report.each.*part).clear();
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal(1, 0.01);
  for (int i = 0; i < steps; ++i) {
    double sum = 0;
    for (size_t part = 0; part < std::size(kEach); ++part) {
      const double ms = 200 * kShares[part] * normal(random);
      (report.each.*kEach[part]).push_back(ms);
      if (kEach[part] != &EachStep::waiting) sum += ms;
    }
    report.step.each_seconds.push_back(1e-3 * sum);
  }
  return report;
}

// A part of every step takes `ms` more.
Report with_more(Report report, std::vector<double> EachStep::*part, double ms) {
  for (double& each : report.each.*part) each += ms;
  for (double& seconds : report.step.each_seconds) seconds += 1e-3 * ms;
  return report;
}

std::vector<std::string> changed_rows(const Comparison& comparison) {
  std::vector<std::string> changed;
  for (const ComparedRow& row : comparison.rows) {
    if (row.changed) changed.push_back(row.table + ": " + row.what);
  }
  return changed;
}

const ComparedRow& row_of(const Comparison& comparison, const std::string& what) {
  const auto found = std::find_if(comparison.rows.begin(), comparison.rows.end(),
                                  [&](const ComparedRow& row) { return row.what == what; });
  EXPECT_NE(found, comparison.rows.end()) << what;
  return *found;
}

TEST(Compare, AReportWithItself) {
  const Report report = report_of(1);
  const Comparison same = compare(report, report, {});
  EXPECT_THAT(same.verdict, StartsWith("no change of the step beyond noise of "));
  EXPECT_THAT(same.verdict, HasSubstr(", +0.0 %)"));
  EXPECT_THAT(changed_rows(same), ElementsAre());
  EXPECT_FALSE(same.regression);
  EXPECT_THAT(comparison_text(same, false), HasSubstr("Nothing changed beyond noise."));
}

TEST(Compare, TwoWindowsOfTheSameProgram) {
  int alarms = 0;
  for (uint64_t seed = 0; seed < 500; ++seed) {
    const Comparison same =
        compare(report_of(2 * seed + 100), report_of(2 * seed + 101), {0, false});
    alarms += !changed_rows(same).empty();
    EXPECT_LE(same.regression, !changed_rows(same).empty());
  }
  // The step at 1 %, its parts together at 1 %; three deviations of 500 trials above both.
  EXPECT_LE(alarms, 500 * (0.02 + 3 * 0.0063));
}

TEST(Compare, NamesWhatBecameSlower) {
  const Report a = report_of(1);
  Report b = with_more(report_of(2), &EachStep::exposed_communication, 12);
  b.operations[0].transfer_ms += 9;
  b.operations[0].wait_ms += 1;
  b.operations[2].transfer_ms += 2;
  // Less than the noise of compute and of waiting.
  b.kernels[2].ms += 0.5;
  b.operations[3].wait_ms += 0.01;
  const Comparison slower = compare(a, b, {});
  EXPECT_THAT(slower.verdict,
              ::testing::MatchesRegex("B is [56]\\.. % slower \\(.* ms -> .* ms, beyond noise of "
                                      "[01]\\.. %\\): exposed communication \\+1[123].* ms, of it "
                                      "sp.outer exchange forward \\+10 ms; more than "
                                      "--max-regression 5 %"));
  EXPECT_TRUE(slower.regression);
  EXPECT_THAT(changed_rows(slower), ElementsAre("step: step", "step: exposed communication",
                                                "operations: sp.outer exchange forward, transfer",
                                                "operations: sp.ulysses all_to_all forward, "
                                                "transfer",
                                                "operations: sp.outer exchange forward, wait"));
  EXPECT_FALSE(compare(a, b, {0.1, false}).regression);
  EXPECT_THAT(compare(a, b, {0.1, false}).verdict, Not(HasSubstr("max-regression")));
}

TEST(Compare, NamesWhatBecameFaster) {
  Report b = with_more(report_of(2), &EachStep::compute, -30);
  b.kernels[0].ms -= 28;
  const Comparison faster = compare(report_of(1), b, {0, false});
  EXPECT_THAT(faster.verdict, ::testing::MatchesRegex("B is 1[45]\\.. % faster .*: compute -.* ms, "
                                                      "of it attention.local backward -28 ms"));
  EXPECT_FALSE(faster.regression);
}

TEST(Compare, WaitingForLateRanksIsSaid) {
  Report b = with_more(report_of(2), &EachStep::exposed_communication, 12);
  for (double& each : b.each.waiting) each += 12;
  b.operations[1].wait_ms += 11;
  EXPECT_THAT(compare(report_of(1), b, {}).verdict,
              HasSubstr("of it sp.outer exchange backward, mostly waiting for late ranks, +11 ms"));
}

TEST(Compare, CopiesAndPartsWithoutRows) {
  Report copies = with_more(report_of(2), &EachStep::copies, 15);
  copies.kernels[3].ms += 14;
  EXPECT_THAT(compare(report_of(1), copies, {}).verdict, HasSubstr(": copies +1"));
  EXPECT_THAT(compare(report_of(1), copies, {}).verdict,
              HasSubstr("attention.pack forward +14 ms"));
  const Report much = with_more(report_of(2), &EachStep::other, 2300);
  EXPECT_THAT(compare(report_of(1), much, {}).verdict, HasSubstr(": other +2.3 s; more than"));
  const Report data = with_more(report_of(2), &EachStep::data_wait, 40);
  EXPECT_THAT(compare(report_of(1), data, {}).verdict,
              ::testing::MatchesRegex(".*: data wait \\+[34][09].* ms; more than .*"));
}

TEST(Compare, TooFewStepsTellNothing) {
  const Report a = report_of(1, 4);
  const Comparison few = compare(a, with_more(report_of(2, 5), &EachStep::compute, 500), {});
  EXPECT_THAT(few.verdict, StartsWith("too few steps to tell: 4 and 5, and it takes 5 of each ("));
  EXPECT_FALSE(few.regression);
  EXPECT_THAT(changed_rows(few), ElementsAre());
  EXPECT_THAT(comparison_text(few, true), HasSubstr("too few steps"));
}

// The estimate is above the limit, but so is the noise.
TEST(Compare, NoiseIsNoRegression) {
  Report a = report_of(1, 5), b = report_of(2, 5);
  a.step.each_seconds = {0.1, 0.2, 0.3, 0.4, 0.5};
  b.step.each_seconds = {0.15, 0.3, 0.4, 0.5, 0.45};
  const Comparison noisy = compare(a, b, {});
  EXPECT_GT(row_of(noisy, "step").change, 0.05 * 300);
  EXPECT_FALSE(noisy.regression);
}

TEST(Compare, CountsAndBytesAreComparedExactly) {
  const Report a = report_of(1);
  Report b = a;
  b.operations[1].payload_bytes += 1;
  b.operations[1].messages += 0.125;
  b.kernels[2].calls = 2;
  b.bytes[1][2] += 4;
  b.memory->moments_bytes += 8;
  b.memory->peak_bytes += 1'000'000;  // a page here and there
  b.memory->rest_bytes += 40'000'000;
  // The mean of 9 and of 10 steps.
  b.operations[0].calls *= 1 + 1e-14;
  EXPECT_THAT(changed_rows(compare(a, b, {})),
              ElementsAre("operations: sp.outer exchange backward, messages",
                          "operations: sp.outer exchange backward, payload",
                          "kernels: loss forward, calls", "memory: the rest", "memory: moments",
                          "bytes: all ranks to all", "bytes: rank 2..3 to 4..5"));
}

TEST(Compare, SharesHaveChangedOutsideOfTheirRanges) {
  const Report a = report_of(1);
  Report b = a;
  b.layers[1].density = Range{0.14, 0.12, 0.2};     // each mean in the other's range
  b.layers[2].coverage = Range{0.39, 0.38, 0.395};  // 0.3 is not in it
  b.layers[0].coverage.reset();
  EXPECT_THAT(changed_rows(compare(a, b, {})),
              ElementsAre("layers: layer 0, coverage", "layers: layer 2, coverage"));
}

TEST(Compare, RowsOfOneReportAlone) {
  const Report a = report_of(1);
  Report b = a;
  b.operations.erase(b.operations.begin() + 1);
  b.kernels.push_back({.name = "gelu", .activity = "compute", .phase = "forward", .ms = 40});
  const Comparison comparison = compare(a, b, {});
  EXPECT_FALSE(row_of(comparison, "sp.outer exchange backward, calls").b.has_value());
  EXPECT_TRUE(row_of(comparison, "sp.outer exchange backward, calls").changed);
  EXPECT_FALSE(row_of(comparison, "gelu forward").a.has_value());
  const std::string text = comparison_text(comparison, false);
  EXPECT_THAT(text, ::testing::ContainsRegex("gelu forward +- +40 ms +\\+40 ms +new"));
  EXPECT_THAT(text, ::testing::ContainsRegex("exchange backward, transfer +15 ms +- .* gone"));
}

TEST(Compare, TablesListWhatChanged) {
  const Report a = report_of(1);
  Report b = with_more(report_of(2), &EachStep::compute, 60);
  for (LayerRow& layer : b.layers) layer.compute_ms += 20;
  const Comparison comparison = compare(a, b, {});
  const std::string text = comparison_text(comparison, false);
  EXPECT_THAT(text, ::testing::ContainsRegex("\n  step +A +B +change +noise\n"));
  EXPECT_THAT(text, ::testing::ContainsRegex(
                        "layer 1, compute +38 ms +58 ms +\\+20 ms +\\+52.6 % +[0-9.]+ ms"));
  EXPECT_THAT(text, Not(HasSubstr("data wait")));
  EXPECT_THAT(text, Not(HasSubstr("memory")));
  EXPECT_THAT(comparison_text(comparison, true), HasSubstr("data wait"));
}

TEST(Compare, LongTablesAreCut) {
  const Report a = report_of(1);
  Report b = a;
  for (auto& row : b.bytes) {
    for (double& each : row) each *= 2;
  }
  EXPECT_THAT(comparison_text(compare(a, b, {}), false), HasSubstr("  and 5 more (--all)\n"));
}

TEST(Compare, RefusesOtherJobs) {
  const Report a = report_of(1);
  Report b = a;
  b.job.kind = "sample";
  b.job.identity = "other";
  b.job.description = "name: \"tiny\"\nmodel {\n  layers: 4\n  heads: 2\n}\n";
  Report c = a;
  c.job.description = "name: \"tiny\"\nmodel {\n  layers: 3\n  dim: 64\n}\n";
  b.mesh.data = 1;
  const std::string refusal =
      message_of<InputError>([&] { compare(c, b, {}, "c.json", "b.json"); });
  EXPECT_EQ(refusal,
            "c.json and b.json cannot be compared (--different-jobs does all the same); A | B:\n"
            "  kind: train | sample\n"
            "  ranks: 8 | 4\n"
            "  model.layers: 3 | 4\n"
            "  model.dim: 64 | not set\n"
            "  model.heads: not set | 2");
  const Comparison all_the_same = compare(c, b, {0.05, true});
  EXPECT_THAT(all_the_same.notes, ::testing::Contains("model.layers: 3 | 4"));
  EXPECT_THAT(comparison_text(all_the_same, false), HasSubstr("Different, A | B\n  kind: train"));
}

TEST(Compare, RefusesIncompleteWindows) {
  const Report a = report_of(1), broken = testing::example_report();
  EXPECT_THAT(message_of<InputError>([&] { compare(a, broken, {}, "a", "b"); }),
              HasSubstr("window of b: incomplete: 8 of 20 steps, without rank 7; rank 7 ended in "
                        "step 10"));
  EXPECT_NO_THROW(compare(a, broken, {0.05, true}));
  Report empty = a;
  empty.step.each_seconds.clear();
  EXPECT_THAT(message_of<InputError>([&] {
                compare(a, empty, {0.05, true}, "a", "b");
              }),
              HasSubstr("b: no step was recorded"));
}

TEST(Compare, OtherMachinesAreNoted) {
  const Report a = report_of(1);
  Report b = a;
  b.program.version = "1.0.0";
  b.machine = {{{"gamma", 8}}, "a GPU", 4};
  EXPECT_THAT(compare(a, b, {}).notes,
              ElementsAre("program: sprocket 0.9.0 | sprocket 1.0.0",
                          "hosts (ranks): alpha (4), beta (4) | gamma (8)", "device: CPU | a GPU",
                          "threads of a rank: 2 | 4"));
}

TEST(DifferingFields, FollowsBlocksAndRepeatedFields) {
  EXPECT_THAT(differing_fields("a { b { c: 1 } }", "a { b { c: 1 } }"), ElementsAre());
  EXPECT_THAT(differing_fields("domain {\n  x: 1\n}\ndomain {\n  x: 2\n}\n",
                               "domain {\n  x: 2\n}\ndomain {\n  x: 3\n}\ny: \"a: b\"\n"),
              ElementsAre("domain.x: 1 | 3", "y: not set | \"a: b\""));
  EXPECT_THAT(differing_fields("}\n}\nx: 1", ""), ElementsAre("x: 1 | not set"));
}

TEST(MaxRegression, IsAShareOrPercent) {
  EXPECT_DOUBLE_EQ(parse_max_regression("5%"), 0.05);
  EXPECT_DOUBLE_EQ(parse_max_regression("2.5 %"), 0.025);
  EXPECT_DOUBLE_EQ(parse_max_regression("0.05"), 0.05);
  EXPECT_DOUBLE_EQ(parse_max_regression("0"), 0);
  EXPECT_DOUBLE_EQ(parse_max_regression("100%"), 1);
  for (const char* text : {"5", "", "%", "-1%", "five", "5%%", "0.05x", "nan", "inf"}) {
    EXPECT_THAT(message_of<ConfigError>([&] { parse_max_regression(text); }),
                HasSubstr("legal: 0 to 1, or percent"))
        << text;
  }
}

}  // namespace
}  // namespace sprocket::profile
