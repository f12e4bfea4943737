#include <gmock/gmock.h>

#include <array>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "runtime/media/animated_png.h"
#include "runtime/media/contact_sheet.h"
#include "runtime/media/libav.h"
#include "runtime/media/output_file.h"
#include "runtime/media/png.h"
#include "runtime/media/video_reader.h"
#include "runtime/media/video_writer.h"
#include "tests/data/real_clips.h"
#include "tests/data/synthetic_video.h"
#include "tests/data/temporary_folder.h"

namespace sprocket::media {
namespace {

using sprocket::testing::message_of;
using sprocket::testing::read_bytes;
using sprocket::testing::synthetic_video;
using sprocket::testing::TemporaryFolder;
using sprocket::testing::write_bytes;
using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::HasSubstr;

TEST(Video, FloatsAndBack) {
  const Video video = synthetic_video(3, 8, 6);
  const auto floats = to_floats(video);
  EXPECT_FLOAT_EQ(floats[0], video.rgb[0] / 127.5f - 1);
  EXPECT_FLOAT_EQ(floats[3 * 8 * 6 + 1], video.rgb[4] / 127.5f - 1);
  const Video back = from_floats(floats, 3, 6, 8, 8);
  EXPECT_EQ(back.rgb, video.rgb);
  EXPECT_EQ(psnr(video, back), std::numeric_limits<double>::infinity());
  Video other = video;
  for (uint8_t& value : other.rgb) value = value < 128 ? value + 5 : value - 5;
  EXPECT_NEAR(psnr(video, other), 20 * std::log10(255.0 / 5), 1e-9);
}

TEST(Mp4, RoundTripIsNearlyTransparentAndDeterministic) {
  TemporaryFolder folder;
  const Video video = synthetic_video(17, 96, 64);
  write_mp4(folder / "a.mp4", video);
  write_mp4(folder / "b.mp4", video);
  EXPECT_EQ(read_bytes(folder / "a.mp4"), read_bytes(folder / "b.mp4"));
  const Video back = read_video(folder / "a.mp4");
  EXPECT_EQ(back.frames, 17);
  EXPECT_EQ(back.width, 96);
  EXPECT_EQ(back.height, 64);
  EXPECT_DOUBLE_EQ(back.fps, 8);
  EXPECT_GT(psnr(video, back), 38);
}

// What Pillow makes of one: safetensors_peer_test.py.
TEST(AnimatedPngEncoder, SizesFollowTheLimitsAndBytesTheInput) {
  const Video video = synthetic_video(9, 96, 64);
  const auto size_in = [](const AnimatedPng& png) {  // of the header
    return std::pair(std::to_integer<int>(png.file[19]), std::to_integer<int>(png.file[23]));
  };
  const AnimatedPng whole = encode_animated_png(video);
  EXPECT_EQ(std::pair(whole.width, whole.height), std::pair(96, 64));
  EXPECT_EQ(size_in(whole), std::pair(96, 64));
  EXPECT_EQ(std::memcmp(whole.file.data() + 1, "PNG", 3), 0);
  EXPECT_EQ(whole.file, encode_animated_png(video).file);

  const AnimatedPng small = encode_animated_png(video, {.longest_side = 50, .frames = 3});
  EXPECT_EQ(std::pair(small.width, small.height), std::pair(50, 33));
  EXPECT_EQ(size_in(small), std::pair(50, 33));
  EXPECT_LT(small.file.size(), whole.file.size() / 4);
}

TEST(AnimatedPngEncoder, TakesOddAndTinyVideos) {
  for (const auto& [frames, width, height] :
       std::vector<std::array<int, 3>>{{1, 1, 1}, {1, 400, 1}, {2, 7, 401}, {130, 5, 3}}) {
    const AnimatedPng png = encode_animated_png(synthetic_video(frames, width, height));
    EXPECT_LE(std::max(png.width, png.height), 256);
    EXPECT_GE(std::min(png.width, png.height), 1);
    EXPECT_GT(png.file.size(), 50u);
  }
  const Video black{4, 16, 16, 120, std::vector<uint8_t>(4 * 16 * 16 * 3)};
  EXPECT_GT(encode_animated_png(black).file.size(), 50u);
}

TEST(VideoReader, SelectsFrames) {
  TemporaryFolder folder;
  const std::string path = folder / "a.mp4";
  write_mp4(path, synthetic_video(20, 64, 32, 10));
  const Video all = read_video(path);
  const auto expect_frames = [&](const ReadOptions& options, std::vector<int64_t> frames) {
    const Video some = read_video(path, options);
    ASSERT_EQ(some.frames, static_cast<int64_t>(frames.size()));
    for (size_t i = 0; i < frames.size(); ++i) {
      EXPECT_TRUE(std::ranges::equal(some.frame(static_cast<int64_t>(i)), all.frame(frames[i])))
          << "frame " << i;
    }
  };
  expect_frames({.start = 3, .stride = 6}, {3, 9, 15});
  expect_frames({.start = 3, .stride = 2, .max_frames = 2}, {3, 5});
  expect_frames({.fps = 5, .max_frames = 4}, {0, 2, 4, 6});
  expect_frames({.fps = 20, .start = 1, .max_frames = 4}, {1, 1, 2, 2});
  EXPECT_DOUBLE_EQ(read_video(path, {.fps = 5, .stride = 2}).fps, 2.5);
}

TEST(VideoReader, CropsToTheCentreAndScales) {
  TemporaryFolder folder;
  Video video{4, 128, 64, 8, {}};
  for (int64_t t = 0; t < 4; ++t) {
    for (int y = 0; y < 64; ++y) {
      for (int x = 0; x < 128; ++x) {
        const bool centre = x >= 32 && x < 96;
        for (const int value : {centre ? 200 : 20, y < 32 ? 180 : 60, 100}) {
          video.rgb.push_back(static_cast<uint8_t>(value));
        }
      }
    }
  }
  write_mp4(folder / "a.mp4", video);
  const Video square = read_video(folder / "a.mp4", {.width = 16, .height = 16});
  ASSERT_EQ(square.rgb.size(), 4u * 16 * 16 * 3);
  for (int y = 0; y < 16; ++y) {
    for (int x = 1; x < 15; ++x) {
      const auto pixel = square.frame(1).subspan((y * 16 + x) * 3, 3);
      EXPECT_NEAR(pixel[0], 200, 6);
      EXPECT_NEAR(pixel[1], y < 7 ? 180 : y > 8 ? 60 : 120, y < 7 || y > 8 ? 6 : 66);
      EXPECT_NEAR(pixel[2], 100, 6);
    }
  }
}

TEST(VideoBadInput, FilesThatAreNoVideo) {
  TemporaryFolder folder;
  const auto refusal = [&](const std::string& name) {
    return message_of<InputError>([&] { read_video(folder / name); });
  };
  EXPECT_THAT(refusal("missing.mp4"), AllOf(HasSubstr("missing.mp4"), HasSubstr("no such file")));
  write_bytes(folder / "empty.mp4", "");
  EXPECT_THAT(refusal("empty.mp4"), HasSubstr("is not a video"));
  for (const std::string name : {"text.txt", "text.mp4"}) {
    write_bytes(folder / name, std::string(50, 'x') + "\nThis is a text.\n");
    EXPECT_THAT(refusal(name), HasSubstr("is not a video"));
  }
  write_png(folder / "picture.png", contact_sheet(std::vector{synthetic_video(1, 32, 32)}, 1));
  EXPECT_THAT(refusal("picture.png"), HasSubstr("is not a video"));
  EXPECT_THAT(message_of<InputError>([&] { read_video(folder.path().string()); }),
              HasSubstr("no regular file"));
  // A playlist would make the library open other files.
  write_bytes(folder / "list.m3u8", "#EXTM3U\n#EXTINF:1,\n/etc/passwd\n#EXT-X-ENDLIST\n");
  EXPECT_THAT(refusal("list.m3u8"), HasSubstr("is not a video"));
}

TEST(VideoBadInput, SoundOnlyAndZeroLength) {
  TemporaryFolder folder;
  // An flv with eight audio tags of four zero bytes each: an audio stream and no video.
  std::string audio("FLV\x01\x04\x00\x00\x00\x09\x00\x00\x00\x00", 13);
  for (int i = 0; i < 8; ++i) {
    audio += std::string("\x08\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00\x2e\x00\x00\x00\x00", 16);
    audio += std::string("\x00\x00\x00\x10", 4);
  }
  write_bytes(folder / "sound.flv", audio);
  EXPECT_THAT(message_of<InputError>([&] { read_video(folder / "sound.flv"); }),
              HasSubstr("expected a video stream"));
  // A header of raw video and no frame after it.
  write_bytes(folder / "none.y4m", "YUV4MPEG2 W16 H16 F8:1 Ip A1:1 C420jpeg\n");
  EXPECT_THAT(message_of<InputError>([&] { read_video(folder / "none.y4m"); }),
              HasSubstr("expected at least one frame, found none"));
  write_mp4(folder / "short.mp4", synthetic_video(3, 32, 32));
  EXPECT_THAT(message_of<InputError>([&] { read_video(folder / "short.mp4", {.start = 3}); }),
              HasSubstr("from frame 3"));
}

// Moves an mp4's index before its data and corrects the offsets, as files for the web have it, so
// that a truncated one can still be opened.
std::string with_index_first(const std::string& bytes) {
  const auto box_size = [&](size_t at) {
    return static_cast<size_t>(static_cast<uint8_t>(bytes[at])) << 24 |
           static_cast<size_t>(static_cast<uint8_t>(bytes[at + 1])) << 16 |
           static_cast<size_t>(static_cast<uint8_t>(bytes[at + 2])) << 8 |
           static_cast<uint8_t>(bytes[at + 3]);
  };
  std::string before, moov, after;
  for (size_t at = 0; at < bytes.size(); at += box_size(at)) {
    const std::string box = bytes.substr(at, box_size(at));
    const std::string kind = box.substr(4, 4);
    (kind == "moov" ? moov : kind == "ftyp" ? before : after) += box;
  }
  const size_t table = moov.find("stco");
  const auto word = [&](size_t at) {
    uint32_t value = 0;
    for (int i = 0; i < 4; ++i) value = value << 8 | static_cast<uint8_t>(moov[at + i]);
    return value;
  };
  const uint32_t entries = word(table + 8);
  for (uint32_t i = 0; i < entries; ++i) {
    const uint32_t offset = word(table + 12 + 4 * i) + static_cast<uint32_t>(moov.size());
    for (int k = 0; k < 4; ++k) {
      moov[table + 12 + 4 * i + k] = static_cast<char>(offset >> (24 - 8 * k));
    }
  }
  return before + moov + after;
}

TEST(VideoBadInput, TruncatedAtAnyPlace) {
  TemporaryFolder folder;
  write_mp4(folder / "a.mp4", synthetic_video(24, 96, 64));
  const std::string whole = read_bytes(folder / "a.mp4");
  const std::string web = with_index_first(whole);
  write_bytes(folder / "b.mp4", web);
  ASSERT_EQ(read_video(folder / "b.mp4").frames, 24);
  int named = 0;
  for (int percent = 5; percent < 100; percent += 5) {
    for (const std::string& bytes : {whole, web}) {
      write_bytes(folder / "cut.mp4", bytes.substr(0, bytes.size() * percent / 100));
      const std::string message = message_of<InputError>([&] { read_video(folder / "cut.mp4"); });
      EXPECT_THAT(message, AllOf(HasSubstr("cut.mp4"), HasSubstr("truncated"))) << percent;
      named += message.find("truncated at frame") != std::string::npos ? 1 : 0;
    }
  }
  EXPECT_GT(named, 8);
  write_bytes(folder / "cut.mp4", web.substr(0, web.size() - 1));
  EXPECT_THAT(message_of<InputError>([&] { read_video(folder / "cut.mp4"); }),
              HasSubstr("truncated at frame 2"));
}

TEST(VideoBadInput, TruncatedBetweenPackets) {
  TemporaryFolder folder;
  write_mp4(folder / "a.mp4", synthetic_video(8, 32, 32));
  const std::string web = with_index_first(read_bytes(folder / "a.mp4"));
  // The last packets are small, so that some of these cuts fall on their borders.
  for (size_t missing = 1; missing <= 150; ++missing) {
    write_bytes(folder / "cut.mp4", web.substr(0, web.size() - missing));
    ASSERT_THAT(message_of<InputError>([&] { read_video(folder / "cut.mp4"); }),
                HasSubstr("truncated at frame"))
        << missing;
  }
}

// Puts the packets of a file into a container of another kind (by the ending of its name).
void remux(const std::string& from, const std::string& to) {
  AVFormatContext* input = nullptr;
  ASSERT_EQ(avformat_open_input(&input, from.c_str(), nullptr, nullptr), 0);
  const Libav<AVFormatContext> owner(input);
  ASSERT_GE(avformat_find_stream_info(input, nullptr), 0);
  AVFormatContext* output = nullptr;
  ASSERT_GE(avformat_alloc_output_context2(&output, nullptr, nullptr, to.c_str()), 0);
  AVStream* stream = avformat_new_stream(output, nullptr);
  avcodec_parameters_copy(stream->codecpar, input->streams[0]->codecpar);
  stream->codecpar->codec_tag = 0;
  stream->time_base = input->streams[0]->time_base;
  stream->avg_frame_rate = input->streams[0]->avg_frame_rate;
  ASSERT_GE(avio_open(&output->pb, to.c_str(), AVIO_FLAG_WRITE), 0);
  ASSERT_GE(avformat_write_header(output, nullptr), 0);
  const Libav<AVPacket> packet(av_packet_alloc());
  while (av_read_frame(input, packet.get()) >= 0) {
    av_packet_rescale_ts(packet.get(), input->streams[0]->time_base, stream->time_base);
    packet->pos = -1;
    ASSERT_GE(av_interleaved_write_frame(output, packet.get()), 0);
  }
  ASSERT_GE(av_write_trailer(output), 0);
  avio_closep(&output->pb);
  avformat_free_context(output);
}

TEST(VideoBadInput, TruncatedInOtherContainers) {
  TemporaryFolder folder;
  write_mp4(folder / "a.mp4", synthetic_video(24, 64, 48));
  const Video whole = read_video(folder / "a.mp4");
  for (const std::string kind : {"mkv", "flv", "mov"}) {
    SCOPED_TRACE(kind);
    const std::string path = folder / ("a." + kind);
    remux(folder / "a.mp4", path);
    EXPECT_EQ(read_video(path).rgb, whole.rgb);
    const std::string bytes = read_bytes(path);
    for (const size_t percent : {30, 50, 70}) {
      write_bytes(folder / "cut", bytes.substr(0, bytes.size() * percent / 100));
      EXPECT_THAT(message_of<InputError>([&] { read_video(folder / "cut"); }),
                  HasSubstr("truncated"))
          << percent;
    }
  }
}

TEST(VideoBadInput, FlippedBytesNeverCrash) {
  TemporaryFolder folder;
  write_mp4(folder / "a.mp4", synthetic_video(9, 64, 48));
  const std::string whole = read_bytes(folder / "a.mp4");
  int refused = 0;
  for (size_t i = 0; i < 60; ++i) {
    std::string bytes = whole;
    const size_t at = (i * 7919) % bytes.size();
    for (size_t k = at; k < std::min(at + 4, bytes.size()); ++k) bytes[k] ^= 0x55;
    write_bytes(folder / "b.mp4", bytes);
    try {
      EXPECT_LE(read_video(folder / "b.mp4", {.width = 32, .height = 32}).frames, 1000);
    } catch (const InputError& error) {
      EXPECT_THAT(error.what(), HasSubstr("b.mp4"));
      ++refused;
    }
  }
  EXPECT_GT(refused, 10);
}

TEST(RealClips, AreRead) {
  const auto clips = sprocket::testing::real_clips();
  if (clips.empty()) GTEST_SKIP() << "no clips in " SPROCKET_CLIPS;
  for (const std::string& clip : clips) {
    const Video video = read_video(clip, {.width = 128, .height = 80, .max_frames = 5});
    EXPECT_EQ(video.frames, 5) << clip;
    TemporaryFolder folder;
    const std::string bytes = read_bytes(clip);
    write_bytes(folder / "cut.mp4", bytes.substr(0, bytes.size() * 3 / 5));
    EXPECT_THAT(message_of<InputError>([&] { read_video(folder / "cut.mp4"); }),
                HasSubstr("truncated"));
  }
}

TEST(ContactSheet, PlacesFrames) {
  const std::vector<Video> rows = {synthetic_video(9, 16, 8), synthetic_video(2, 16, 8)};
  const Image sheet = contact_sheet(rows, 3);
  EXPECT_EQ(sheet.width, 3 * 18 + 2);
  EXPECT_EQ(sheet.height, 2 * 14 + 6);
  const auto pixel = [&](int x, int y) { return sheet.rgb.data() + (y * sheet.width + x) * 3; };
  for (const auto& [column, frame] : {std::pair{0, 0}, {1, 4}, {2, 8}}) {
    EXPECT_TRUE(std::equal(pixel(2 + column * 18, 6), pixel(2 + column * 18, 6) + 48,
                           rows[0].frame(frame).begin()));
  }
  EXPECT_TRUE(std::equal(pixel(20, 20), pixel(20, 20) + 48, rows[1].frame(1).begin()));
  EXPECT_EQ(*pixel(40, 22), 24);
}

TEST(Output, FailuresNameThePathAndLeaveTheFormerFile) {
  TemporaryFolder folder;
  const Image image = contact_sheet(std::vector{synthetic_video(1, 32, 32)}, 1);
  const Video video = synthetic_video(2, 32, 32);
  EXPECT_THAT(message_of<OutputError>([&] { write_png("/dev/full", image); }),
              AllOf(HasSubstr("/dev/full"), HasSubstr("No space left")));
  EXPECT_THAT(message_of<OutputError>([&] { write_mp4("/dev/full", video); }),
              AllOf(HasSubstr("/dev/full"), HasSubstr("No space left")));
  EXPECT_THAT(message_of<OutputError>([&] { write_png(folder / "no/a.png", image); }),
              HasSubstr("No such file or directory"));
  EXPECT_THAT(message_of<OutputError>([&] { write_mp4("/proc/a.mp4", video); }),
              HasSubstr("cannot be written"));
  write_png(folder / "a.png", image);
  const std::string former = read_bytes(folder / "a.png");
  std::filesystem::create_directory(folder / "b.png");
  EXPECT_THROW(write_png(folder / "b.png", image), OutputError);
  EXPECT_EQ(read_bytes(folder / "a.png"), former);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 2);
}

}  // namespace
}  // namespace sprocket::media
