// Event files as bytes: framing, order of files, failures. What TensorBoard makes of them:
// tensorboard_peer_test.py.
#include <gmock/gmock.h>
#include <sys/resource.h>

#include <cmath>
#include <csignal>
#include <cstring>
#include <limits>

#include "base/error.h"
#include "runtime/metrics/tensorboard/event.pb.h"
#include "runtime/metrics/tensorboard/event_file.h"
#include "runtime/metrics/tensorboard/record.h"
#include "tests/data/temporary_folder.h"

namespace sprocket::tensorboard {
namespace {

using sprocket::testing::message_of;
using sprocket::testing::read_bytes;
using sprocket::testing::TemporaryFolder;
using sprocket::testing::write_bytes;
using ::testing::AllOf;
using ::testing::HasSubstr;

template <class T>
T little_endian(std::string_view bytes) {
  T value = 0;
  for (size_t i = 0; i < sizeof(T); ++i) value |= T{static_cast<uint8_t>(bytes[i])} << (8 * i);
  return value;
}

// Of a file of whole records, whose checksums must hold.
std::vector<Event> events_of(const EventFile& file) {
  const std::string whole = read_bytes(file.path());
  std::string_view bytes = whole;
  std::vector<Event> events;
  while (bytes.size() >= 12) {
    const auto length = little_endian<uint64_t>(bytes);
    EXPECT_EQ(little_endian<uint32_t>(bytes.substr(8)), masked_crc32c(bytes.substr(0, 8)));
    if (bytes.size() < length + 16) break;
    const std::string_view data = bytes.substr(12, length);
    EXPECT_EQ(little_endian<uint32_t>(bytes.substr(12 + length)), masked_crc32c(data));
    EXPECT_TRUE(events.emplace_back().ParseFromArray(data.data(), static_cast<int>(data.size())));
    bytes.remove_prefix(length + 16);
  }
  EXPECT_TRUE(bytes.empty());
  return events;
}

// RFC 3720, B.4, and the check value of catalogues of CRCs.
TEST(TensorBoardRecord, CrcHasThePublishedValues) {
  std::string ascending, descending;
  for (char i = 0; i < 32; ++i) {
    ascending += i;
    descending += static_cast<char>(31 - i);
  }
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aau);
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62a8ab43u);
  EXPECT_EQ(crc32c(ascending), 0x46dd794eu);
  EXPECT_EQ(crc32c(descending), 0x113fdb5cu);
  EXPECT_EQ(crc32c("123456789"), 0xe3069283u);
  EXPECT_EQ(crc32c(""), 0u);
}

TEST(TensorBoardRecord, MaskTurnsAndShifts) {
  EXPECT_EQ(masked_crc32c(""), 0xa282ead8u);
  const uint64_t crc = 0xe3069283u;
  const uint64_t turned = crc / 32768 + crc % 32768 * 131072;
  EXPECT_EQ(masked_crc32c("123456789"), static_cast<uint32_t>(turned + 0xa282ead8u));
}

TEST(TensorBoardRecord, LengthAndChecksumsAreLittleEndian) {
  const std::string bytes = record("abc");
  ASSERT_EQ(bytes.size(), 3u + 16);
  EXPECT_EQ(bytes.substr(0, 8), std::string("\3\0\0\0\0\0\0\0", 8));
  EXPECT_EQ(bytes.substr(12, 3), "abc");
  EXPECT_EQ(little_endian<uint32_t>(bytes.substr(8)), masked_crc32c(bytes.substr(0, 8)));
  EXPECT_EQ(little_endian<uint32_t>(bytes.substr(15)), masked_crc32c("abc"));
  EXPECT_EQ(record("").size(), 16u);
}

