// Losses of the recipes and their gradients against plain arithmetic, number by number. Networks
// are v = a x + b sigma + c, so that everything is known; the student's a is trained.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include <ATen/TensorOperators.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include "runtime/diffusion/ddpm_schedule.h"
#include "runtime/distill/dmd2.h"
#include "runtime/distill/tdm.h"

namespace sprocket::runtime {
namespace {

constexpr int64_t kElements = 3, kBatch = 2;

struct Line {
  double a, b, c, text = 0;
  double at(double x, double timestep, double word) const {
    return a * x + b * timestep / 1000 + c + text * word;
  }
};

class LineNetwork : public Denoiser {
 public:
  explicit LineNetwork(const Line& line)
      : line_(line), a_(at::tensor({line.a}, at::kDouble).requires_grad_()) {}

  at::Tensor predict(const at::Tensor& x, std::span<const double> timesteps,
                     const at::Tensor& text) override {
    std::vector<double> rest;
    for (size_t i = 0; i < timesteps.size(); ++i) {
      rest.push_back(line_.b * timesteps[i] / 1000 + line_.c +
                     line_.text * text[static_cast<int64_t>(i)].item<double>());
    }
    return a_ * x + at::tensor(rest, at::kDouble).view({-1, 1});
  }
  const at::Tensor& a() const { return a_; }

 private:
  const Line line_;
  at::Tensor a_;
};

const Line kStudent{0.31, -0.4, 0.2, 0.15}, kTeacher{-0.52, 0.3, 0.1, 0.6},
    kFake{0.44, 0.25, -0.35, 0.2};
const std::vector<double> kWords = {0.5, -0.8};

Scene make_scene(int64_t step) {
  return {17,
          step,
          {0, 1},
          {kElements},
          at::TensorOptions(at::kDouble),
          at::tensor(kWords, at::kDouble),
          at::zeros({kBatch}, at::kDouble)};
}

double draw(const Scene& scene, int number, int64_t lane, int64_t element) {
  return scene.normal(number)[lane][element].item<double>();
}

struct Losses {
  double loss = 0;      // with a of the student
  double gradient = 0;  // by a
};

// The mean of a loss over samples and elements, and its derivative by central differences; `at`
// gets the student that moves: everything without a graph uses kStudent.
Losses reference(const std::function<double(const Line& moving)>& loss) {
  constexpr double kStep = 1e-6;
  Line above = kStudent, below = kStudent;
  above.a += kStep;
  below.a -= kStep;
  return {loss(kStudent), (loss(above) - loss(below)) / (2 * kStep)};
}

struct Case {
  const char* name;
  bool original;
  int segments;
  double teacher_weight;
  double normalise;
  bool v_prediction = false;
};

// abar of the last timestep is zero.
const std::vector<double> kPowers = ddpm_signal_powers({.snr_shift = 3, .zero_terminal_snr = true});

// A timestep's level, and what is read off a prediction there.
struct Reading {
  Reading(bool v_prediction, double timestep)
      : flow(!v_prediction),
        a(flow ? 1 - timestep / 1000 : std::sqrt(kPowers[static_cast<size_t>(timestep)])),
        s(flow ? timestep / 1000 : std::sqrt(1 - kPowers[static_cast<size_t>(timestep)])) {}

  double x0(double x, double v) const { return (flow ? 1 : a) * x - s * v; }
  double eps(double x, double v) const { return (flow ? 1 : s) * x + a * v; }

  bool flow;
  double a, s;
};

class TdmLoss : public ::testing::TestWithParam<Case> {
 protected:
  static constexpr double kEta = 0.9, kGuidance = 3;

  config::Tdm options() const {
    config::Tdm options;
    options.set_segments(GetParam().segments);
    options.set_teacher_weight(GetParam().teacher_weight);
    options.set_normalise_limit(GetParam().normalise);
    if (GetParam().original) options.set_variant(config::Tdm::ORIGINAL);
    return options;
  }

  // x at the start of segment i: from noise through the segments above it.
  static Reading read(double timestep) { return {GetParam().v_prediction, timestep}; }
  static Diffusion diffusion() {
    return GetParam().v_prediction ? Diffusion::v_prediction(kPowers) : Diffusion::flow();
  }

  static double start_of(const Scene& scene, int64_t lane, int64_t e, int64_t i, int64_t segments) {
    double x = draw(scene, 0, lane, e);
    for (int64_t j = segments; j > i; --j) {
      const double t = j * 1000.0 / segments - 1;
      const Reading here = read(t), next = read((j - 1) * 1000.0 / segments - 1);
      const double v = kStudent.at(x, t, kWords[lane]);
      const double noise = kEta * here.eps(x, v) +
                           std::sqrt(1 - kEta * kEta) * draw(scene, static_cast<int>(j), lane, e);
      x = next.a * here.x0(x, v) + next.s * noise;
    }
    return x;
  }

