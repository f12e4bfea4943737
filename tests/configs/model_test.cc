// The families of models: what is written out for each, and what is refused.
#include <gmock/gmock.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "configs/defaults.h"
#include "configs/load.h"

namespace sprocket::config {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kCogVideoX[] =
    "model { family: COGVIDEOX dim: 1920 heads: 30 text_tokens: 226 }\n"
    "data { latent { t: 13 h: 60 w: 90 } }\n";

LoadOptions parity() {
  LoadOptions options;
  options.purpose = Purpose::kParity;
  return options;
}

std::string errors_of(const std::string& text, const std::vector<std::string>& sets = {}) {
  try {
    parse_job(text, "x", sets, parity());
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

std::string cogvideox_errors(const std::string& set) { return errors_of(kCogVideoX, {set}); }

TEST(ModelFamily, HasItsOwnPartsWrittenOut) {
  const Job cogvideox = parse_job(kCogVideoX, "x", {}, parity()).job;
  EXPECT_EQ(cogvideox.model().cogvideox().time_dim(), 512);
  EXPECT_TRUE(cogvideox.model().cogvideox().has_qk_epsilon());
  EXPECT_TRUE(cogvideox.ddpm().has_snr_shift());
  EXPECT_FALSE(cogvideox.has_flow());
  const Job again = parse_job(to_text(cogvideox), "x", {}, parity()).job;
  EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equals(cogvideox, again));

  const Job wan = parse_job("", "x").job;
  EXPECT_TRUE(wan.flow().has_shift());
  EXPECT_FALSE(wan.model().has_cogvideox());
  EXPECT_FALSE(wan.has_ddpm());
  EXPECT_THAT(to_text(wan), Not(HasSubstr("ddpm")));
}

TEST(ModelFamily, RefusesThePartsOfTheOther) {
  EXPECT_EQ(cogvideox_errors("flow { shift: 5 }"),
            "--set 'flow { shift: 5 }': flow: COGVIDEOX learns v-prediction; legal: ddpm, or "
            "model.family: WAN");
  EXPECT_THAT(errors_of(kCogVideoX,
                        {"model.family: WAN", "ddpm.snr_shift: 1", "model.cogvideox.time_dim: 4"}),
              AllOf(HasSubstr("model.cogvideox: in a WAN model; legal: none, or model.family: "
                              "COGVIDEOX"),
                    HasSubstr("ddpm: WAN learns flow matching; legal: flow, or model.family: "
                              "COGVIDEOX")));
}

TEST(CogVideoXModel, TakesSizesThatPositionsCanBeSharedOutOver) {
  EXPECT_EQ(cogvideox_errors("model.dim: 1928"),
            "--set 'model.dim: 1928': model.dim: 1928 is no multiple of 16, which sinusoids of t, "
            "h and w need; legal: 1920, 1936");
  EXPECT_THAT(cogvideox_errors("model.dim: 8"), HasSubstr("8 is no multiple of 16, which sinusoids "
                                                          "of t, h and w need; legal: 16"));
  EXPECT_EQ(cogvideox_errors("model.heads: 24"), "");   // heads of 80
  EXPECT_EQ(cogvideox_errors("model.heads: 40"), "");   // heads of 48
  EXPECT_EQ(cogvideox_errors("model.heads: 160"), "");  // of 12: sinusoids do not mind
  EXPECT_EQ(cogvideox_errors("model { heads: 160 cogvideox { positions: ROPE } }"),
            "--set 'model { heads: 160 cogvideox { positions: ROPE } }': model.heads: 160 of "
            "model.dim: 1920 makes heads of 12 channels, expected a multiple of 16 for rotary "
            "positions; legal: 1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 24, 30, 40, 60, 120");
  EXPECT_THAT(cogvideox_errors("model.heads: 7"),
              HasSubstr("model.heads: 7 does not divide model.dim: 1920; legal: 1, 2, 3"));
}

TEST(Sampler, IsOfTheModelsDiffusion) {
  EXPECT_EQ(parse_job(kCogVideoX, "x", {}, parity()).job.sampling().sampler(), Sampling::DDIM);
  EXPECT_EQ(parse_job("", "x").job.sampling().sampler(), Sampling::EULER);
  for (const char* set : {"sampling.sampler: DPM", "sampling.steps: 1000",
                          "sampling { sampler: TDM timestep: [999, 749, 499, 249] }"}) {
    EXPECT_EQ(cogvideox_errors(set), "");
  }
  for (const auto& [set, message] : std::vector<std::pair<std::string, std::string>>{
           {"sampling.sampler: EULER",
            "sampling.sampler: EULER is for models of flow matching; legal with COGVIDEOX: DDIM, "
            "DPM, TDM"},
           {"sampling.sampler: UNIPC", "legal with COGVIDEOX: DDIM, DPM, TDM"},
           {"sampling.steps: 1001", "sampling.steps: 1001; legal: 1 to 1000"},
           {"sampling.timestep: [999]",
            "sampling.timestep: set with DDIM, whose timesteps follow from sampling.steps; legal: "
            "none, or sampling.sampler: TDM"},
           {"sampling.sampler: TDM", "sampling.timestep: not set; expected with TDM and COGVIDEOX"},
           {"sampling { sampler: TDM timestep: [1000, 499.5] }",
            "1000; legal with COGVIDEOX: whole numbers of 1 to 999"},
           {"sampling { sampler: TDM timestep: [499.5] }",
            "499.5; legal with COGVIDEOX: whole numbers of 1 to 999"},
           {"sampling { sampler: TDM timestep: [499, 749] }", "legal: 1000 or less, descending"},
           {"sampling.shift: 3",
            "sampling.shift: 3; legal with COGVIDEOX: 0, its noise levels are those of ddpm"}}) {
    EXPECT_THAT(cogvideox_errors(set), HasSubstr(message));
  }
  for (const char* sampler : {"DDIM", "DPM"}) {
    EXPECT_THAT(errors_of(std::string("data { latent { t: 1 h: 2 w: 2 } } sampling { sampler: ") +
                          sampler + " }"),
                HasSubstr(std::string(sampler) +
                          " is for models of v-prediction; legal with WAN: EULER, UNIPC, TDM"));
  }
}

TEST(CogVideoXModel, TakesNumbersWithinTheirRanges) {
  for (const auto& [set, message] : std::vector<std::pair<std::string, std::string>>{
           {"model.cogvideox.time_dim: 0", "legal: 1 to 1048576"},
           {"model.cogvideox.spatial_scale: 0", "legal: above 0"},
           {"model.cogvideox.temporal_scale: -1", "legal: above 0"},
           {"model.cogvideox.base_height: 0", "legal: 1 to 1048576"},
           {"model.cogvideox.base_width: 0", "legal: 1 to 1048576"},
           {"model.cogvideox.qk_epsilon: 1", "legal: 0 < epsilon < 1"},
           {"model.epsilon: 0", "legal: 0 < epsilon < 1"},
           {"ddpm.beta_start: 0", "legal: 0 < beta_start <= ddpm.beta_end"},
           {"ddpm.beta_start: 0.02", "legal: 0 < beta_start <= ddpm.beta_end"},
           {"ddpm.beta_end: 1", "legal: 0 < beta_end < 1"},
           {"ddpm.snr_shift: 0", "legal: snr_shift > 0"}}) {
    const std::string errors = cogvideox_errors(set);
    EXPECT_THAT(errors, HasSubstr("--set '" + set + "': " + set.substr(0, set.find(':')) + ": "));
    EXPECT_THAT(errors, HasSubstr(message)) << set;
  }
  EXPECT_THAT(cogvideox_errors("distillation { recipe: DMD2 }"),
              HasSubstr("distillation.recipe: DMD2 draws the noise levels of a flow; legal with "
                        "COGVIDEOX: TDM"));
  EXPECT_THAT(cogvideox_errors("compute.device: CUDA"),
              HasSubstr("compute.device: CUDA has not been tried with COGVIDEOX; legal: CPU"));
  // Of WAN alone: nothing here has that width.
  EXPECT_EQ(cogvideox_errors("model.frequency_dim: 3"), "");
}

}  // namespace
}  // namespace sprocket::config
