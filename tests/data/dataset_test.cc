#include <gmock/gmock.h>
#include <signal.h>
#include <sys/resource.h>

#include <cmath>
#include <cstring>
#include <numeric>
#include <set>

#include "base/error.h"
#include "base/philox.h"
#include "models/safetensors/writer.h"
#include "models/text/hashed_text.h"
#include "runtime/data/decode_latent.h"
#include "runtime/data/encode.h"
#include "runtime/data/file_hash.h"
#include "runtime/data/inspect.h"
#include "runtime/data/latent_dataset.h"
#include "runtime/data/latent_writer.h"
#include "runtime/data/sample_order.h"
#include "runtime/data/validate.h"
#include "runtime/media/video_reader.h"
#include "runtime/media/video_writer.h"
#include "tests/data/real_clips.h"
#include "tests/data/synthetic_video.h"
#include "tests/data/temporary_folder.h"

namespace sprocket::data {
namespace {

namespace fs = std::filesystem;
using sprocket::testing::message_of;
using sprocket::testing::read_bytes;
using sprocket::testing::synthetic_video;
using sprocket::testing::TemporaryFolder;
using sprocket::testing::write_bytes;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

void replace(std::string* text, const std::string& from, const std::string& to) {
  const size_t at = text->find(from);
  ASSERT_NE(at, std::string::npos) << from;
  text->replace(at, from.size(), to);
}

// Two videos of 21 frames, clips of 9, a shard per clip: four samples in four shards.
class DatasetTest : public ::testing::Test {
 protected:
  void SetUp() override {
    for (const int i : {0, 1}) {
      videos_.push_back(folder_ / fmt::format("{}.mp4", i));
      media::write_mp4(videos_.back(), synthetic_video(21, 64, 48, 8, i));
    }
  }
  EncodeOptions options() {
    EncodeOptions options;
    options.videos = videos_;
    options.caption = "A disc, moving";
    options.width = 64;
    options.height = 48;
    options.frames = 9;
    options.tokens = 4;
    options.dim = 6;
    options.output = folder_ / "set";
    options.shard_bytes = 1;
    return options;
  }
  std::string encode() { return encode_dataset(options()).index.samples.empty() ? "" : set_; }
  std::vector<std::string> entries() {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder_.path())) {
      names.push_back(entry.path().filename().string());
    }
    std::sort(names.begin(), names.end());
    return names;
  }

  TemporaryFolder folder_;
  std::vector<std::string> videos_;
  const std::string set_ = folder_ / "set";
};

TEST_F(DatasetTest, EncodesAndReadsBack) {
  std::vector<std::pair<int64_t, int64_t>> calls;
  const EncodeResult result = encode_dataset(options(), [&](const EncodeProgress& progress) {
    calls.emplace_back(progress.videos_done, progress.clips);
  });
  EXPECT_EQ(result.videos, 2);
  EXPECT_EQ(result.dropped_frames, 6);
  EXPECT_THAT(calls, ElementsAre(std::pair{0, 0}, std::pair{0, 1}, std::pair{0, 2}, std::pair{1, 2},
                                 std::pair{1, 3}, std::pair{1, 4}, std::pair{2, 4}));
  LatentDataset dataset(set_);
  ASSERT_EQ(dataset.size(), 4);
  ASSERT_EQ(dataset.buckets().size(), 1u);
  const LatentShape shape = dataset.buckets()[0].shape;
  EXPECT_EQ(to_string(shape), "[16, 3, 6, 8]");
  codec::ChannelMoments moments(16);
  for (int64_t i = 0; i < 4; ++i) {
    const Sample sample = dataset.load(i);
    const SampleInfo& info = dataset.index().samples[i];
    EXPECT_EQ(info.source, videos_[i / 2]);
    EXPECT_EQ(info.first_frame, i % 2 * 9);
    EXPECT_EQ(sample.text, text::embed_hashed("A disc, moving", 4, 6));
    moments.add(sample.latent);
    const media::Video original = media::read_video(
        info.source, {.width = 64, .height = 48, .start = info.first_frame, .max_frames = 9});
    const media::Video decoded = decode_latent(dataset.index().codec, dataset.index().statistics,
                                               sample.latent, info.shape, info.fps);
    EXPECT_EQ(decoded.frames, 9);
    EXPECT_GT(media::psnr(original, decoded), 22);
  }
  for (int c = 0; c < 16; ++c) {
    EXPECT_NEAR(moments.statistics().mean[c], 0, 1e-5);
    EXPECT_NEAR(moments.statistics().std[c], 1, 1e-5);
  }
  EXPECT_THAT(validate_dataset(set_), IsEmpty());
  EXPECT_THAT(inspect_dataset(set_, 3),
              AllOf(HasSubstr("4 samples in 4 shards"), HasSubstr("[16, 3, 6, 8]"),
                    HasSubstr("haar"), HasSubstr("A disc, moving"), HasSubstr("and 1 more"),
                    HasSubstr(hash_text(dataset.index().shards[0].xxh3))));
  EXPECT_EQ(read_bytes(set_ + "/index.json"), index_text(dataset.index()));
}

