#include "runtime/control/framing.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace sprocket::control {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

TEST(Framing, MessagesComeWholeHoweverTheBytesCome) {
  const std::string bytes = frame("first") + frame(std::string(300, 'x')) + frame("z");
  for (const size_t piece : {size_t{1}, size_t{3}, size_t{7}, bytes.size()}) {
    FrameReader reader(300);
    std::vector<std::string> messages;
    for (size_t at = 0; at < bytes.size(); at += piece) {
      reader.append(std::string_view(bytes).substr(at, piece));
      while (auto message = reader.next()) messages.push_back(*message);
    }
    EXPECT_THAT(messages, ::testing::ElementsAre("first", std::string(300, 'x'), "z"));
    EXPECT_EQ(reader.next(), std::nullopt);
  }
}

TEST(Framing, ATruncatedMessageIsNone) {
  const std::string bytes = frame("message");
  for (size_t length = 0; length < bytes.size(); ++length) {
    FrameReader reader(100);
    reader.append(std::string_view(bytes).substr(0, length));
    EXPECT_EQ(reader.next(), std::nullopt) << length;
  }
}

TEST(Framing, ALengthOutOfBoundsIsRefusedBeforeTheMessageComes) {
  for (const std::string& header :
       {std::string(4, '\0'), std::string("\0\0\1\1", 4), std::string(4, '\xff')}) {
    FrameReader reader(256);
    reader.append(header);
    EXPECT_THAT([&] { reader.next(); },
                ThrowsMessage<InputError>(HasSubstr("expected a message of 1 to 256 bytes")));
  }
  FrameReader reader(256);
  reader.append(std::string("\0\0\1\0", 4));
  EXPECT_EQ(reader.next(), std::nullopt);
}

TEST(Framing, WhatIsSentKeepsToTheLimit) {
  EXPECT_THROW(frame(""), InternalError);
  EXPECT_THROW(frame(std::string(kMessageLimit + 1, 'x')), InternalError);
  EXPECT_EQ(frame(std::string(kMessageLimit, 'x')).size(), kMessageLimit + 4);
}

}  // namespace
}  // namespace sprocket::control
