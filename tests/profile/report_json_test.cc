// profile.json as it is written and read again.
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "runtime/profile/report.h"
#include "runtime/profile/report_fields.h"
#include "tests/data/temporary_folder.h"
#include "tests/profile/example_report.h"

namespace sprocket::profile {
namespace {

using nlohmann::json;
using testing::example_report;
using ::testing::HasSubstr;
using testing::message_of;
using testing::TemporaryFolder;
using testing::write_bytes;

// How many members a struct has: as many as it takes initialisers.
struct Anything {
  template <class T>
  operator T() const;  // declared alone: for unevaluated use
};

template <class T, class... Given>
constexpr size_t members() {
  if constexpr (requires { T{Given{}..., Anything{}}; }) {
    return members<T, Given..., Anything>();
  } else {
    return sizeof...(Given);
  }
}

template <class... T>
constexpr bool all_have_keys() {
  return ((members<T>() == std::tuple_size_v<std::remove_const_t<decltype(kFields<T>)>>)&&...);
}

static_assert(
    all_have_keys<Host, Program, JobIdentity, Machine, MeshText, Window, StepSummary, Shares,
                  EachStep, StepWork, RankMemory, RankRow, OperationRow, SlowOperation, Range,
                  LayerRow, Heads, KernelRow, RemoteKvRow, PredictionRow, Advice, Prediction,
                  Overhead, Curves, TimelineSpan, RankTimeline, StepTimeline, Report>());

class ReportJson : public ::testing::Test {
 protected:
  Report read(const std::string& text) {
    write_bytes(path_, text);
    return read_report(path_);
  }
  std::string refusal(const std::string& text) {
    return message_of<InputError>([&] { read(text); });
  }
  // Of the example with one value replaced.
  std::string refusal_with(const std::string& pointer, const json& value) {
    json changed = json::parse(report_json(example_report()));
    changed[json::json_pointer(pointer)] = value;
    return refusal(changed.dump());
  }
  std::string refusal_without(const std::string& pointer) {
    json changed = json::parse(report_json(example_report()));
    const json::json_pointer key(pointer);
    changed[key.parent_pointer()].erase(key.back());
    return refusal(changed.dump());
  }