TEST_F(DatasetTest, EqualOptionsGiveEqualFiles) {
  encode();
  EncodeOptions again = options();
  again.output = folder_ / "again/deeper/";
  encode_dataset(again);
  for (const auto& entry : fs::directory_iterator(set_)) {
    EXPECT_EQ(read_bytes(entry.path().string()),
              read_bytes(folder_ / ("again/deeper/" + entry.path().filename().string())));
  }
}

TEST_F(DatasetTest, ClipsOverlapAndAreLimited) {
  EncodeOptions some = options();
  some.clip_stride = 4;
  some.start_frame = 1;
  some.frame_stride = 1;
  some.max_clips = 2;
  const Index index = encode_dataset(some).index;
  std::vector<int64_t> first;
  for (const SampleInfo& sample : index.samples) first.push_back(sample.first_frame);
  EXPECT_THAT(first, ElementsAre(1, 5, 1, 5));
  const Sample second = LatentDataset(set_).load(1);
  some.videos.resize(1);
  some.start_frame = 5;
  some.max_clips = 1;
  some.output = folder_ / "other";
  encode_dataset(some);
  // The same frames, normalised by the statistics of other sets: compare what is stored.
  const auto stored = [&](const std::string& set, const std::string& shard, const char* name) {
    const auto file = safetensors::File::open(folder_ / (set + "/" + shard));
    return file.floats(file.at(name));
  };
  EXPECT_EQ(stored("set", "latents-00001.safetensors", "000001.latent"),
            stored("other", "latents-00000.safetensors", "000000.latent"));
}

TEST_F(DatasetTest, ManifestWithSeveralShapesAndPrecomputedText) {
  std::vector<float> embedding(12);
  std::iota(embedding.begin(), embedding.end(), 0.5f);
  safetensors::write_file(folder_ / "e.safetensors",
                          {{{"embedding", safetensors::ElementType::kF32, {3, 4}},
                            std::as_bytes(std::span(embedding))}});
  write_bytes(folder_ / "m.jsonl",
              "{\"video\": \"0.mp4\", \"caption\": \"one\", \"text\": \"e.safetensors\"}\n\n"
              "{\"video\": \"1.mp4\", \"text\": \"e.safetensors\", \"width\": 32, \"height\": 32, "
              "\"frames\": 5}\n");
  EncodeOptions some = options();
  some.videos.clear();
  some.manifest = folder_ / "m.jsonl";
  some.text = "precomputed";
  some.shard_bytes = 1 << 20;
  encode_dataset(some);
  LatentDataset dataset(set_);
  ASSERT_EQ(dataset.buckets().size(), 2u);
  EXPECT_THAT(dataset.buckets()[0].samples, ElementsAre(2, 3, 4, 5));
  EXPECT_EQ(to_string(dataset.buckets()[0].shape), "[16, 2, 4, 4]");
  EXPECT_THAT(dataset.buckets()[1].samples, ElementsAre(0, 1));
  EXPECT_EQ(dataset.index().text.tokens, 3);
  EXPECT_EQ(dataset.load(1).text, embedding);
  EXPECT_EQ(dataset.index().samples[1].caption, "one");
  EXPECT_EQ(dataset.index().samples[4].caption, "A disc, moving");
  EXPECT_THAT(validate_dataset(set_), IsEmpty());
  EXPECT_THAT(message_of<InputError>([&] { embed_text(dataset.index().text, "x"); }),
              HasSubstr("precomputed"));
}