  struct Point {
    double t_i, t_mid, t;
    double x0, x_mid, x_t;
  };
  Point point(const Scene& scene, int64_t lane, int64_t e, int first_draw,
              const Line& student) const {
    const int64_t segments = GetParam().segments;
    const int64_t i = 1 + scene.below(first_draw, lane, segments);
    Point p;
    p.t_i = i * 1000.0 / segments - 1;
    p.t_mid = p.t_i - 1000.0 / segments + 1;
    const double low = std::max(p.t_mid, 1.0), high = GetParam().original ? p.t_i + 1 : 980;
    p.t = low + scene.below(first_draw + 2, lane, static_cast<int64_t>(high - low));
    const double x = start_of(scene, lane, e, i, segments);
    const Reading start = read(p.t_i), mid = read(p.t_mid), at = read(p.t);
    const double v = student.at(x, p.t_i, kWords[lane]);
    p.x0 = start.x0(x, v);
    p.x_mid =
        mid.a * p.x0 + mid.s * (kEta * start.eps(x, v) +
                                std::sqrt(1 - kEta * kEta) * draw(scene, first_draw + 1, lane, e));
    const double ratio = at.a / mid.a;
    p.x_t = ratio * p.x_mid +
            std::sqrt(std::max(std::pow(at.s, 2) - std::pow(ratio * mid.s, 2), 1e-8)) *
                draw(scene, first_draw + 3, lane, e);
    return p;
  }

  double fake_loss(const Scene& scene, const Line& fake) const {
    double sum = 0;
    for (int64_t lane = 0; lane < kBatch; ++lane) {
      for (int64_t e = 0; e < kElements; ++e) {
        const Point p = point(scene, lane, e, 64, kStudent);
        const Reading at = read(p.t);
        const double v = fake.at(p.x_t, p.t, kWords[lane]);
        // Of the clean video, by the signal-to-noise ratio or by the noise's power alone: then it
        // is that of the prediction.
        const double error = std::pow(at.x0(p.x_t, v) - p.x0, 2);
        sum += error * std::pow(GetParam().original ? at.a / at.s : 1 / at.s, 2);
        sum += GetParam().teacher_weight * std::pow(v - kTeacher.at(p.x_t, p.t, kWords[lane]), 2);
      }
    }
    return sum / (kBatch * kElements);
  }

  // Clean videos that the guided teacher and the fake score see at x_t.
  struct Scores {
    double real, fake;
  };
  Scores scores(const Point& p, int64_t lane) const {
    const Reading at = read(p.t);
    const double empty = kTeacher.at(p.x_t, p.t, 0), text = kTeacher.at(p.x_t, p.t, kWords[lane]);
    return {at.x0(p.x_t, empty + kGuidance * (text - empty)),
            at.x0(p.x_t, kFake.at(p.x_t, p.t, kWords[lane]))};
  }

  double score_gap(const Scene& scene) const {
    double sum = 0;
    for (int64_t lane = 0; lane < kBatch; ++lane) {
      for (int64_t e = 0; e < kElements; ++e) {
        const auto [real, fake] = scores(point(scene, lane, e, 72, kStudent), lane);
        sum += std::abs(real - fake);
      }
    }
    return sum / (kBatch * kElements);
  }

