#include "runtime/data/encode.h"

#include <deque>
#include <optional>

#include "base/error.h"
#include "models/codec/haar.h"
#include "models/text/hashed_text.h"
#include "runtime/data/embedding_file.h"
#include "runtime/data/latent_writer.h"
#include "runtime/media/video_reader.h"

namespace sprocket::data {
namespace {

class Encoder {
 public:
  Encoder(const EncodeOptions& options, std::function<void(const EncodeProgress&)> progress)
      : options_(options), progress_(std::move(progress)), codec_(options.channels) {}

  EncodeResult run(const std::vector<EncodeItem>& items) {
    TextInfo text{options_.text, text::kHashedTextVersion, options_.tokens, options_.dim};
    if (options_.text == "precomputed") {
      text.version = 0;
      text.tokens = 0;
      for (const EncodeItem& item : items) read_embedding(item.text_file, &text);
    }
    writer_.emplace(options_.output, CodecInfo{"haar", codec::kHaarVersion, options_.channels},
                    text, options_.shard_bytes);
    state_.videos = static_cast<int64_t>(items.size());
    for (const EncodeItem& item : items) {
      state_.current = item.video;
      report();
      encode_video(item, text);
      ++state_.videos_done;
    }
    state_.current.clear();
    EncodeResult result{writer_->finish(), state_.videos, dropped_frames_};
    report();
    return result;
  }

 private:
  void report() const {
    if (progress_) progress_(state_);
  }

  void encode_video(const EncodeItem& item, TextInfo text) {
    std::vector<float> embedding;
    if (!item.text_file.empty()) embedding = read_embedding(item.text_file, &text);
    media::VideoReader reader(item.video, {.width = item.width,
                                           .height = item.height,
                                           .fps = options_.fps,
                                           .start = options_.start_frame,
                                           .stride = options_.frame_stride});
    const int64_t stride = options_.clip_stride > 0 ? options_.clip_stride : item.frames;
    std::deque<std::vector<uint8_t>> window;  // frames from `first` on
    int64_t first = 0, read = 0, clips = 0;
    std::vector<uint8_t> frame;
    while ((options_.max_clips == 0 || clips < options_.max_clips) && reader.next(&frame)) {
      if (read++ >= first) window.push_back(frame);
      if (static_cast<int64_t>(window.size()) < item.frames) continue;
      write_clip(item, window, first, reader.fps(), embedding);
      ++clips;
      first += stride;
      for (int64_t i = 0; i < stride && !window.empty(); ++i) window.pop_front();
    }
    if (clips == 0) {
      throw InputError(fmt::format(
          "{}: expected at least one clip of {} frames, found {} frames{}", item.video, item.frames,
          read, read == 0 ? " (a zero-length video)" : " at this rate, stride and start"));
    }
    dropped_frames_ += options_.max_clips == clips
                           ? 0
                           : std::max<int64_t>(0, read - (first - stride + item.frames));
  }

  void write_clip(const EncodeItem& item, const std::deque<std::vector<uint8_t>>& window,
                  int64_t first, double fps, const std::vector<float>& embedding) {
    media::Video clip{item.frames, item.width, item.height, fps, {}};
    for (int64_t i = 0; i < item.frames; ++i) {
      clip.rgb.insert(clip.rgb.end(), window[i].begin(), window[i].end());
    }
    SampleInfo info;
    info.shape = {options_.channels, codec::latent_frames(item.frames),
                  item.height / codec::kStrideH, item.width / codec::kStrideW};
    info.caption = item.caption;
    info.source = item.video;
    info.first_frame = options_.start_frame + first * options_.frame_stride;
    info.frames = item.frames;
    info.fps = fps;
    info.width = item.width;
    info.height = item.height;
    writer_->add(std::move(info),
                 codec_.encode(media::to_floats(clip), item.frames, item.height, item.width),
                 embedding);
    ++state_.clips;
    report();
  }

  const EncodeOptions& options_;
  const std::function<void(const EncodeProgress&)> progress_;
  const codec::HaarCodec codec_;
  std::optional<LatentWriter> writer_;
  EncodeProgress state_;
  int64_t dropped_frames_ = 0;
};

}  // namespace

EncodeResult encode_dataset(const EncodeOptions& options,
                            const std::function<void(const EncodeProgress&)>& progress) {
  const std::vector<EncodeItem> items = plan_encoding(options);
  return Encoder(options, progress).run(items);
}

}  // namespace sprocket::data