TEST_F(DatasetTest, BadManifestsAreNamedByLine) {
  EncodeOptions some = options();
  some.videos.clear();
  some.manifest = folder_ / "m.jsonl";
  const auto refusal = [&](const std::string& line) {
    write_bytes(some.manifest, "{\"video\": \"0.mp4\"}\n" + line + "\n");
    return message_of<InputError>([&] { encode_dataset(some); });
  };
  EXPECT_THAT(refusal("{"), AllOf(HasSubstr("m.jsonl:2"), HasSubstr("not valid JSON")));
  EXPECT_THAT(refusal("[]"), HasSubstr("expected a JSON object"));
  EXPECT_THAT(refusal("{}"), HasSubstr("\"video\" is missing"));
  EXPECT_THAT(refusal(R"({"video": 1})"), HasSubstr("expected a string"));
  EXPECT_THAT(refusal(R"({"video": "a", "captoin": "b"})"), HasSubstr("unknown key \"captoin\""));
  EXPECT_THAT(refusal(R"({"video": )" + std::string(1'000'000, '[')),
              HasSubstr("expected at most 64 levels"));
  EXPECT_THAT(refusal(R"({"video": "a", "width": 40})"), HasSubstr("near it: 32, 48"));
  EXPECT_THAT(refusal(R"({"video": "a", "text": "b"})"), HasSubstr("\"hashed\""));
  EXPECT_THAT(refusal(R"({"video": "missing.mp4"})"), HasSubstr("no such file"));
  write_bytes(some.manifest, "\n");
  EXPECT_THAT(message_of<InputError>([&] { encode_dataset(some); }), HasSubstr("at least one"));
  some.manifest += ".missing";
  EXPECT_THAT(message_of<InputError>([&] { encode_dataset(some); }), HasSubstr("No such file"));
  EXPECT_FALSE(fs::exists(set_));
}

TEST_F(DatasetTest, AllBadOptionsAreListedAtOnce) {
  EncodeOptions bad = options();
  bad.width = 100;
  bad.frames = 80;
  bad.channels = 769;
  bad.text = "umt5";
  bad.manifest = "both";
  EXPECT_THAT(message_of<ConfigError>([&] { encode_dataset(bad); }),
              AllOf(HasSubstr("width: 100 is not a multiple of 16 in 16..32768; near it: 96, 112"),
                    HasSubstr("frames: 80 is not of the form 4k+1; near it: 77, 81"),
                    HasSubstr("769 is not in 1..768"),
                    HasSubstr("\"umt5\" is none of: hashed, precomputed"),
                    HasSubstr("either videos or a manifest")));
}

