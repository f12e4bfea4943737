#include <gmock/gmock.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "models/safetensors/writer.h"
#include "models/text/hashed_text.h"
#include "runtime/data/embed_prompts.h"
#include "runtime/data/file_hash.h"
#include "runtime/data/latent_dataset.h"
#include "runtime/data/latent_writer.h"
#include "runtime/data/prompt_check.h"
#include "runtime/data/prompt_set.h"
#include "tests/data/temporary_folder.h"

namespace sprocket::data {
namespace {

namespace fs = std::filesystem;
using sprocket::testing::message_of;
using sprocket::testing::read_bytes;
using sprocket::testing::TemporaryFolder;
using sprocket::testing::write_bytes;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

class PromptSetTest : public ::testing::Test {
 protected:
  // Three prompts in three shards, the negative one in the first, for 9 frames of 64 x 48.
  EmbedOptions options() {
    write_bytes(folder_ / "prompts.txt",
                "\xef\xbb\xbfred fox\r\n\n  \t \n  a blue bird \nr\u00e4tsel");
    EmbedOptions options;
    options.prompts = folder_ / "prompts.txt";
    options.negative = "blurry";
    options.tokens = 3;
    options.dim = 5;
    options.width = 64;
    options.height = 48;
    options.frames = 9;
    options.output = set_;
    options.shard_bytes = 1;
    return options;
  }
  std::string shard(int number) {
    return fmt::format("{}/prompts-{:05}.safetensors", set_, number);
  }
  void write_embedding(const std::string& name, int64_t tokens, int64_t dim, float value) {
    const std::vector<float> values(tokens * dim, value);
    safetensors::write_file(folder_ / name,
                            {{{"embedding", safetensors::ElementType::kF32, {tokens, dim}},
                              std::as_bytes(std::span(values))}});
  }
  // A data set of one clip, with hashed or precomputed text of 3 x 5.
  std::string data_set(const std::string& text_name) {
    const std::string path = folder_ / text_name;
    const int version = text_name == "hashed" ? text::kHashedTextVersion : 0;
    LatentWriter writer(path, {"haar", 1, 2}, {text_name, version, 3, 5}, 1 << 20);
    SampleInfo info;
    info.shape = {2, 3, 4, 6};
    info.caption = "clip";
    info.source = "closed form";
    info.frames = 9;
    info.fps = 12;
    info.width = 48;
    info.height = 32;
    std::vector<float> latent(info.shape.elements());
    for (size_t i = 0; i < latent.size(); ++i) latent[i] = static_cast<float>(i % 7);
    writer.add(info, latent, std::vector<float>(text_name == "hashed" ? 0 : 15, 1.0f));
    writer.finish();
    return path;
  }

