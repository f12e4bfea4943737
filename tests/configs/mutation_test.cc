// Thousands of damaged job descriptions: each is either loaded or refused with a ConfigError that
// names a place; what the scan accepts is what protobuf's own parser accepts.
#include <filesystem>
#include <fstream>
#include <sstream>

#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/philox.h"
#include "configs/load.h"

namespace sprocket::config {
namespace {

const char* const kSeed = R"(# a job
model { dim: 256 heads: 4 layers: 4 ffn_dim: 1024 text_dim: 64 text_tokens: 16 patch { t: 1 h: 2 w: 2 } }
attention {
  method: VSA
  cube { t: 4, h: 4; w: 4 }
  domains: 4
  vsa {
    sparsity { start: 0.0 end: 0.9 increment: 0.03 interval: 30 }
  }
  max_coverage < start: .25 >
  max_coverage { start: 1 }
  budget_form: TREE
  psa { threshold: [.1, .2, .3, .4] }
}
training: { steps: 100 optimizer { learning_rate: 1e-3 beta1: 0.9 } seed: 0x10 }
sampling { prompt: ["a", 'b' "c"] count: 2 guidance: 5f }
parallel { ulysses: 1 strategy: SELECTED remote_kv: KEEP }
data { path: "outputs/clip" latent { t: 8 h: 16 w: 24 } }
)";

const char* const kPieces[] = {"{",
                               "}",
                               "<",
                               ">",
                               "[",
                               "]",
                               ":",
                               ",",
                               "-",
                               "1e400",
                               "0x7f",
                               "\"",
                               "'",
                               ".",
                               "\n",
                               "\t",
                               "#",
                               "heads",
                               "99999999999999999999",
                               "nan",
                               "-inf",
                               "model",
                               "parallel",
                               "true",
                               "\xff",
                               "\\x",
                               "-1",
                               "0",
                               "2147483647",
                               "1e-300",
                               "VSA",
                               "domains: 0"};

class Ignore : public google::protobuf::io::ErrorCollector {
  void AddError(int, int, const std::string&) override {}
};

std::string mutated(const std::string& seed, uint64_t trial) {
  const RandomStream random(7, 0, trial, RandomPurpose::kTest);
  std::string text = seed;
  uint64_t draw = 0;
  const auto below = [&](uint64_t bound) { return random.below(draw++, bound); };
  const uint64_t changes = 1 + below(3);
  for (uint64_t i = 0; i < changes && !text.empty(); ++i) {
    const size_t at = below(text.size());
    switch (below(5)) {
      case 0:
        text.erase(at, 1 + below(20));
        break;
      case 1:
        text.insert(at, kPieces[below(std::size(kPieces))]);
        break;
      case 2:
        text[at] = static_cast<char>(below(256));
        break;
      case 3:
        text.insert(at, text.substr(below(text.size()), below(60)));
        break;
      case 4:
        text.replace(at, 1 + below(4), kPieces[below(std::size(kPieces))]);
        break;
    }
  }
  return text;
}

TEST(Mutation, DamagedJobsAreRefusedWithAMessageAndNeverCrash) {
  int loaded = 0, refused = 0;
  for (uint64_t trial = 0; trial < 6000; ++trial) {
    const std::string text = mutated(kSeed, trial);
    try {
      parse_job(text, "job.txtpb", {}, {.world = 1 << (trial % 3)});
      ++loaded;
      google::protobuf::TextFormat::Parser parser;
      Ignore ignore;
      parser.RecordErrorsTo(&ignore);
      Job job;
      EXPECT_TRUE(parser.ParseFromString(text, &job)) << text;
    } catch (const ConfigError& error) {
      ++refused;
      ASSERT_NE(std::string(error.what()), "");
    }
  }
  EXPECT_GT(loaded, 50);
  EXPECT_GT(refused, 1000);
}

TEST(Mutation, DamagedFlagsAreRefusedWithAMessageAndNeverCrash) {
  const std::string seed =
      "parallel.ulysses: 2 attention.vsa.sparsity { start: .5 } sampling.prompt: ['a', 'b'] "
      "training.optimizer.beta1: .8";
  int refused = 0;
  for (uint64_t trial = 0; trial < 3000; ++trial) {
    const std::string flag = mutated(seed, 100000 + trial);
    try {
      parse_job(kSeed, "job.txtpb", {flag});
    } catch (const ConfigError& error) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 1000);
}

}  // namespace
}  // namespace sprocket::config