TEST_F(DatasetTest, BadVideosLeaveNothingBehind) {
  const auto before = entries();
  const auto refusal = [&](const std::string& bytes) {
    EncodeOptions some = options();
    some.videos.push_back(folder_ / "bad.mp4");
    write_bytes(some.videos.back(), bytes);
    const std::string message = message_of<InputError>([&] { encode_dataset(some); });
    fs::remove(some.videos.back());
    EXPECT_EQ(entries(), before);
    return message;
  };
  const std::string whole = read_bytes(videos_[0]);
  EXPECT_THAT(refusal("no video at all, but a text"), HasSubstr("is not a video"));
  EXPECT_THAT(refusal(whole.substr(0, whole.size() / 2)), HasSubstr("truncated"));
  EXPECT_THAT(refusal(""), HasSubstr("is not a video"));
  EXPECT_THAT(refusal("YUV4MPEG2 W16 H16 F8:1 Ip A1:1 C420jpeg\n"), HasSubstr("zero-length"));
  EncodeOptions some = options();
  some.frames = 25;
  EXPECT_THAT(message_of<InputError>([&] { encode_dataset(some); }),
              HasSubstr("one clip of 25 frames, found 21"));
  EXPECT_EQ(entries(), before);
}

TEST_F(DatasetTest, AFolderInUseIsRefusedAndStaysAsItIs) {
  encode();
  const std::string former = read_bytes(set_ + "/index.json");
  EXPECT_THAT(message_of<OutputError>([&] { encode(); }),
              AllOf(HasSubstr(set_), HasSubstr("already holds something"), HasSubstr("--output")));
  EXPECT_EQ(read_bytes(set_ + "/index.json"), former);
  EXPECT_THAT(entries(), ElementsAre("0.mp4", "1.mp4", "set"));
  fs::create_directory(folder_ / "empty");
  EncodeOptions some = options();
  some.output = folder_ / "empty";
  EXPECT_EQ(encode_dataset(some).index.samples.size(), 4u);
  some.output = videos_[0];
  EXPECT_THAT(message_of<OutputError>([&] { encode_dataset(some); }), HasSubstr("already holds"));
}

TEST_F(DatasetTest, AFullDiskLeavesNothingBehind) {
  const auto before = entries();
  rlimit former{};
  getrlimit(RLIMIT_FSIZE, &former);
  signal(SIGXFSZ, SIG_IGN);
  const rlimit small{8192, former.rlim_max};  // the first shard takes 9,216 bytes and its header
  setrlimit(RLIMIT_FSIZE, &small);
  std::string message;
  try {
    encode_dataset(options());
  } catch (const OutputError& error) {
    message = error.what();
  }
  setrlimit(RLIMIT_FSIZE, &former);
  signal(SIGXFSZ, SIG_DFL);
  EXPECT_THAT(message, AllOf(HasSubstr("latents-00000.safetensors"), HasSubstr("File too large")));
  EXPECT_EQ(entries(), before);
}

TEST_F(DatasetTest, AnUnwritableFolderIsRefused) {
  EncodeOptions some = options();
  some.output = "/proc/set";
  EXPECT_THAT(message_of<OutputError>([&] { encode_dataset(some); }), HasSubstr("/proc/set"));
  some.output = videos_[0] + "/set";
  EXPECT_THAT(message_of<OutputError>([&] { encode_dataset(some); }),
              HasSubstr("cannot be created"));
}