  double student_loss(const Scene& scene, const Line& student) const {
    const double c = 1e-3 * std::sqrt(kElements / 16384.0);
    double sum = 0;
    for (int64_t lane = 0; lane < kBatch; ++lane) {
      double lane_sum = 0, distance = 0;
      for (int64_t e = 0; e < kElements; ++e) {
        const Point fixed = point(scene, lane, e, 72, kStudent),
                    moving = point(scene, lane, e, 72, student);
        const auto [real, fake] = scores(fixed, lane);
        const double y = GetParam().original ? moving.x_mid : moving.x0;
        const double led = (GetParam().original ? fixed.x_mid : fixed.x0) + real - fake;
        lane_sum += std::sqrt(std::pow(y - led, 2) + c * c) - c;
        distance += std::abs(fixed.x0 - real) / kElements;
      }
      if (GetParam().normalise > 0) lane_sum /= std::min(distance, GetParam().normalise);
      sum += lane_sum;
    }
    return sum / (kBatch * kElements);
  }
};

void expect_equal(const Losses& wanted, const at::Tensor& loss, const at::Tensor& parameter) {
  EXPECT_NEAR(loss.item<double>(), wanted.loss, 1e-12 * std::max(1.0, wanted.loss));
  loss.backward();
  // Central differences of step 1e-6: rounding 1e-16 / 1e-6 and a third derivative times 1e-12.
  EXPECT_NEAR(parameter.grad().item<double>(), wanted.gradient,
              1e-8 * std::max(1.0, std::abs(wanted.gradient)));
}

TEST_P(TdmLoss, OfTheFakeScore) {
  for (int64_t step = 0; step < 6; ++step) {
    LineNetwork student(kStudent), teacher(kTeacher), fake(kFake);
    const Networks networks{student, teacher, fake, diffusion()};
    Scene scene = make_scene(step);
    const Tdm recipe(options(), kGuidance);
    const at::Tensor loss = recipe.loss(0, networks, scene);
    Losses wanted{fake_loss(scene, kFake), 0};
    Line above = kFake, below = kFake;
    above.a += 1e-6;
    below.a -= 1e-6;
    wanted.gradient = (fake_loss(scene, above) - fake_loss(scene, below)) / 2e-6;
    // A weight of ((1 - s) / s)^2 magnifies both sides' rounding.
    const double scale = std::max(1.0, wanted.loss);
    EXPECT_NEAR(loss.item<double>(), wanted.loss, 1e-12 * scale);
    loss.backward();
    EXPECT_NEAR(fake.a().grad().item<double>(), wanted.gradient, 1e-8 * scale);
    EXPECT_FALSE(student.a().grad().defined());
    EXPECT_FALSE(teacher.a().grad().defined());
  }
}

TEST_P(TdmLoss, OfTheStudent) {
  for (int64_t step = 0; step < 6; ++step) {
    LineNetwork student(kStudent), teacher(kTeacher), fake(kFake);
    const Networks networks{student, teacher, fake, diffusion()};
    Scene scene = make_scene(step);
    const Tdm recipe(options(), kGuidance);
    const at::Tensor loss = recipe.loss(1, networks, scene);
    expect_equal(reference([&](const Line& line) { return student_loss(scene, line); }), loss,
                 student.a());
    const double gap = score_gap(scene);
    EXPECT_NEAR(scene.score_gap.value_or(0), gap, 1e-12 * std::max(1.0, gap));
    EXPECT_FALSE(fake.a().grad().defined());
    EXPECT_FALSE(teacher.a().grad().defined());
  }
}

INSTANTIATE_TEST_SUITE_P(Variants, TdmLoss,
                         ::testing::Values(Case{"Blade4", false, 4, 0, 0},
                                           Case{"Blade1", false, 1, 0, 0},
                                           Case{"Blade8Cog", false, 8, 0.5, 5},
                                           Case{"Original4", true, 4, 0, 0},
                                           Case{"BladeOfVPrediction", false, 8, 0.5, 5, true},
                                           Case{"OriginalOfVPrediction", true, 4, 0, 0, true}),
                         [](const auto& info) { return std::string(info.param.name); });

// Every start, end and level that is drawn, at the edges too.
TEST(TdmTimesteps, StayInTheirSegments) {
  struct Watching : LineNetwork {
    using LineNetwork::LineNetwork;
    std::vector<double> seen;
    at::Tensor predict(const at::Tensor& x, std::span<const double> timesteps,
                       const at::Tensor& text) override {
      seen.insert(seen.end(), timesteps.begin(), timesteps.end());
      return LineNetwork::predict(x, timesteps, text);
    }
  };
  config::Tdm options;
  options.set_segments(8);
  Watching student(kStudent), teacher(kTeacher), fake(kFake);
  const Networks networks{student, teacher, fake, Diffusion::flow()};
  for (int64_t step = 0; step < 300; ++step) {
    Scene scene = make_scene(step);
    Tdm(options, 1).loss(0, networks, scene);
  }
  for (const double t : student.seen) {
    EXPECT_EQ(std::fmod(t + 1, 125), 0) << t;
    EXPECT_GE(t, 124);
    EXPECT_LE(t, 999);
  }
  EXPECT_GE(*std::min_element(fake.seen.begin(), fake.seen.end()), 1);
  EXPECT_LE(*std::max_element(fake.seen.begin(), fake.seen.end()), 979);
  // The first and the last segment are drawn.
  for (const double edge : {124.0, 999.0}) {
    EXPECT_NE(std::find(student.seen.begin(), student.seen.end(), edge), student.seen.end());
  }
}

class Dmd2Loss : public ::testing::TestWithParam<double> {
 protected:
  static constexpr double kGuidance = 4;