  TemporaryFolder folder_;
  std::string set_ = folder_ / "set";
};

TEST_F(PromptSetTest, HoldsWhatTheEmbedderSays) {
  embed_prompts(options());
  EXPECT_TRUE(is_prompt_set(set_));
  EXPECT_THAT(validate_prompts(set_), IsEmpty());
  PromptSet prompts(set_);
  ASSERT_EQ(prompts.size(), 3);
  EXPECT_EQ(prompts.text(), (TextInfo{"hashed", text::kHashedTextVersion, 3, 5}));
  const char* texts[] = {"red fox", "a blue bird", "r\u00e4tsel"};
  for (const int64_t i : {2, 0, 1}) {
    const Prompt prompt = prompts.load(i);
    EXPECT_EQ(prompt.text, texts[i]);
    EXPECT_EQ(prompt.embedding, text::embed_hashed(texts[i], 3, 5));
  }
  EXPECT_EQ(prompts.negative(), text::embed_hashed("blurry", 3, 5));
  EXPECT_EQ(prompts.video().shape, (LatentShape{16, 3, 6, 8}));
  EXPECT_EQ(prompts.video().frames, 9);
  EXPECT_EQ(prompts.video().fps, 16);
  EXPECT_FALSE(prompts.video().shift);
  EXPECT_FALSE(prompts.video().coding);
}

TEST_F(PromptSetTest, IsNoDataSet) {
  embed_prompts(options());
  EXPECT_THAT(message_of<InputError>([&] { LatentDataset{set_}; }),
              AllOf(HasSubstr(set_), HasSubstr("found a prompt set")));
  EXPECT_FALSE(is_prompt_set(data_set("hashed")));
}

TEST_F(PromptSetTest, WithoutANegativePromptItIsZeros) {
  EmbedOptions plain = options();
  plain.negative.reset();
  embed_prompts(plain);
  EXPECT_THAT(PromptSet(set_).negative(), IsEmpty());
  EXPECT_THAT(validate_prompts(set_), IsEmpty());
}

TEST_F(PromptSetTest, EqualPromptsGiveEqualBytes) {
  embed_prompts(options());
  EmbedOptions again = options();
  again.output = folder_ / "again";
  embed_prompts(again);
  for (const auto& entry : fs::directory_iterator(set_)) {
    const std::string name = entry.path().filename().string();
    EXPECT_EQ(read_bytes(set_ + "/" + name), read_bytes(again.output + "/" + name)) << name;
  }
}

TEST_F(PromptSetTest, TakesVideosAndEmbedderFromADataSet) {
  EmbedOptions like = options();
  like.like = data_set("hashed");
  like.tokens = like.dim = like.width = like.height = like.frames = std::nullopt;
  embed_prompts(like);
  const PromptSet prompts(set_);
  const Index index = read_index(like.like);
  EXPECT_EQ(prompts.text(), index.text);
  EXPECT_EQ(prompts.video().shape, index.samples[0].shape);
  EXPECT_EQ(prompts.video().frames, 9);
  EXPECT_EQ(prompts.video().fps, 12);
  EXPECT_EQ(prompts.video().width, 48);
  EXPECT_EQ(prompts.video().height, 32);
  ASSERT_TRUE(prompts.video().coding);
  EXPECT_EQ(prompts.video().coding->codec, index.codec);
  EXPECT_EQ(prompts.video().coding->statistics.mean, index.statistics.mean);
  EXPECT_EQ(prompts.video().coding->statistics.std, index.statistics.std);

  like.output = folder_ / "other";
  like.shift = 8;
  embed_prompts(like);
  EXPECT_EQ(PromptSet(like.output).video().shift, 8);
  like.dim = 6;
  EXPECT_THAT(message_of<ConfigError>([&] { embed_prompts(like); }),
              AllOf(HasSubstr("\"hashed\" of 3 x 5"), HasSubstr("found 3 x 6")));
  like.dim.reset();
  like.fps = 8;
  EXPECT_THAT(message_of<ConfigError>([&] { embed_prompts(like); }), HasSubstr("give either"));
  like.fps.reset();
  like.like = data_set("precomputed");
  EXPECT_THAT(message_of<ConfigError>([&] { embed_prompts(like); }),
              HasSubstr("a manifest that names embeddings"));
}

TEST_F(PromptSetTest, PrecomputedEmbeddingsAreTaken) {
  write_embedding("a.safetensors", 3, 5, 0.25f);
  write_embedding("b.safetensors", 3, 5, 0.5f);
  write_bytes(folder_ / "m.jsonl", R"({"prompt": "one", "text": "a.safetensors"}

{"negative": "dull", "text": "b.safetensors"})");
  EmbedOptions manifest = options();
  manifest.prompts.clear();
  manifest.negative = std::nullopt;
  manifest.tokens = manifest.dim = std::nullopt;
  manifest.manifest = folder_ / "m.jsonl";
  manifest.output = folder_ / "first";
  embed_prompts(manifest);
  PromptSet prompts(manifest.output);
  EXPECT_EQ(prompts.text(), (TextInfo{"precomputed", 0, 3, 5}));
  EXPECT_EQ(prompts.load(0).embedding, std::vector<float>(15, 0.25f));
  EXPECT_EQ(prompts.negative(), std::vector<float>(15, 0.5f));
  EXPECT_EQ(prompts.index().negative, "dull");

  manifest.output = set_;
  const auto refusal = [&](const std::string& lines) {
    write_bytes(folder_ / "m.jsonl", lines);
    const std::string message = message_of<InputError>([&] { embed_prompts(manifest); });
    EXPECT_FALSE(fs::exists(set_));
    return message;
  };
  const std::string good = R"({"prompt": "one", "text": "a.safetensors"})";
  EXPECT_THAT(refusal(good + "\n{"), AllOf(HasSubstr("m.jsonl:2"), HasSubstr("not valid JSON")));
  EXPECT_THAT(refusal("[]"), AllOf(HasSubstr("m.jsonl:1"), HasSubstr("expected an object")));
  EXPECT_THAT(refusal(R"({"prompt": "one"})"), HasSubstr("text is missing"));
  EXPECT_THAT(refusal(R"({"prompt": 1, "text": "a.safetensors"})"), HasSubstr("expected a string"));
  EXPECT_THAT(refusal(R"({"promt": "one"})"), HasSubstr("unknown key \"promt\""));
  EXPECT_THAT(refusal(R"({"prompt": "x", "negative": "y", "text": "a.safetensors"})"),
              HasSubstr("either \"prompt\" or \"negative\""));
  const std::string negative = R"({"negative": "n", "text": "b.safetensors"})";
  EXPECT_THAT(refusal(good + "\n" + negative + "\n" + negative), HasSubstr("m.jsonl:3"));
  EXPECT_THAT(refusal(negative), HasSubstr("at least one prompt"));
  EXPECT_THAT(refusal(R"({"prompt": "one", "text": "c.safetensors"})"), HasSubstr("No such file"));
  write_embedding("wide.safetensors", 3, 6, 1);
  EXPECT_THAT(refusal(good + "\n" + R"({"prompt": "two", "text": "wide.safetensors"})"),
              AllOf(HasSubstr("wide.safetensors"), HasSubstr("[3, 5]"), HasSubstr("[3, 6]")));
  write_embedding("nan.safetensors", 3, 5, NAN);
  EXPECT_THAT(refusal(R"({"prompt": "two", "text": "nan.safetensors"})"),
              HasSubstr("element 0 is nan"));
}

TEST_F(PromptSetTest, RefusesOptionsAndFilesThatMakeNoSense) {
  EmbedOptions bad = options();
  bad.width = 100;
  bad.manifest = "m.jsonl";
  bad.dim = 0;
  bad.fps = -1;
  bad.shift = 0;
  EXPECT_THAT(
      message_of<ConfigError>([&] { embed_prompts(bad); }),
      AllOf(HasSubstr("width: 100 is not a multiple of 16"), HasSubstr("a manifest"),
            HasSubstr("text dim: 0 is not in 1..65536"), HasSubstr("fps"), HasSubstr("shift")));
  bad = options();
  bad.height.reset();
  EXPECT_THAT(message_of<ConfigError>([&] { embed_prompts(bad); }),
              HasSubstr("like (a data set), or frames, height and width"));
  bad = options();
  write_bytes(bad.prompts, "good\nbad \xff\xfe\n");
  EXPECT_THAT(message_of<InputError>([&] { embed_prompts(bad); }),
              AllOf(HasSubstr("prompts.txt:2"), HasSubstr("UTF-8")));
  write_bytes(bad.prompts, " \n\n");
  EXPECT_THAT(message_of<InputError>([&] { embed_prompts(bad); }), HasSubstr("found none"));
  bad.prompts = folder_ / "nowhere.txt";
  EXPECT_THAT(message_of<InputError>([&] { embed_prompts(bad); }), HasSubstr("No such file"));
  bad = options();
  embed_prompts(bad);
  EXPECT_THAT(message_of<OutputError>([&] { embed_prompts(bad); }), HasSubstr("already holds"));
}

TEST_F(PromptSetTest, DamageIsFoundAndNamed) {
  embed_prompts(options());
  std::string bytes = read_bytes(shard(1));
  bytes.back() ^= 1;
  write_bytes(shard(1), bytes);
  fs::resize_file(shard(2), fs::file_size(shard(2)) - 1);
  write_bytes(set_ + "/stray", "");
  PromptSet prompts(set_);
  EXPECT_EQ(prompts.load(0).text, "red fox");
  EXPECT_THAT(message_of<InputError>([&] { prompts.load(1); }),
              AllOf(HasSubstr(shard(1)), HasSubstr("expected the hash")));
  EXPECT_THAT(message_of<InputError>([&] { prompts.load(2); }), HasSubstr("truncated"));
  EXPECT_THAT(validate_prompts(set_),
              UnorderedElementsAre(HasSubstr("stray"), HasSubstr(shard(1)), HasSubstr(shard(2))));
  EXPECT_THAT(inspect_prompts(set_, 2),
              AllOf(HasSubstr("3 prompts in 3 shards"), HasSubstr("DAMAGED"),
                    HasSubstr("\"a blue bird\""), HasSubstr("and 1 more"), HasSubstr("problems:")));
  fs::remove(shard(0));
  EXPECT_THAT(message_of<InputError>([&] { PromptSet{set_}; }), HasSubstr("No such file"));
}

TEST_F(PromptSetTest, TensorsOfNobodyAreFound) {
  EmbedOptions one = options();
  one.shard_bytes = 1 << 20;
  PromptIndex index = embed_prompts(one);
  index.prompts.pop_back();
  write_bytes(set_ + "/prompts.json", prompt_index_text(index));
  EXPECT_THAT(validate_prompts(set_),
              ElementsAre(AllOf(HasSubstr("000002.text"), HasSubstr("belongs to no prompt"))));
}

TEST_F(PromptSetTest, DamagedIndexesAreRefused) {
  EmbedOptions like = options();
  like.like = data_set("hashed");
  like.tokens = like.dim = like.width = like.height = like.frames = std::nullopt;
  like.shift = 5;
  embed_prompts(like);
  const std::string path = set_ + "/prompts.json";
  const std::string good = read_bytes(path);
  EXPECT_EQ(prompt_index_text(parse_prompt_index(good, path)), good);
  // `pointer` takes another value, or none.
  const auto refusal = [&](const std::string& pointer, const std::string& value) {
    nlohmann::ordered_json json = nlohmann::ordered_json::parse(good);
    const nlohmann::ordered_json::json_pointer at(pointer);
    if (value.empty()) {
      json[at.parent_pointer()].erase(at.back());
    } else {
      json[at] = nlohmann::ordered_json::parse(value);
    }
    return message_of<InputError>([&] { parse_prompt_index(json.dump(), path); });
  };
  EXPECT_THAT(refusal("/schema_version", "2"),
              AllOf(HasSubstr(path), HasSubstr("found 2"), HasSubstr("reads is 1"),
                    HasSubstr("embed the prompts again")));
  EXPECT_THAT(refusal("/text", ""), HasSubstr("text is missing"));
  EXPECT_THAT(refusal("/text/name", "\"umt5\""), HasSubstr("text.name"));
  EXPECT_THAT(refusal("/text/dim", "0"), HasSubstr("text.dim: expected an integer in 1..1048576"));
  EXPECT_THAT(refusal("/video/latent/0", "3"), HasSubstr("the codec's 2 channels"));
  EXPECT_THAT(refusal("/video/latent", "[2, 3, 4]"), HasSubstr("[C, T, H, W]"));
  EXPECT_THAT(refusal("/video/latent", "[2, 2147483647, 2147483647, 2147483647]"), HasSubstr(path));
  EXPECT_THAT(refusal("/video/fps", "0"), HasSubstr("video.fps: expected a positive number"));
  EXPECT_THAT(refusal("/video/shift", "-1"), HasSubstr("video.shift"));
  EXPECT_THAT(refusal("/video/std/1", "0"), HasSubstr("video.std[1]"));
  EXPECT_THAT(refusal("/video/mean", "[0]"), HasSubstr("2 numbers"));
  EXPECT_THAT(refusal("/negative", "1"), HasSubstr("negative: expected a string"));
  EXPECT_THAT(refusal("/shards", "[]"), HasSubstr("at least one shard"));
  EXPECT_THAT(refusal("/shards/0/file", "\"../x\""), HasSubstr("shards[0].file"));
  EXPECT_THAT(refusal("/prompts", "[]"), HasSubstr("at least one prompt"));
  EXPECT_THAT(refusal("/prompts/1/id", "\"000000\""), HasSubstr("prompts[1].id"));
  EXPECT_THAT(refusal("/prompts/1/id", "\"negative\""), HasSubstr("not \"negative\""));
  EXPECT_THAT(refusal("/prompts/1/shard", "3"), HasSubstr("expected an integer in 0..2"));
  EXPECT_THAT(message_of<InputError>([&] { parse_prompt_index("[]", path); }),
              HasSubstr("expected an object"));
  EXPECT_THAT(message_of<InputError>([&] { PromptSet{folder_ / "nowhere"}; }),
              AllOf(HasSubstr("nowhere/prompts.json"), HasSubstr("a prompt set's index")));
  EXPECT_THAT(message_of<InputError>([&] { validate_prompts(folder_ / "nowhere"); }),
              HasSubstr("found nothing"));
}

}  // namespace
}  // namespace sprocket::data