TEST_F(DatasetTest, DamagedShardsAreFoundAndSkipped) {
  encode();
  const auto shard = [&](int i) { return fmt::format("{}/latents-{:05}.safetensors", set_, i); };
  std::string bytes = read_bytes(shard(0));
  bytes[bytes.size() / 2] ^= 1;
  write_bytes(shard(0), bytes);
  bytes = read_bytes(shard(1));
  write_bytes(shard(1), bytes.substr(0, bytes.size() - 100));
  fs::remove(shard(2));
  write_bytes(set_ + "/stray", "");

  LatentDataset dataset(set_);
  EXPECT_THAT(message_of<InputError>([&] { dataset.load(0); }),
              AllOf(HasSubstr(shard(0)), HasSubstr("expected the hash")));
  EXPECT_THAT(message_of<InputError>([&] { dataset.load(1); }), HasSubstr("truncated"));
  EXPECT_THAT(message_of<InputError>([&] { dataset.load(2); }), HasSubstr("No such file"));
  EXPECT_EQ(dataset.bad_samples(), 0);
  for (const int64_t i : {0, 1, 2, 3}) EXPECT_EQ(dataset.load_or_substitute(i).index, 3);
  EXPECT_EQ(dataset.bad_samples(), 3);
  EXPECT_THAT(validate_dataset(set_),
              ::testing::UnorderedElementsAre(HasSubstr("stray"), HasSubstr(shard(0)),
                                              HasSubstr(shard(1)), HasSubstr(shard(2))));
  EXPECT_THAT(inspect_dataset(set_), AllOf(HasSubstr("DAMAGED"), HasSubstr("problems:")));

  fs::remove(shard(3));
  EXPECT_THAT(message_of<InputError>([&] { LatentDataset(set_).load_or_substitute(1); }),
              AllOf(HasSubstr("4 samples in a row are bad (all of their latent shape)"),
                    HasSubstr("data validate"), HasSubstr("latents-00000")));
}

TEST_F(DatasetTest, TensorsThatDoNotFitTheIndexAreNamed) {
  encode();
  const std::string shard = set_ + "/latents-00000.safetensors";
  const auto rewrite = [&](const std::string& name, std::vector<int64_t> shape, float value) {
    std::vector<float> values(
        std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>()));
    values[7] = value;
    safetensors::write_file(
        shard, {{{name, safetensors::ElementType::kF32, shape}, std::as_bytes(std::span(values))}});
    Index index = read_index(set_);
    const FileHash hash = hash_file(shard);
    index.shards[0].bytes = hash.bytes;
    index.shards[0].xxh3 = hash.xxh3;
    write_bytes(set_ + "/index.json", index_text(index));
    return validate_dataset(set_);
  };
  EXPECT_THAT(rewrite("000000.latent", {16, 3, 6, 8}, 1), IsEmpty());
  EXPECT_THAT(rewrite("000000.latent", {16, 3, 6, 8}, NAN), ElementsAre(HasSubstr("element 7 is")));
  EXPECT_THAT(rewrite("000000.latent", {16, 3, 6, 8}, INFINITY),
              ElementsAre(HasSubstr("element 7 is inf")));
  EXPECT_THAT(rewrite("000000.latent", {16, 3, 8, 6}, 1),
              ElementsAre(HasSubstr("expected the shape [16, 3, 6, 8], found [16, 3, 8, 6]")));
  EXPECT_THAT(rewrite("other", {16, 3, 6, 8}, 1),
              ElementsAre(HasSubstr("\"000000.latent\""), HasSubstr("belongs to no sample")));
}

