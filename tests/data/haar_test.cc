#include "models/codec/haar.h"

#include <gmock/gmock.h>

#include <cmath>

#include "base/error.h"
#include "base/philox.h"
#include "models/codec/channel_moments.h"
#include "runtime/media/video_reader.h"
#include "tests/data/real_clips.h"
#include "tests/data/temporary_folder.h"

namespace sprocket::codec {
namespace {

std::vector<float> random_video(int64_t frames, int64_t height, int64_t width) {
  std::vector<float> video(3 * frames * height * width);
  const RandomStream random(3, 0, 0, RandomPurpose::kTest);
  for (size_t i = 0; i < video.size(); ++i) video[i] = 2 * random.uniform(i) - 1;
  return video;
}

TEST(Haar, GridEqualsThatOfWan) {
  for (int64_t k = 0; k < 30; ++k) {
    EXPECT_EQ(latent_frames(4 * k + 1), k + 1);
    EXPECT_EQ(video_frames(k + 1), 4 * k + 1);
  }
  EXPECT_EQ(latent_frames(2), 2);
  EXPECT_EQ(latent_frames(6), 3);
}

TEST(Haar, AllChannelsInvertToFloatPrecision) {
  const HaarCodec codec(kHaarCoefficients);
  for (const int64_t frames : {1, 2, 5, 7, 9}) {
    const auto video = random_video(frames, 16, 24);
    const auto latent = codec.encode(video, frames, 16, 24);
    ASSERT_EQ(latent.size(), 768u * latent_frames(frames) * 2 * 3);
    const auto back = codec.decode(latent, latent_frames(frames), 2, 3, frames, false);
    ASSERT_EQ(back.size(), video.size());
    // Ten additions and scalings each way: the error stays within 32 roundings of values <= 28.
    for (size_t i = 0; i < video.size(); ++i) ASSERT_NEAR(back[i], video[i], 32 * 28 * 0x1p-24);
  }
}

TEST(Haar, KeepsTheEnergyOfFullGroups) {
  const int64_t frames = 9;
  const auto video = random_video(frames, 8, 16);
  const auto latent = HaarCodec(kHaarCoefficients).encode(video, frames, 8, 16);
  double expected = 0, found = 0;
  const size_t plane = 8 * 16;
  for (size_t c = 0; c < 3; ++c) {
    for (size_t t = 0; t < 9; ++t) {
      for (size_t i = 0; i < plane; ++i) {
        const double value = video[(c * 9 + t) * plane + i];
        expected += (t == 0 ? 4 : 1) * value * value;  // the first frame counts four times
      }
    }
  }
  for (const double value : latent) found += value * value;
  EXPECT_NEAR(found, expected, 1e-5 * expected);
}

TEST(Haar, OrderIsAPermutationThatStartsWithTheMeans) {
  std::vector<int> seen(kHaarCoefficients);
  for (const HaarIndex& index : haar_order()) {
    ++seen[((index.colour * 4 + index.t) * 8 + index.h) * 8 + index.w];
  }
  EXPECT_THAT(seen, ::testing::Each(1));
  EXPECT_EQ(haar_order()[0].colour + haar_order()[0].t + haar_order()[0].h + haar_order()[0].w, 0);
  // Data sets store the version of this order: the first 16 of version 1.
  const int kFirst[16][4] = {{0, 0, 0, 0}, {0, 0, 0, 1}, {0, 0, 1, 0}, {0, 1, 0, 0},
                             {0, 0, 0, 2}, {0, 0, 0, 3}, {0, 0, 1, 1}, {0, 0, 2, 0},
                             {0, 0, 3, 0}, {1, 0, 0, 0}, {0, 1, 0, 1}, {0, 1, 1, 0},
                             {0, 2, 0, 0}, {0, 3, 0, 0}, {2, 0, 0, 0}, {0, 0, 0, 4}};
  ASSERT_EQ(kHaarVersion, 1);
  for (int i = 0; i < 16; ++i) {
    const HaarIndex& index = haar_order()[i];
    EXPECT_THAT((std::vector<int>{index.colour, index.t, index.h, index.w}),
                ::testing::ElementsAreArray(kFirst[i]))
        << "channel " << i;
  }
}

TEST(Haar, AConstantVideoIsOneCoefficientPerColour) {
  const std::vector<float> video(3 * 5 * 8 * 8, 0.5f);
  const auto latent = HaarCodec(16).encode(video, 5, 8, 8);
  EXPECT_NEAR(latent[0], 0.5f * std::sqrt(768.0f), 1e-5);
  for (size_t i = 2; i < latent.size(); ++i) EXPECT_NEAR(latent[i], 0, 1e-5) << i;
}

TEST(Haar, DecodedValuesAreClamped) {
  std::vector<float> latent(16, 0.0f);
  latent[0] = 100;
  EXPECT_EQ(HaarCodec(16).decode(latent, 1, 1, 1, 1)[5], 1.0f);
  EXPECT_GT(HaarCodec(16).decode(latent, 1, 1, 1, 1, false)[5], 2.0f);
}

TEST(Haar, RefusesAnImpossibleNumberOfChannels) {
  for (const int channels : {0, -1, 769}) {
    EXPECT_THAT(testing::message_of<ConfigError>([&] { HaarCodec codec(channels); }),
                ::testing::HasSubstr("legal: 1..768"));
  }
}

// What dropping coefficients costs on real video; the bounds lie 0.35 dB below the figures of the
// most detailed clip.
TEST(Haar, ReconstructsRealClips) {
  const auto clips = testing::real_clips();
  if (clips.empty()) GTEST_SKIP() << "no clips in " SPROCKET_CLIPS;
  const std::pair<int, double> kBounds[] = {{16, 21.5}, {24, 22.5}, {32, 24.1}, {48, 25.5}};
  for (const std::string& clip : clips) {
    const auto video = media::read_video(clip, {.width = 256, .height = 144, .max_frames = 33});
    const auto floats = media::to_floats(video);
    double former = 0;
    std::string line = clip.substr(clip.rfind('/') + 1);
    for (const auto& [channels, bound] : kBounds) {
      const HaarCodec codec(channels);
      const auto latent = codec.encode(floats, video.frames, 144, 256);
      const auto back = codec.decode(latent, latent_frames(video.frames), 18, 32, video.frames);
      const double psnr =
          media::psnr(video, media::from_floats(back, video.frames, 144, 256, video.fps));
      line += fmt::format("  {} channels {:.2f} dB", channels, psnr);
      EXPECT_GT(psnr, bound) << clip << " at " << channels;
      EXPECT_GT(psnr, former);
      former = psnr;
    }
    std::cout << line << "\n";
  }
}

TEST(ChannelMoments, NormalisesAndBack) {
  const auto latent = random_video(5, 8, 16);
  ChannelMoments moments(3);
  const std::span<const float> all(latent);
  moments.add(all);
  moments.add(all);
  ChannelStatistics statistics = moments.statistics();
  std::vector<float> values = latent;
  normalise(values, statistics);
  ChannelMoments after(3);
  after.add(values);
  for (int c = 0; c < 3; ++c) {
    EXPECT_NEAR(after.statistics().mean[c], 0, 1e-6);
    EXPECT_NEAR(after.statistics().std[c], 1, 1e-6);
  }
  denormalise(values, statistics);
  for (size_t i = 0; i < values.size(); ++i) ASSERT_NEAR(values[i], latent[i], 1e-6);

  ChannelMoments constant(1);
  constant.add(std::vector<float>(100, 0.1f));
  EXPECT_EQ(constant.statistics().std[0], 1.0f);
}

}  // namespace
}  // namespace sprocket::codec
