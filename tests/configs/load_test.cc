#include "configs/load.h"

#include <cstdint>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "configs/defaults.h"
#include "configs/schedule.h"
#include "configs/validate.h"

namespace sprocket::config {
namespace {

using ::testing::HasSubstr;

std::string errors_of(const std::string& text, const std::vector<std::string>& sets = {},
                      const LoadOptions& options = {}) {
  try {
    parse_job(text, "job.txtpb", sets, options);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

TEST(LoadJob, AnEmptyFileIsTheDefaultJobWithEverythingWrittenOut) {
  const Job job = parse_job("", "job.txtpb").job;
  EXPECT_EQ(job.model().dim(), 1536);
  EXPECT_TRUE(job.model().has_dim());
  EXPECT_TRUE(job.model().patch().has_w());
  EXPECT_EQ(job.attention().cube().t(), 4);
  EXPECT_TRUE(job.attention().has_order());
  EXPECT_TRUE(job.training().optimizer().has_beta2());
  EXPECT_FALSE(job.data().has_latent());
  EXPECT_THAT(to_text(job), HasSubstr("learning_rate: 0.0001"));
}

TEST(LoadJob, TheChosenMethodsOptionsAreWrittenOut) {
  const Job vsa = parse_job("attention { method: VSA }", "x").job;
  EXPECT_EQ(vsa.attention().vsa().sparsity().end(), 0);
  ASSERT_EQ(vsa.attention().max_coverage_size(), 1);
  EXPECT_EQ(vsa.attention().max_coverage(0).start(), 1);
  EXPECT_EQ(vsa.attention().max_coverage(0).end(), 1);
  EXPECT_TRUE(vsa.attention().max_coverage(0).has_interval());
  EXPECT_EQ(vsa.attention().order(), Attention::KD);
  EXPECT_FALSE(vsa.attention().has_bsa());
  const Job bsa = parse_job("attention { method: BSA bsa { rule: MASS } }", "x").job;
  EXPECT_EQ(bsa.attention().bsa().keep_ratio().start(), .5);
  EXPECT_EQ(bsa.attention().bsa().sparsity().start(), .9);
  EXPECT_EQ(bsa.attention().bsa().min_blocks(), 4);
  EXPECT_EQ(parse_job("attention { method: BSA }", "x").job.attention().bsa().min_blocks(), 1);
  const Job psa = parse_job("attention { method: PSA }", "x").job;
  EXPECT_EQ(psa.attention().order(), Attention::HILBERT);
  EXPECT_THAT(psa.attention().psa().threshold(), ::testing::ElementsAre(.5, .6, .7, .8));
  EXPECT_THAT(psa.attention().psa().quota(), ::testing::ElementsAre(.1, .05, 0, .2));
  EXPECT_THAT(psa.attention().psa().similarity(), ::testing::ElementsAre(.7, .65, .6));
  const Job asa = parse_job("attention { method: ASA order: KD }", "x").job;
  EXPECT_EQ(asa.attention().order(), Attention::KD);
  EXPECT_EQ(asa.attention().asa().max_keep(), .17);
  const Job tile =
      parse_job("attention { method: SLIDING_TILE sliding_tile { window { t: 1 } } }", "x").job;
  EXPECT_EQ(tile.attention().sliding_tile().window().t(), 1);
  EXPECT_EQ(tile.attention().sliding_tile().window().h(), 3);
}

TEST(LoadJob, AResolvedJobReadsBackAsItself) {
  const std::string text = R"(
    attention { method: VSA domains: 4 psa { threshold: [.1, .2, .3, .4] }
                vsa { sparsity { start: 0 end: .9 increment: .03 interval: 30 } }
                max_coverage { start: 0.1 } max_coverage { start: 1 end: .5 increment: -.1 }
                budget_form: TREE }
    sampling { prompt: "a \"quoted\" rabbit" prompt: 'größer' }
    data { path: "x" latent { t: 8 h: 16 w: 16 } })";
  const Job job = parse_job(text, "job.txtpb").job;
  const Job again = parse_job(to_text(job), "resolved").job;
  EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equals(job, again));
  EXPECT_EQ(to_text(job), to_text(again));
  EXPECT_EQ(again.sampling().prompt(1), "größer");
}

TEST(LoadJob, ReportsUnknownFieldWrongTypeAndIllegalDegreeInOneRun) {
  const std::string text =
      "model {\n"
      "  heads: 12\n"
      "  layer: 3\n"
      "  dim: \"wide\"\n"
      "}\n"
      "parallel {\n"
      "  ulysses: 8\n"
      "  strategy: SELECTD\n"
      "}\n"
      "training { steps: 0 }\n";
  EXPECT_EQ(
      errors_of(text),
      "job.txtpb:3:3: model.layer: unknown field; did you mean layers?; fields of model: family, "
      "dim, heads, layers, ffn_dim, latent_channels, patch, text_dim, text_tokens, frequency_dim, "
      "epsilon, weights, cogvideox\n"
      "job.txtpb:4:8: model.dim: expected an integer, found \"wide\"\n"
      "job.txtpb:7:3: parallel.ulysses: 8 does not divide model.heads: 12; legal: 1, 2, 3, 4, 6, "
      "12\n"
      "job.txtpb:8:13: parallel.strategy: expected one of SELECTED, RING, ALL_GATHER, found "
      "SELECTD; did you mean SELECTED?\n"
      "job.txtpb:10:12: training.steps: 0; legal: 1 or more");
}

TEST(LoadJob, WrongTypesOfEveryKind) {
  const std::string text =
      "model { dim: 1.5 heads: 99999999999 weights: 3 epsilon: 'x' }\n"
      "training { seed: -1 steps: true text_dropout: inf }\n"
      "parallel { overlap: maybe strategy: 0 }\n"
      "compute: 4\n"
      "output { directory { } }\n"
      "data { path: }\n";
  EXPECT_EQ(
      errors_of(text),
      "job.txtpb:1:14: model.dim: expected an integer, found 1.5\n"
      "job.txtpb:1:25: model.heads: expected an integer, found 99999999999\n"
      "job.txtpb:1:46: model.weights: expected a quoted string, found 3\n"
      "job.txtpb:1:57: model.epsilon: expected a number, found 'x'\n"
      "job.txtpb:2:18: training.seed: expected an integer >= 0, found -1\n"
      "job.txtpb:2:28: training.steps: expected an integer, found true\n"
      "job.txtpb:2:47: training.text_dropout: expected a number, found inf\n"
      "job.txtpb:3:21: parallel.overlap: expected true or false, found maybe\n"
      "job.txtpb:3:37: parallel.strategy: expected one of SELECTED, RING, ALL_GATHER, found 0\n"
      "job.txtpb:4:10: compute: expected { … } with some of device, precision, threads, "
      "ranks_per_device, found 4\n"
      "job.txtpb:5:20: output.directory: expected : and a quoted string, found {\n"
      "job.txtpb:6:14: data.path: expected a quoted string, found no value");
}

TEST(LoadJob, IntegersReachTheEndsOfTheirTypes) {
  EXPECT_EQ(errors_of("training { seed: 18446744073709551615 }"), "");
  EXPECT_EQ(errors_of("training { steps: -9223372036854775808 }"),
            "job.txtpb:1:12: training.steps: -9223372036854775808; legal: 1 or more");
  EXPECT_EQ(errors_of("model { layers: -2147483648 }"),
            "job.txtpb:1:9: model.layers: -2147483648; legal: 1 to 10000");
  EXPECT_EQ(errors_of("model { layers: 2147483648 }"),
            "job.txtpb:1:17: model.layers: expected an integer, found 2147483648");
}

TEST(LoadJob, WhatFollowsFromARefusedFieldIsNotReported) {
  EXPECT_EQ(errors_of("model { heads: twelve } parallel { ulysses: 5 }"),
            "job.txtpb:1:16: model.heads: expected an integer, found twelve");
}

TEST(LoadJob, AFieldInTheWrongMessageIsSentHome) {
  EXPECT_THAT(
      errors_of("ulysses: 2"),
      HasSubstr("job.txtpb:1:1: ulysses: unknown field; did you mean parallel.ulysses?; fields "
                "of a job: model, attention, flow, ddpm, data, training, sampling, parallel, "
                "compute, output, profile, distillation, problem"));
  EXPECT_THAT(errors_of("model { coarse: ADD }"), HasSubstr("attention.vsa.coarse?"));
}

TEST(LoadJob, BrokenGrammarNamesThePlaceAndTheOpening) {
  EXPECT_EQ(
      errors_of("model {\n  dim: 64\n"),
      "job.txtpb:3:1: model: expected } for the { at job.txtpb:1:7, found the end of the file");
  EXPECT_EQ(errors_of("model { dim: 64 } }"), "job.txtpb:1:19: expected a field's name, found }");
  EXPECT_THAT(errors_of("data { path: \"never closed\n }"), HasSubstr("job.txtpb:1:"));
  EXPECT_EQ(
      errors_of("bogus { a { b: [1, 2 } }"),
      "job.txtpb:1:1: bogus: unknown field; fields of a job: model, attention, flow, ddpm, data, "
      "training, sampling, parallel, compute, output, profile, distillation, problem\n"
      "job.txtpb:1:22: bogus: expected ], found }");
  // What follows from the rest is not guessed at: ulysses would be illegal for the default heads.
  EXPECT_EQ(errors_of("parallel { ulysses: 5 } model {").find("ulysses"), std::string::npos);
}

TEST(LoadJob, GivenTwice) {
  EXPECT_EQ(errors_of("training { steps: 2\n steps: 3 }\ntraining { seed: 1 }"),
            "job.txtpb:2:2: training.steps: given twice; expected once, first found in line 1\n"
            "job.txtpb:3:1: training: given twice; expected once, first found in line 1");
}

TEST(LoadJob, MissingFileAndFolder) {
  for (const auto& [file, found] :
       {std::pair{"/nowhere/job.txtpb", "no such file"}, {"/tmp", "no regular file"}}) {
    try {
      load_job(file);
      ADD_FAILURE() << file;
    } catch (const ConfigError& error) {
      EXPECT_EQ(error.what(),
                std::string(file) + ": expected a job description in text format, found " + found);
    }
  }
}

TEST(Overrides, DottedPathsNestedFragmentsAndSeveralEntries) {
  const Job job =
      parse_job(
          "model { heads: 12 } sampling { prompt: \"file\" steps: 7 }", "job.txtpb",
          {"parallel.ulysses: 2", "parallel { data: 3 } training.optimizer.beta1: .8",
           "attention.vsa.sparsity { start: 0.5 }", "sampling.prompt: 'a' sampling.prompt: 'b'",
           "parallel.ulysses: 4 training { global_batch: 3 }"})
          .job;
  EXPECT_EQ(job.parallel().ulysses(), 4);
  EXPECT_EQ(job.parallel().data(), 3);
  EXPECT_EQ(job.training().optimizer().beta1(), .8);
  EXPECT_EQ(job.attention().vsa().sparsity().end(), .5);
  EXPECT_EQ(job.sampling().steps(), 7);
  EXPECT_THAT(job.sampling().prompt(), ::testing::ElementsAre("a", "b"));
  EXPECT_THAT(parse_job("", "x", {"sampling.prompt: ['c', 'd']"}).job.sampling().prompt(),
              ::testing::ElementsAre("c", "d"));
}

TEST(Overrides, ErrorsNameTheFlag) {
  EXPECT_EQ(
      errors_of("model { heads: 12 }",
                {"parallel.ulysses: 8", "parallel.ulises: 2", "training.steps.x: 2",
                 "compute.precision: FP8", "training.seed: 1 training.seed: 2", "model.", "7"}),
      "--set 'parallel.ulises: 2': parallel.ulises: unknown field; did you mean ulysses?; fields "
      "of parallel: ulysses, outer, strategy, data, remote_kv, overlap, single_pass, "
      "gradient_wire, gather_above, head_groups, balance_heads, check_collectives, "
      "timeout_seconds\n"
      "--set 'training.steps.x: 2': training.steps: has no fields; expected an integer\n"
      "--set 'compute.precision: FP8': compute.precision: expected one of FP32, BF16, FP64, found "
      "FP8; "
      "did you mean FP32?\n"
      "--set 'training.seed: 1 training.seed: 2': training.seed: given twice; expected once\n"
      "--set 'model.': model: expected a field's name after the dot, found the end\n"
      "--set '7': expected a field's name, found 7");
  EXPECT_EQ(
      errors_of("model { heads: 12 }\nparallel { ulysses: 2 }", {"parallel.ulysses: 8"}),
      "--set 'parallel.ulysses: 8': parallel.ulysses: 8 does not divide model.heads: 12; legal: 1, "
      "2, 3, 4, 6, 12");
}

TEST(Overrides, TheOutputFlagIsAnyPath) {
  LoadOptions options;
  options.output_directory = "runs/a \"b\" \\ c";
  EXPECT_EQ(
      parse_job("output { directory: 'x' }", "job.txtpb", {}, options).job.output().directory(),
      "runs/a \"b\" \\ c");
}

TEST(Validation, Model) {
  EXPECT_EQ(errors_of("model { dim: 64 heads: 3 }"),
            "job.txtpb:1:17: model.heads: 3 does not divide model.dim: 64; legal: 1, 2, 4, 8");
  EXPECT_EQ(errors_of("model { dim: 64 heads: 16 }"),
            "job.txtpb:1:17: model.heads: 16 of model.dim: 64 makes heads of 4 channels, expected "
            "an even "
            "number of at least 6; legal: 1, 2, 4, 8");
  EXPECT_THAT(errors_of("model { frequency_dim: 7 }"), HasSubstr("7 is odd; legal: even numbers"));
  EXPECT_EQ(errors_of("model { layers: -1 }"),
            "job.txtpb:1:9: model.layers: -1; legal: 1 to 10000");
  EXPECT_THAT(errors_of("model { dim: 2147483647 }"),
              HasSubstr("model.dim: 2147483647; legal: 1 to"));
}

TEST(Validation, Attention) {
  EXPECT_EQ(errors_of("attention { vsa { sparsity { start: 1 } } max_coverage { start: 1.5 } }"),
            "job.txtpb:1:30: attention.vsa.sparsity.start: 1; legal: 0 <= start < 1\n"
            "job.txtpb:1:58: attention.max_coverage[0].start: 1.5; legal: 0 <= start <= 1");
  EXPECT_EQ(
      errors_of("attention { domains: 4 } parallel { outer: 3 }"),
      "job.txtpb:1:37: parallel.outer: 3 does not divide attention.domains: 4; legal: 1, 2, 4");
}

TEST(Validation, Budget) {
  EXPECT_EQ(errors_of("attention { max_coverage { start: -.1 end: 0 increment: .1 } }"),
            "job.txtpb:1:28: attention.max_coverage[0].start: -0.1; legal: 0 <= start <= 1");
  EXPECT_EQ(errors_of("attention { method: VSA budget_form: TREE domains: 4\n"
                      "max_coverage { start: .1 } max_coverage { start: 2 } }"),
            "job.txtpb:2:43: attention.max_coverage[1].start: 2; legal: 0 <= start <= 1");
  EXPECT_EQ(errors_of("attention { budget_head_group: 4 } parallel { ulysses: 2 }"),
            "job.txtpb:1:13: attention.budget_head_group: 4 does not divide model.heads / "
            "parallel.ulysses: 12 / 2 = 6; legal: 1, 2, 3, 6");
  for (const char* method : {"VSA", "BSA", "PSA", "ASA"}) {
    EXPECT_EQ(errors_of(std::string("attention { method: ") + method +
                        " domains: 4 max_coverage { start: .25 } }\nparallel { ulysses: 2 }"),
              "attention.budget_head_group: 0 (all 12 heads compete together) needs "
              "parallel.ulysses: 1, "
              "found 2, where a rank holds 6 heads; legal: 1, 2, 3, 6");
  }
  for (const char* method : {"DENSE", "SLIDING_TILE"}) {
    EXPECT_EQ(errors_of(std::string("attention { max_coverage { start: .5 } domains: 2 method: ") +
                        method + " }"),
              std::string("job.txtpb:1:13: attention.max_coverage[0]: below 1 needs a method that "
                          "scores blocks, found method: ") +
                  method + "; legal: VSA, BSA, PSA, ASA, or max_coverage { start: 1 }");
    EXPECT_EQ(
        errors_of(std::string("attention { max_coverage { start: 1 } method: ") + method + " }"),
        "");
  }
  EXPECT_EQ(
      errors_of("attention { method: VSA max_coverage { start: .5 } max_coverage { start: 1 } }"),
      "job.txtpb:1:25: attention.max_coverage[0]: expected one schedule for budget_form: FLAT, "
      "found 2");
  EXPECT_EQ(errors_of("attention { method: VSA budget_form: TREE domains: 6 }"),
            "job.txtpb:1:43: attention.domains: 6 cannot be halved to single domains by "
            "budget_form: TREE; legal: 1, 2, 4, 8, … (powers of two)");
  EXPECT_EQ(
      errors_of("attention { method: PSA budget_form: TREE domains: 8\n"
                "max_coverage { start: .5 } max_coverage { start: 1 } }"),
      "job.txtpb:2:1: attention.max_coverage[0]: expected one schedule, or one for each of the 3 "
      "levels of 8 domains, found 2");
  EXPECT_EQ(
      errors_of("attention { method: ASA budget_form: TREE domains: 8 max_coverage { start: .1 }\n"
                "max_coverage { start: .5 } max_coverage { start: 1 } }"),
      "");
}

TEST(Validation, OptionsOfTheMethods) {
  EXPECT_EQ(errors_of("attention { vsa { score: SUBBLOCK key_parts: 5 } }"),
            "job.txtpb:1:35: attention.vsa.key_parts: 5 does not divide the 64 tokens of a block; "
            "legal: 1, 2, 4, 8, 16, 32, 64");
  EXPECT_EQ(
      errors_of("attention { bsa { keep_ratio { start: 0 } } }"),
      "job.txtpb:1:32: attention.bsa.keep_ratio.start: 0: no query would be computed; legal: 0 "
      "< keep_ratio <= 1\n"
      "attention.bsa.keep_ratio.end: 0: no query would be computed; legal: 0 < keep_ratio <= 1");
  EXPECT_THAT(
      errors_of("attention { bsa { window { t: 2 } } }"),
      HasSubstr("attention.bsa.window: 2 x 0 x 0; legal: 0 on all axes, or 1 or more on each"));
  EXPECT_THAT(errors_of("attention { bsa { redundancy_threshold: .9 redundant_keep_ratio: .75 } }"),
              HasSubstr("0.75 is more than keep_ratio, which falls to 0.5; legal: up to 0.5"));
  EXPECT_THAT(errors_of("attention { psa { threshold: [.5, .6] } }"),
              HasSubstr("attention.psa.threshold: expected 4 numbers, found 2"));
  EXPECT_THAT(errors_of("attention { psa { threshold: [.5, .4, .6, .7] } }"),
              HasSubstr("attention.psa.threshold: 0.4 as number 2; legal: 0 to 1, ascending"));
  EXPECT_THAT(errors_of("attention { psa { quota: [.5, .3, .2, .1] } }"),
              HasSubstr("attention.psa.quota: adds up to 1.1; legal: at most 1"));
  EXPECT_THAT(
      errors_of("attention { asa { min_keep: .2 } }"),
      HasSubstr("attention.asa.min_keep: 0.2 is more than max_keep: 0.17; legal: 0 to 0.17"));
  EXPECT_THAT(
      errors_of("attention { method: ASA asa { global_width: 30 exclude_selected: true } }"),
      HasSubstr("order: HILBERT (found HILBERT) and a global_width (found 30) that divides "
                "block_tokens; legal: 1, 2, 4, 8, 16, 32, 64, 128"));
  EXPECT_THAT(errors_of("attention { method: SLIDING_TILE order: HILBERT }"),
              HasSubstr("HILBERT has no cubes for method: SLIDING_TILE; legal: KD, RASTER"));
  EXPECT_THAT(errors_of("compute { precision: FP64 }"),
              HasSubstr("compute.precision: FP64 is for `sprocket attention` and `sprocket "
                        "check-parity`; legal: FP32, BF16"));
}

TEST(Validation, Samplers) {
  EXPECT_EQ(errors_of("sampling { sampler: TDM eta: 1 timestep: [1000, 750.5, 1e-3] }"), "");
  EXPECT_EQ(errors_of("sampling { eta: 1.5 }"),
            "job.txtpb:1:12: sampling.eta: 1.5; legal: 0 <= eta <= 1");
  const auto refusal = [](const std::string& list) {
    return errors_of("sampling { timestep: [" + list + "] }");
  };
  const std::string legal = "; legal: 1000 or less, descending, above 0";
  EXPECT_THAT(refusal("1001"), HasSubstr("sampling.timestep: 1001 as number 1" + legal));
  EXPECT_THAT(refusal("500, 500"), HasSubstr("sampling.timestep: 500 as number 2" + legal));
  EXPECT_THAT(refusal("500, 0"), HasSubstr("sampling.timestep: 0 as number 2" + legal));
}

// What a device has kernels for is a property of the job: no device is asked.
TEST(Validation, ADeviceRunsWhatItHasKernelsFor) {
  const std::string model = "model { dim: 1536 heads: 12 } ";
  const std::string cuda = model + "compute { device: CUDA precision: BF16 } ";
  EXPECT_EQ(errors_of(cuda), "");
  for (const std::string method : {"DENSE", "VSA", "BSA", "PSA", "ASA", "SLIDING_TILE"}) {
    EXPECT_EQ(errors_of(cuda + "attention { method: " + method + " }"), "");
  }
  EXPECT_EQ(errors_of(cuda + "attention { method: VSA vsa { score: SUBBLOCK } }"), "");
  EXPECT_EQ(errors_of(cuda + "attention { method: VSA domains: 4 max_coverage { start: 1 end: 0.5 "
                             "increment: -0.1 } }"),
            "");
  EXPECT_EQ(errors_of("model { dim: 768 heads: 12 } compute { device: CUDA precision: BF16 }"), "");
  EXPECT_THAT(errors_of(model + "compute { device: CUDA }"),
              HasSubstr("compute.precision: FP32 has no attention kernel on a device; legal with "
                        "CUDA: BF16"));
  EXPECT_THAT(errors_of("model { dim: 1536 heads: 16 } compute { device: CUDA precision: BF16 }"),
              HasSubstr("model.heads: 16 of model.dim: 1536 makes heads of 96 channels, for which "
                        "there is no attention kernel on a device; legal with CUDA: 12, 24"));
  EXPECT_THAT(errors_of(cuda + "attention { cube { t: 8 h: 8 w: 4 } }"),
              HasSubstr("attention.cube: 256 tokens in a block; legal with CUDA: at most 128"));
  EXPECT_THAT(errors_of("compute { ranks_per_device: 0 }"),
              HasSubstr("compute.ranks_per_device: 0; legal: 1 or more"));
}

TEST(Validation, WhatRunsOnTheProcessorAloneRefusesADevice) {
  const std::string cuda = "model { dim: 1536 heads: 12 } compute { device: CUDA precision: BF16 }";
  EXPECT_NO_THROW(check_on_processor(parse_job("", "job.txtpb"), "--measure"));
  try {
    check_on_processor(parse_job(cuda, "job.txtpb"), "--precision fp64",
                       "--precision as-configured");
    FAIL() << "expected a refusal";
  } catch (const ConfigError& error) {
    EXPECT_STREQ(error.what(),
                 "job.txtpb:1:41: compute.device: --precision fp64 runs on the processor alone; "
                 "legal: CPU, or --precision as-configured");
  }
}

TEST(Validation, Schedules) {
  EXPECT_EQ(
      errors_of("attention { vsa { sparsity { start: 0 end: 0.9 } } }"),
      "job.txtpb:1:39: attention.vsa.sparsity.end: 0.9 is never reached from start: 0 without an "
      "increment");
  EXPECT_EQ(errors_of("attention { vsa { sparsity { end: 0.9 increment: -0.03 interval: 0 } } }"),
            "job.txtpb:1:39: attention.vsa.sparsity.increment: -0.03 leads away from end: 0.9 "
            "(start: 0); "
            "legal: > 0\n"
            "job.txtpb:1:56: attention.vsa.sparsity.interval: 0; legal: 1 or more");
  EXPECT_THAT(errors_of("attention { vsa { sparsity { start: 0.3 increment: 0.1 } } }"),
              HasSubstr("0.1 leads nowhere"));
  EXPECT_THAT(errors_of("attention { vsa { sparsity { start: 1e-30 } } }"),
              HasSubstr("decimal places"));
}

TEST(Validation, World) {
  EXPECT_EQ(
      errors_of("parallel { data: 2 outer: 3 ulysses: 1 } training { global_batch: 2 }", {},
                {.world = 4}),
      "job.txtpb:1:20: parallel.outer: data x outer x ulysses = 2 x 3 x 1 = 6, found 4 ranks; "
      "legal with this data and ulysses: 0, 2");
  EXPECT_EQ(
      errors_of("parallel { ulysses: 4 }", {}, {.world = 6}),
      "job.txtpb:1:12: parallel.ulysses: data x ulysses = 1 x 4 does not divide the 6 ranks; legal "
      "with this data: 1, 2, 3, 6");
  EXPECT_THAT(errors_of("parallel { data: 4 } training { global_batch: 4 }", {}, {.world = 6}),
              HasSubstr("does not divide the 6 ranks; legal data: 1, 2, 3, 6"));
  EXPECT_THAT(errors_of("parallel { ulysses: 3 outer: 3 }", {}, {.world = 4}),
              HasSubstr("= 9, found 4 ranks; start 9 ranks, or set"));
  EXPECT_EQ(
      errors_of("attention { domains: 4 }", {}, {.world = 3}),
      "parallel.outer: 0 (with 3 ranks: 3) does not divide attention.domains: 4; legal: 1, 2, 4");
  EXPECT_EQ(parse_job("parallel { ulysses: 2 }", "x", {}, {.world = 6}).job.parallel().outer(), 3);
  EXPECT_EQ(parse_job("parallel { ulysses: 2 }", "x").job.parallel().outer(), 0);
}

TEST(Validation, BatchPurposeAndRanges) {
  EXPECT_EQ(errors_of("training { global_batch: 3 micro_batch: 2 }"),
            "job.txtpb:1:12: training.global_batch: 3 is no multiple of training.micro_batch x "
            "parallel.data: 2 x 1 = 2; legal: 2, 4, 6, …");
  EXPECT_EQ(errors_of("", {}, {.purpose = Purpose::kTrain}),
            "data.path: not set; expected a folder made by `sprocket data encode`\n"
            "output.directory: not set; expected a folder for the run, here or as --output DIR");
  EXPECT_EQ(errors_of("output { directory: 'x' }", {}, {.purpose = Purpose::kSample}), "");
  EXPECT_EQ(
      errors_of("training { text_dropout: 2 optimizer { beta1: 1 warmup_steps: 5000 } }\n"
                "output { log_interval: 0 } flow { shift: 0 }"),
      "job.txtpb:1:12: training.text_dropout: 2; legal: 0 <= text_dropout <= 1\n"
      "job.txtpb:1:40: training.optimizer.beta1: 1; legal: 0 <= beta1 < 1\n"
      "job.txtpb:1:49: training.optimizer.warmup_steps: 5000 is more than training.steps: 1000; "
      "legal: 0 to 1000\n"
      "job.txtpb:2:10: output.log_interval: 0; legal: 1 or more\n"
      "job.txtpb:2:35: flow.shift: 0; legal: shift > 0");
}

TEST(Validation, LatentShape) {
  const LoadedJob loaded =
      parse_job("parallel {\n outer: 8 }\nattention { domains: 8 }", "job.txtpb");
  EXPECT_NO_THROW(check_latent_shape(loaded, {16, 8, 16, 16}, "index"));
  try {
    check_latent_shape(loaded, {12, 4, 15, 16}, "clip/index.json");
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_EQ(
        std::string(error.what()),
        "model.latent_channels: 16, found latent videos of 12 channels; legal: 12 "
        "(clip/index.json)\n"
        "model.patch.h: 2 does not divide the 15 latent cells of axis h; legal: 1, 3, 5, 15 "
        "(clip/index.json)\n"
        "job.txtpb:3:13: attention.domains: 8, found a video of 4 blocks; legal: 1 to 4 "
        "(clip/index.json)\n"
        "job.txtpb:2:2: parallel.outer: 8, found a video of 4 blocks: some ranks would have no "
        "work; legal: 1 to 4 (clip/index.json)");
  }
  EXPECT_THAT(errors_of("data { latent { t: 8 h: 7 } }"),
              HasSubstr("data.latent.w: 0; legal: 1 to"));
}

TEST(Schedule, ReachesItsEndExactly) {
  const Job job = parse_job(
                      "attention { vsa { sparsity { end: 0.9 increment: 0.03 interval: 30 "
                      "first_step: 100 } } }",
                      "x")
                      .job;
  const Schedule& schedule = job.attention().vsa().sparsity();
  EXPECT_EQ(schedule_value(schedule, 0), Decimal());
  EXPECT_EQ(schedule_value(schedule, 129), Decimal());
  EXPECT_EQ(schedule_value(schedule, 130), Decimal::parse("0.03"));
  EXPECT_EQ(schedule_value(schedule, 100 + 29 * 30), Decimal::parse("0.87"));
  EXPECT_EQ(schedule_value(schedule, 100 + 30 * 30), Decimal::parse("0.9"));
  EXPECT_EQ(schedule_value(schedule, 5000), Decimal::parse("0.9"));
  EXPECT_EQ(schedule_value(schedule, INT64_MAX), Decimal::parse("0.9"));
  // 0.95 of 20 blocks leaves exactly one, which binary fractions miss.
  EXPECT_EQ((Decimal::ratio(1, 0) - Decimal::from_double(0.95)).ceil_times(20), 1);
}

TEST(Schedule, FallsClampsAndStaysConstant) {
  const Job job = parse_job(
                      "attention { method: VSA max_coverage { start: 1 end: 0.25 increment: -0.2 } "
                      "vsa { sparsity { start: 0.5 } } }",
                      "x")
                      .job;
  EXPECT_EQ(schedule_value(job.attention().max_coverage(0), 3), Decimal::parse("0.4"));
  EXPECT_EQ(schedule_value(job.attention().max_coverage(0), 4), Decimal::parse("0.25"));
  EXPECT_EQ(schedule_value(job.attention().vsa().sparsity(), 123456), Decimal::parse("0.5"));
  EXPECT_TRUE(is_constant(job.attention().vsa().sparsity(), Decimal::parse("0.5")));
  EXPECT_FALSE(is_constant(job.attention().max_coverage(0), Decimal::ratio(1, 0)));
}

}  // namespace
}  // namespace sprocket::config