TEST_F(DatasetTest, DamagedIndexesAreRefused) {
  encode();
  const std::string path = set_ + "/index.json";
  const std::string good = read_bytes(path);
  const auto refusal = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    replace(&text, from, to);
    return message_of<InputError>([&] { parse_index(text, path); });
  };
  EXPECT_THAT(refusal("\"schema_version\": 1", "\"schema_version\": 7"),
              AllOf(HasSubstr(path), HasSubstr("found 7"), HasSubstr("reads is 1")));
  EXPECT_THAT(refusal("\"schema_version\": 1", "\"schema_version\": \"1\""),
              HasSubstr("schema_version: expected an integer in 1..2147483647, found \"1\""));
  EXPECT_THAT(refusal("\"normalised\"", "\"normalized\""), HasSubstr("normalised is missing"));
  EXPECT_THAT(refusal("\"shard\": 0", "\"shard\": 4"),
              HasSubstr("samples[0].shard: expected an integer in 0..3, found 4"));
  EXPECT_THAT(refusal("\"shard\": 0", "\"shard\": -1"), HasSubstr("found -1"));
  EXPECT_THAT(refusal("latents-00000.safetensors", "../x"), HasSubstr("shards[0].file"));
  EXPECT_THAT(refusal("\"id\": \"000001\"", "\"id\": \"000000\""), HasSubstr("used only once"));
  EXPECT_THAT(refusal("\"channels\": 16", "\"channels\": 17"), HasSubstr("17 numbers"));
  EXPECT_THAT(refusal("\"hashed\"", "\"other\""), HasSubstr("text.name"));
  EXPECT_THAT(refusal("\"fps\": 8.0", "\"fps\": 0"), HasSubstr("samples[0].fps"));
  EXPECT_THAT(refusal("\"xxh3\": \"", "\"xxh3\": \"x"), HasSubstr("16 hexadecimal digits"));
  EXPECT_THAT(message_of<InputError>([&] { parse_index(good.substr(0, 300), path); }),
              HasSubstr("not valid JSON"));
  EXPECT_THAT(message_of<InputError>([&] { parse_index("[]", path); }), HasSubstr("an object"));
  // Deep nesting must not cost stack.
  const std::string deep =
      "{\"schema_version\": " + std::string(1'000'000, '[') + std::string(1'000'000, ']') + "}";
  EXPECT_THAT(message_of<InputError>([&] { parse_index(deep, path); }),
              HasSubstr("expected at most 64 levels"));
  EXPECT_THAT(message_of<InputError>([&] { read_index(folder_ / "nowhere"); }),
              AllOf(HasSubstr("nowhere/index.json"), HasSubstr("No such file")));
  EXPECT_THAT(message_of<InputError>([&] { validate_dataset(folder_ / "nowhere"); }),
              HasSubstr("found nothing"));
  write_bytes(path, "{}");
  EXPECT_THAT(validate_dataset(set_), ElementsAre(HasSubstr("schema_version is missing")));

  for (uint64_t round = 0; round < 3000; ++round) {
    const RandomStream random(23, round, 0, RandomPurpose::kTest);
    std::string text = good;
    const std::string alphabet = "{}[]\",:0123456789-.eE\\ \xff";
    for (uint64_t edit = 0; edit < 1 + random.below(0, 3); ++edit) {
      const size_t position = random.below(edit * 8 + 4, text.size());
      if (random.below(edit * 8 + 5, 2) == 0) {
        text[position] = alphabet[random.below(edit * 8 + 6, alphabet.size())];
      } else {
        text.erase(position, 1 + random.below(edit * 8 + 6, 40));
      }
    }
    try {
      parse_index(text, path);
    } catch (const InputError&) {
    }
  }
}

TEST(LatentDataset, AHundredBadSamplesInARowStopTheRun) {
  TemporaryFolder folder;
  const auto write = [&](const std::string& name, int good) {
    LatentWriter writer(folder / name, {"haar", 1, 1}, {"hashed", 1, 1, 1}, 1 << 20);
    for (int i = 0; i < 130; ++i) {
      SampleInfo info{.shape = {1, 1, 1, 2}, .frames = 1, .fps = 1, .width = 1, .height = 1};
      writer.add(info, {1.0f, i < good ? 2.0f : NAN}, {});
    }
    Index index = writer.finish();
    index.statistics = {{0.0f}, {1.0f}};
    write_bytes(folder / (name + "/index.json"), index_text(index));
  };
  write("a", 1);
  LatentDataset a(folder / "a");
  EXPECT_EQ(a.load_or_substitute(31).index, 0);  // 99 bad ones, then the first
  EXPECT_EQ(a.bad_samples(), 99);
  EXPECT_THAT(message_of<InputError>([&] { a.load_or_substitute(30); }),
              HasSubstr("100 samples in a row are bad;"));
}