TEST(TensorBoardEvents, FileIsReadableWhileItGrows) {
  TemporaryFolder folder;
  EventFile file(folder / "a/b", 7);
  auto events = events_of(file);
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(events[0].file_version(), "brain.Event:2");
  EXPECT_EQ(events[1].session_log().status(), SessionLog::START);
  EXPECT_EQ(events[1].step(), 7);
  EXPECT_GT(events[1].wall_time(), 1.7e9);

  const double nan = std::numeric_limits<double>::quiet_NaN();
  file.write(8, {{"loss", 0.1}, {"zero", 0}, {"none", nan}, {"large", 1e300}});
  file.write(int64_t{1} << 40, std::vector<Scalar>{{"loss", -1}});
  events = events_of(file);
  ASSERT_EQ(events.size(), 4u);
  const Summary& summary = events[2].summary();
  EXPECT_EQ(events[2].step(), 8);
  ASSERT_EQ(summary.value_size(), 4);
  EXPECT_EQ(summary.value(0).tag(), "loss");
  EXPECT_EQ(summary.value(0).simple_value(), 0.1f);
  EXPECT_EQ(summary.value(1).value_case(), Summary::Value::kSimpleValue);
  EXPECT_EQ(summary.value(1).simple_value(), 0.0f);
  EXPECT_TRUE(std::isnan(summary.value(2).simple_value()));
  EXPECT_EQ(summary.value(3).simple_value(), std::numeric_limits<float>::infinity());
  EXPECT_EQ(events[3].step(), int64_t{1} << 40);

  const std::string gif("GIF\0\xff", 5);
  file.write(9, Picture{"sample/0", "a rabbit", 20, 10, std::as_bytes(std::span(gif))});
  events = events_of(file);
  ASSERT_EQ(events.size(), 5u);
  const Summary::Value& value = events[4].summary().value(0);
  EXPECT_EQ(value.tag(), "sample/0");
  EXPECT_EQ(value.metadata().summary_description(), "a rabbit");
  EXPECT_EQ(value.image().width(), 20);
  EXPECT_EQ(value.image().height(), 10);
  EXPECT_EQ(value.image().colorspace(), 3);
  EXPECT_EQ(value.image().encoded_image_string(), gif);
}

TEST(TensorBoardEvents, LaterFilesSortBehindEarlierOnes) {
  TemporaryFolder folder;
  std::vector<std::string> paths;
  for (int part = 0; part < 3; ++part) {  // within a second
    paths.push_back(EventFile(folder.path().string(), part).path());
  }
  EXPECT_TRUE(std::ranges::is_sorted(paths, std::less_equal<>()));
  // Made by another host whose clock is ahead.
  write_bytes(folder / "events.out.tfevents.7123456789.zzz.999999", "");
  write_bytes(folder / "events.out.tfevents.x", "");
  write_bytes(folder / "notes.txt", "");
  const EventFile last(folder.path().string(), 3);
  EXPECT_GT(last.path(), folder / "events.out.tfevents.7123456789.zzz.999999");
}

TEST(TensorBoardEvents, AFolderThatCannotBeMadeIsNamed) {
  TemporaryFolder folder;
  write_bytes(folder / "file", "");
  EXPECT_THAT(message_of<OutputError>([&] { EventFile(folder / "file/board", 0); }),
              AllOf(HasSubstr(folder / "file/board"), HasSubstr("Not a directory")));
  EXPECT_THAT(message_of<OutputError>([&] { EventFile(folder / "file", 0); }),
              HasSubstr(folder / "file"));
}

// The largest file a process may write stands for a disk that is full.
TEST(TensorBoardEvents, ADiskThatIsFullLeavesWholeRecords) {
  TemporaryFolder folder;
  EventFile file(folder.path().string(), 0);
  file.write(1, std::vector<Scalar>{{"loss", 1}});
  rlimit former{};
  getrlimit(RLIMIT_FSIZE, &former);
  const auto former_handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{1024, former.rlim_max};
  setrlimit(RLIMIT_FSIZE, &small);
  const std::string picture(4096, 'x');
  const std::string message = message_of<OutputError>([&] {
    file.write(2, Picture{"sample/0", "", 8, 8, std::as_bytes(std::span(picture))});
  });
  setrlimit(RLIMIT_FSIZE, &former);
  std::signal(SIGXFSZ, former_handler);
  EXPECT_THAT(message, AllOf(HasSubstr(file.path()), HasSubstr("File too large")));
  EXPECT_EQ(events_of(file).size(), 3u);
  file.write(2, std::vector<Scalar>{{"loss", 2}});
  const auto events = events_of(file);
  ASSERT_EQ(events.size(), 4u);
  EXPECT_EQ(events[3].summary().value(0).simple_value(), 2);
}

}  // namespace
}  // namespace sprocket::tensorboard