  TemporaryFolder folder_;
  std::string path_ = folder_ / "profile.json";
};

TEST_F(ReportJson, EveryFieldComesBack) {
  const Report report = example_report();
  EXPECT_EQ(read(report_json(report)), report);
}

TEST_F(ReportJson, ADefaultReportComesBack) { EXPECT_EQ(read(report_json({})), Report{}); }

TEST_F(ReportJson, EqualReportsAreEqualBytes) {
  EXPECT_EQ(report_json(example_report()), report_json(example_report()));
  EXPECT_EQ(report_json(read(report_json(example_report()))), report_json(example_report()));
}

TEST_F(ReportJson, KeysAreThoseOfTheDocumentation) {
  const json document = json::parse(report_json(example_report()));
  EXPECT_EQ(document["schema"], 2);
  EXPECT_EQ(document["machine"]["hosts"][1], (json{{"name", "beta"}, {"ranks", 4}}));
  EXPECT_EQ(document["mesh"]["strategy"], "SELECTED");
  EXPECT_EQ(document["operations"][0]["busbw_gb_s"], 1.0);
  EXPECT_EQ(document["memory"]["rank"], 6);
  EXPECT_EQ(document["memory"]["tensors_peak_bytes"], 800'000'000);
  EXPECT_EQ(document["curves"]["loss"][1], (json{1, 1.25}));
  EXPECT_EQ(document["timeline"]["ranks"][0]["spans"][1], (json{1, 1, 1, 0, 500.0, 900.25}));
  EXPECT_EQ(document["heads"]["coverage"][1][0], 0.25);
}

TEST_F(ReportJson, UnknownValuesHaveNoKey) {
  const std::string text = report_json({});
  const json document = json::parse(text);
  for (const char* key : {"flops", "heads", "bytes_block", "memory", "remote_kv", "prediction",
                          "overhead", "curves", "timeline"}) {
    EXPECT_FALSE(document.contains(key)) << key;
  }
  EXPECT_FALSE(document["mesh"].contains("strategy"));
  EXPECT_EQ(text.find("null"), std::string::npos);
}

TEST_F(ReportJson, RowsHaveALineEach) {
  const std::string text = report_json(example_report());
  EXPECT_THAT(text, HasSubstr("\n {\"rank\":3,\"host\":\"alpha\","));
  EXPECT_THAT(text, HasSubstr("\n],\n\"operations\": [\n"));
}

TEST_F(ReportJson, ExtremeNumbersComeBack) {
  Report report = example_report();
  report.window.first_step = std::numeric_limits<int64_t>::max();
  report.window.lost_records = std::numeric_limits<int64_t>::min();
  report.step.seconds = std::numeric_limits<double>::denorm_min();
  report.step.median_seconds = 0.1;
  report.step.tokens_per_second = std::numeric_limits<double>::max();
  report.job.title = "quoted \" and \\ and \n and \x01 and ä";
  EXPECT_EQ(read(report_json(report)), report);
}

TEST_F(ReportJson, BytesThatAreNoTextAreReplaced) {
  Report report = example_report();
  report.machine.hosts[0].name = "\xff";
  EXPECT_EQ(read(report_json(report)).machine.hosts[0].name, "\xef\xbf\xbd");
}

TEST_F(ReportJson, NumbersThatAreNoneAreABug) {
  Report report = example_report();
  report.operations[2].wait_ms = std::nan("");
  EXPECT_THAT(message_of<InternalError>([&] { report_json(report); }),
              HasSubstr("operations.wait_ms: nan"));
  report = example_report();
  report.flops->mfu = std::numeric_limits<double>::infinity();
  EXPECT_THAT(message_of<InternalError>([&] { report_json(report); }), HasSubstr("flops.mfu"));
}

TEST_F(ReportJson, WholeNumbersAreNumbersToo) {
  json document = json::parse(report_json(example_report()));
  document["step"]["seconds"] = 2;
  EXPECT_EQ(read(document.dump()).step.seconds, 2.0);
}

TEST_F(ReportJson, KeysOfLaterProgramsAreLeftOut) {
  json document = json::parse(report_json(example_report()));
  document["later"] = {1, 2};
  document["step"]["later"] = "x";
  EXPECT_EQ(read(document.dump()), example_report());
}

TEST_F(ReportJson, UnreadableFiles) {
  EXPECT_THAT(message_of<InputError>([&] { read_report(folder_ / "none.json"); }),
              HasSubstr("none.json: cannot be read: No such file"));
  EXPECT_THAT(message_of<InputError>([&] { read_report(folder_.path().string()); }),
              HasSubstr("cannot be read: Is a directory"));
}

TEST_F(ReportJson, TruncatedAnywhere) {
  const std::string text = report_json(example_report());
  // All but the newline after the last brace.
  for (size_t length = 0; length + 1 < text.size(); length += length < 64 ? 1 : 997) {
    EXPECT_THAT(refusal(text.substr(0, length)), HasSubstr("truncated")) << length;
  }
}

TEST_F(ReportJson, ForeignFiles) {
  EXPECT_THAT(refusal("PNG\n"), HasSubstr("byte 1: expected JSON"));
  EXPECT_THAT(refusal(std::string(1'000'000, '[')), HasSubstr("expected at most 64 levels"));
  EXPECT_THAT(refusal("{\"step\": 1}\n{\"step\": 2}\n"), HasSubstr("expected JSON"));
  EXPECT_THAT(refusal("[1, 2]"), HasSubstr("no profile"));
  EXPECT_THAT(refusal("{\"traceEvents\": []}"), HasSubstr("no profile"));
  EXPECT_THAT(refusal("{\"schema\": 1e999}"), HasSubstr("profile.json: "));
  EXPECT_THAT(refusal("{\"schema\": \"two\"}"), HasSubstr("schema: expected an integer"));
  EXPECT_THAT(refusal("{\"schema\": 2}"), HasSubstr("program is missing"));
}

TEST_F(ReportJson, OtherSchemas) {
  EXPECT_THAT(refusal_with("/schema", 3), HasSubstr("schema 3, this program reads 2: a newer"));
  EXPECT_THAT(refusal("{\"schema\": 1, \"steps\": 3}"),
              HasSubstr("schema 1, this program reads 2: an older sprocket wrote it; profile the "
                        "job again"));
}

TEST_F(ReportJson, WrongTypesAreNamedByTheirPath) {
  EXPECT_THAT(refusal_with("/step/seconds", "1 s"),
              HasSubstr("step.seconds: expected a number, found \"1 s\""));
  EXPECT_THAT(refusal_with("/ranks/3/rank", 1.5),
              HasSubstr("ranks[3].rank: expected an integer in -2147483648..2147483647, found"));
  EXPECT_THAT(refusal_with("/ranks/0/rank", int64_t{1} << 31), HasSubstr("expected an integer"));
  EXPECT_THAT(refusal_with("/window/steps", 18446744073709551615U), HasSubstr("window.steps"));
  EXPECT_THAT(refusal_with("/window/complete", 1), HasSubstr("expected true or false, found 1"));
  EXPECT_THAT(refusal_with("/machine/hosts", json::object()),
              HasSubstr("machine.hosts: expected a list, found {}"));
  EXPECT_THAT(refusal_with("/memory", 3), HasSubstr("memory: expected an object, found 3"));
  EXPECT_THAT(refusal_with("/memory", nullptr), HasSubstr("memory: expected an object"));
  EXPECT_THAT(refusal_with("/verdict/1", nullptr), HasSubstr("verdict[1]: expected a string"));
  EXPECT_THAT(refusal_with("/timeline/ranks/1/spans/0", {1, 2}),
              HasSubstr("timeline.ranks[1].spans[0]: expected a list of 6 numbers"));
  EXPECT_THAT(refusal_with("/timeline/ranks/1/spans/0/4", "x"),
              HasSubstr("timeline.ranks[1].spans[0][4]: expected a number"));
}

TEST_F(ReportJson, MissingKeysAreNamedByTheirPath) {
  EXPECT_THAT(refusal_without("/shares"), HasSubstr("profile.json: shares is missing"));
  EXPECT_THAT(refusal_without("/operations/1/calls"), HasSubstr("operations[1].calls is missing"));
}

TEST_F(ReportJson, ListsThatBelongTogetherAreEquallyLong) {
  EXPECT_THAT(refusal_with("/each/copies", {1.0}),
              HasSubstr("each.copies: expected 8 values, found 1"));
  EXPECT_THAT(refusal_with("/bytes/2", {1.0}), HasSubstr("bytes[2]: expected 4 values, found 1"));
  EXPECT_THAT(refusal_with("/timeline/ranks/0/spans/1/1", 2),
              HasSubstr("spans[1][1]: expected an index below 2, found 2"));
  EXPECT_THAT(refusal_with("/timeline/ranks/0/spans/1/2", -1),
              HasSubstr("spans[1][2]: expected an index below 6, found -1"));
}

}  // namespace
}  // namespace sprocket::profile