TEST(SampleOrder, VisitsEverySampleOnceAnEpoch) {
  SampleOrder order({{0, 1, 2, 3, 4, 5, 6, 7}, {8, 9, 10, 11}}, 4, 5);
  ASSERT_EQ(order.epoch_size(), 12);
  std::set<std::vector<int64_t>> epochs;
  for (int epoch = 0; epoch < 4; ++epoch) {
    std::vector<int64_t> samples;
    for (int i = 0; i < 12; ++i) samples.push_back(order.at(epoch * 12 + i));
    for (int batch = 0; batch < 3; ++batch) {
      for (int i = 1; i < 4; ++i) {
        EXPECT_EQ(samples[batch * 4] < 8, samples[batch * 4 + i] < 8) << "one bucket in a batch";
      }
    }
    epochs.insert(samples);
    std::sort(samples.begin(), samples.end());
    for (int i = 0; i < 12; ++i) EXPECT_EQ(samples[i], i);
  }
  EXPECT_EQ(epochs.size(), 4u);
}

TEST(SampleOrder, DependsOnSeedEpochAndIndexAlone) {
  SampleOrder forward({{0, 1, 2, 3, 4}, {5, 6, 7}}, 2, 11);
  SampleOrder jumping({{0, 1, 2, 3, 4}, {5, 6, 7}}, 2, 11);
  SampleOrder other({{0, 1, 2, 3, 4}, {5, 6, 7}}, 2, 12);
  ASSERT_EQ(forward.epoch_size(), 10);
  std::vector<int64_t> sequence;
  for (int i = 0; i < 200; ++i) sequence.push_back(forward.at(i));
  int different = 0;
  for (int i = 199; i >= 0; --i) {
    const int index = i * 77 % 200;
    EXPECT_EQ(jumping.at(index), sequence[index]);
    different += other.at(index) != sequence[index] ? 1 : 0;
  }
  EXPECT_GT(different, 50);
}

TEST(SampleOrder, FillsIncompleteBatches) {
  SampleOrder one({{3}}, 4, 0);
  EXPECT_EQ(one.epoch_size(), 4);
  for (int i = 0; i < 9; ++i) EXPECT_EQ(one.at(i), 3);
  SampleOrder three({{0, 1, 2}}, 2, 0);
  std::vector<int> count(3);
  for (int i = 0; i < 4; ++i) ++count[three.at(i)];
  EXPECT_THAT(count, ::testing::UnorderedElementsAre(1, 1, 2));
}

TEST(SampleOrder, IsUniform) {
  SampleOrder order({{0, 1, 2, 3}}, 1, 9);
  int first[4] = {};
  for (int epoch = 0; epoch < 4000; ++epoch) ++first[order.at(epoch * 4)];
  // Binomial(4000, 1/4): deviation 27.4; five of them.
  for (const int count : first) EXPECT_NEAR(count, 1000, 137);
}

TEST(FileHash, KnownValuesAndText) {
  TemporaryFolder folder;
  write_bytes(folder / "empty", "");
  EXPECT_EQ(hash_text(hash_file(folder / "empty").xxh3), "2d06800538d394c2");  // XXH3's own vector
  EXPECT_EQ(parse_hash("00000000000000ff"), 255u);
  EXPECT_EQ(parse_hash("ff"), std::nullopt);
  EXPECT_EQ(parse_hash("00000000000000FF"), std::nullopt);
  EXPECT_EQ(parse_hash("00000000000000fg"), std::nullopt);
}

TEST(RealClips, AreEncoded) {
  const auto clips = sprocket::testing::real_clips();
  if (clips.empty()) GTEST_SKIP() << "no clips in " SPROCKET_CLIPS;
  TemporaryFolder folder;
  EncodeOptions options;
  options.videos = clips;
  options.width = 128;
  options.height = 80;
  options.frames = 17;
  options.output = folder / "set";
  const EncodeResult result = encode_dataset(options);
  EXPECT_EQ(result.index.shards.size(), 1u);
  EXPECT_GE(result.index.samples.size(), clips.size());
  EXPECT_THAT(validate_dataset(options.output), IsEmpty());
}

}  // namespace
}  // namespace sprocket::data