  config::Dmd2 options() const {
    config::Dmd2 options;
    for (const double t : {1000.0, 757.0, 522.0}) options.add_timestep(t);
    return options;
  }
  struct Point {
    double x, s, x_s;
  };
  Point point(const Scene& scene, int64_t lane, int64_t e, int first_draw,
              const Line& student) const {
    const std::vector<double> timesteps = {1000, 757, 522};
    const int64_t last = scene.below(first_draw, lane, 3);
    double x = draw(scene, 0, lane, e);
    for (int64_t j = 0; j < last; ++j) {
      const double x0 = x - timesteps[j] / 1000 * kStudent.at(x, timesteps[j], kWords[lane]);
      const double next = timesteps[j + 1] / 1000;
      x = (1 - next) * x0 + next * draw(scene, static_cast<int>(j + 1), lane, e);
    }
    Point p;
    p.x = x - timesteps[last] / 1000 * student.at(x, timesteps[last], kWords[lane]);
    const double u = scene.uniform(first_draw + 1, lane), shift = GetParam();
    p.s = std::clamp(shift * u / (1 + (shift - 1) * u), 0.02, 0.98);
    p.x_s = (1 - p.s) * p.x + p.s * draw(scene, first_draw + 2, lane, e);
    return p;
  }
  double student_loss(const Scene& scene, const Line& student) const {
    double sum = 0;
    for (int64_t lane = 0; lane < kBatch; ++lane) {
      std::vector<double> x, moving, real, fake;
      double distance = 0;
      for (int64_t e = 0; e < kElements; ++e) {
        const Point p = point(scene, lane, e, 210, kStudent);
        const double t = 1000 * p.s;
        const double empty = kTeacher.at(p.x_s, t, 0), text = kTeacher.at(p.x_s, t, kWords[lane]);
        x.push_back(p.x);
        moving.push_back(point(scene, lane, e, 210, student).x);
        real.push_back(p.x_s - p.s * (empty + kGuidance * (text - empty)));
        fake.push_back(p.x_s - p.s * kFake.at(p.x_s, t, kWords[lane]));
        distance += std::abs(x.back() - real.back()) / kElements;
      }
      for (int64_t e = 0; e < kElements; ++e) {
        sum += 0.5 * std::pow(moving[e] - (x[e] - (fake[e] - real[e]) / distance), 2);
      }
    }
    return sum / (kBatch * kElements);
  }
  double fake_loss(const Scene& scene) const {
    double sum = 0;
    for (int64_t lane = 0; lane < kBatch; ++lane) {
      for (int64_t e = 0; e < kElements; ++e) {
        const Point p = point(scene, lane, e, 200, kStudent);
        sum += std::pow(kFake.at(p.x_s, 1000 * p.s, kWords[lane]) - (p.x_s - p.x) / p.s, 2);
      }
    }
    return sum / (kBatch * kElements);
  }
};

TEST_P(Dmd2Loss, OfBothNetworks) {
  for (int64_t step = 0; step < 6; ++step) {
    LineNetwork student(kStudent), teacher(kTeacher), fake(kFake);
    const Networks networks{student, teacher, fake, Diffusion::flow()};
    Scene scene = make_scene(step);
    const Dmd2 recipe(options(), kGuidance, GetParam());
    const at::Tensor fake_own = recipe.loss(0, networks, scene);
    EXPECT_NEAR(fake_own.item<double>(), fake_loss(scene), 1e-12 * std::max(1.0, fake_loss(scene)));
    fake_own.backward();
    EXPECT_TRUE(fake.a().grad().defined());
    EXPECT_FALSE(student.a().grad().defined());
    expect_equal(reference([&](const Line& line) { return student_loss(scene, line); }),
                 recipe.loss(1, networks, scene), student.a());
    EXPECT_FALSE(teacher.a().grad().defined());
  }
}

INSTANTIATE_TEST_SUITE_P(Shifts, Dmd2Loss, ::testing::Values(1.0, 8.0));

TEST(Dmd2Phases, TheStudentComesEveryFewSteps) {
  config::Dmd2 options;
  options.add_timestep(1000);
  options.set_student_interval(5);
  const Dmd2 recipe(options, 1, 1);
  for (int64_t step = 0; step < 15; ++step) {
    const auto phases = recipe.phases(step);
    EXPECT_EQ(phases.front().trained, config::NetworkRole::kFakeScore);
    EXPECT_EQ(phases.size(), step % 5 == 4 ? 2u : 1u) << step;
  }
}

}  // namespace
}  // namespace sprocket::runtime
