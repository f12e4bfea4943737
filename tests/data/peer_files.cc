// Helper of safetensors_peer_test.py: `peer_files write DIR` writes files of closed form,
// `peer_files read FILE` prints what a safetensors file holds, one tensor a line.
#include <cstring>
#include <iostream>
#include <span>
#include <string>
#include <vector>

#include "models/safetensors/safetensors.h"
#include "models/safetensors/writer.h"
#include "runtime/data/latent_writer.h"
#include "runtime/media/animated_png.h"
#include "runtime/media/contact_sheet.h"
#include "runtime/media/output_file.h"
#include "runtime/media/png.h"
#include "tests/data/synthetic_video.h"

namespace {

using sprocket::safetensors::ElementType;

// The video's frames beside the animation.
void write_animation(const std::string& stem, const sprocket::media::Video& video) {
  using sprocket::media::write_output_file;
  write_output_file(stem + ".png",
                    sprocket::media::encode_animated_png(video, {.frames = 20}).file);
  write_output_file(stem + ".rgb", std::as_bytes(std::span(video.rgb)));
}

void write(const std::string& folder) {
  std::vector<float> ramp(24);
  for (size_t i = 0; i < ramp.size(); ++i) ramp[i] = 0.25f * static_cast<float>(i) - 1;
  const std::vector<double> scalar = {1.0 / 3};
  const std::vector<int64_t> counts = {-1, int64_t{1} << 40};
  const std::vector<uint8_t> flags = {1, 0, 1};
  const std::vector<sprocket::BFloat16> half = {sprocket::BFloat16(1.5f), sprocket::BFloat16(-3)};
  sprocket::safetensors::write_file(
      folder + "/types.safetensors",
      {{{"ramp", ElementType::kF32, {2, 3, 4}}, std::as_bytes(std::span(ramp))},
       {{"scalar", ElementType::kF64, {}}, std::as_bytes(std::span(scalar))},
       {{"counts", ElementType::kI64, {2}}, std::as_bytes(std::span(counts))},
       {{"flags", ElementType::kBool, {3}}, std::as_bytes(std::span(flags))},
       {{"none", ElementType::kF16, {0, 5}}, {}},
       {{"half", ElementType::kBF16, {1, 2}}, std::as_bytes(std::span(half))}},
      {{"format", "pt"}});
  const std::vector<sprocket::media::Video> rows = {sprocket::testing::synthetic_video(9, 32, 24)};
  const auto sheet = sprocket::media::contact_sheet(rows, 3);
  sprocket::media::write_png(folder + "/sheet.png", sheet);
  std::cout.write(reinterpret_cast<const char*>(sheet.rgb.data()),
                  static_cast<std::streamsize>(sheet.rgb.size()));
  write_animation(folder + "/short", sprocket::testing::synthetic_video(9, 96, 64, 16));
  write_animation(folder + "/long", sprocket::testing::synthetic_video(41, 50, 30, 24));
  sprocket::data::LatentWriter writer(folder + "/set", {"haar", 1, 2}, {"hashed", 1, 4, 4}, 1);
  sprocket::data::SampleInfo info{
      .shape = {2, 1, 3, 4}, .caption = "peer", .frames = 1, .fps = 8, .width = 32, .height = 24};
  writer.add(info, ramp, {});
  writer.finish();
}

void read(const std::string& path) {
  const auto file = sprocket::safetensors::File::open(path);
  for (const auto& tensor : file.tensors()) {
    double sum = 0;
    for (const float value : file.floats(tensor)) sum += value;
    std::cout << tensor.name << ' ' << name_of(tensor.type);
    for (const int64_t dim : tensor.shape) std::cout << ' ' << dim;
    std::cout << " sum " << sum << '\n';
  }
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 3) return 2;
  const std::string mode = arguments[1];
  if (mode == "write") {
    write(arguments[2]);
  } else if (mode == "read") {
    read(arguments[2]);
  } else {
    return 2;
  }
  return 0;
}
