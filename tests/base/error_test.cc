#include "base/error.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/exit_code.h"

namespace sprocket {
namespace {

using testing::HasSubstr;

template <class Body>
std::string message_of(Body body) {
  try {
    body();
  } catch (const InternalError& error) {
    return error.what();
  }
  return "no InternalError";
}

TEST(CheckTest, PassesAndEvaluatesOnce) {
  int calls = 0;
  SPROCKET_CHECK(++calls == 1, "never shown {}", calls);
  SPROCKET_CHECK_EQ(++calls, 2);
  SPROCKET_CHECK_LE(1, 1);
  SPROCKET_CHECK_LT(0, 1);
  SPROCKET_CHECK_GE(1, 1);
  EXPECT_EQ(calls, 2);
}

TEST(CheckTest, ShowsTheConditionThePlaceAndBothValues) {
  const int rows = 3;
  const std::string plain = message_of([&] { SPROCKET_CHECK(rows == 4, "found {} rows", rows); });
  EXPECT_THAT(plain, HasSubstr("error_test.cc:"));
  EXPECT_THAT(plain, HasSubstr("rows == 4: found 3 rows"));
  EXPECT_THAT(message_of([&] { SPROCKET_CHECK_EQ(rows, 5); }),
              HasSubstr("expected rows == 5, found 3 and 5"));
  EXPECT_THAT(message_of([&] { SPROCKET_CHECK_LT(rows, 3); }),
              HasSubstr("expected rows < 3, found 3 and 3"));
  EXPECT_THAT(message_of([&] { SPROCKET_CHECK_EQ(std::string{"a{}"}, "b"); }),
              HasSubstr("expected std::string{\"a{}\"} == \"b\", found a{} and b"));
}

TEST(CommErrorTest, NamesTheGroupTheOperationAndThePeer) {
  const CommError error({.communicator = "sp.outer",
                         .op = "all_gather",
                         .sequence = 17,
                         .rank = 2,
                         .size = 4,
                         .peer = 3},
                        "timed out after 30 s");
  EXPECT_STREQ(error.what(),
               "[rank 2/4 sp.outer seq 17] all_gather: timed out after 30 s (peer 3)");
  EXPECT_EQ(error.where().communicator, "sp.outer");
  EXPECT_EQ(error.where().peer, 3);
  const CommError alone(
      {.communicator = "dp", .op = "barrier", .sequence = 1, .rank = 0, .size = 1}, "aborted");
  EXPECT_STREQ(alone.what(), "[rank 0/1 dp seq 1] barrier: aborted");
}

TEST(ExitCodeTest, EveryErrorHasItsOwn) {
  EXPECT_EQ(exit_code_of(ConfigError("")), ExitCode::kConfig);
  EXPECT_EQ(exit_code_of(InputError("")), ExitCode::kInput);
  EXPECT_EQ(exit_code_of(OutputError("")), ExitCode::kOutput);
  EXPECT_EQ(exit_code_of(CommError({}, "")), ExitCode::kComm);
  EXPECT_EQ(exit_code_of(CudaError("")), ExitCode::kCuda);
  EXPECT_EQ(exit_code_of(NonFiniteError("")), ExitCode::kNonFinite);
  EXPECT_EQ(exit_code_of(InternalError("")), ExitCode::kInternal);
  EXPECT_EQ(exit_code_of(std::runtime_error("")), ExitCode::kInternal);
  EXPECT_EQ(static_cast<int>(ExitCode::kOk), 0);
  EXPECT_EQ(static_cast<int>(ExitCode::kInterrupted), 75);
}

}  // namespace
}  // namespace sprocket
