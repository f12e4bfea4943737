#include "runtime/attention/selection_picture.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include <fmt/format.h>

#include "runtime/attention/canvas.h"
#include "runtime/attention/selection_record.h"

namespace sprocket::runtime {
namespace {

constexpr Colour kPaper = {255, 255, 255}, kInk = {40, 44, 52}, kFaint = {150, 156, 166};
constexpr Colour kSkipped = {232, 234, 238}, kEdge = {255, 255, 255};
constexpr Colour kQuery = {235, 110, 20}, kPruned = {250, 205, 160};
// By level, the finest darkest.
constexpr Colour kLevels[] = {
    kSkipped, {16, 62, 130}, {66, 125, 195}, {128, 178, 224}, {186, 214, 238}};

constexpr int kMargin = 16, kGap = 28, kMapSide = 640, kLargestCell = 48, kAxis = 36;
constexpr int kTextScale = 2, kLine = Canvas::kLetterHeight * kTextScale + 8;
constexpr int kCaption = 12;  // a line of small letters

Colour blend(Colour from, Colour to, double share) {
  Colour mixed;
  for (int i = 0; i < 3; ++i) {
    mixed[i] = static_cast<uint8_t>(std::lround(from[i] + share * (to[i] - from[i])));
  }
  return mixed;
}

// The blocks x blocks map. Blocks are whole pixels wide; more blocks than pixels share them, and
// the colour is then the mean.
class BlockMap {
 public:
  explicit BlockMap(const PictureSubject& subject)
      : subject_(subject),
        blocks_(subject.layout.blocks()),
        cell_(std::min(kLargestCell, (kMapSide + blocks_ - 1) / blocks_)),
        fold_(std::max(1, (blocks_ + 2 * kMapSide - 1) / (2 * kMapSide))) {}

  int side() const { return (blocks_ + fold_ - 1) / fold_ * cell_; }

  void draw(Canvas& canvas, int left, int top) const {
    const int cells = (blocks_ + fold_ - 1) / fold_, gap = cell_ >= 8 ? 1 : 0;
    for (int i = 0; i < cells; ++i) {
      for (int j = 0; j < cells; ++j) {
        canvas.fill(left + j * cell_, top + i * cell_, cell_ - gap, cell_ - gap, colour_of(i, j));
      }
    }
    const int prefix = subject_.layout.prefix_blocks();
    if (prefix > 0) {
      canvas.fill(left, top + at(prefix), side(), 1, kInk);
      canvas.fill(left + at(prefix), top, 1, side(), kInk);
    }
    canvas.outline(left - 1, top - 1, side() + 2, side() + 2, kFaint);
    const int row = top + at(subject_.query_block), height = std::max(cell_, 3);
    canvas.fill(left - 8, row + cell_ / 2 - height / 2, 6, height, kQuery);
    canvas.fill(left + side() + 2, row + cell_ / 2 - height / 2, 6, height, kQuery);
    for (const int block : {0, blocks_ / 4, blocks_ / 2, blocks_ * 3 / 4, blocks_ - 1}) {
      const std::string label = std::to_string(block);
      const int centre = at(block) + cell_ / 2;
      canvas.text(left + centre - Canvas::text_width(label) / 2, top - 12, label, kFaint);
      canvas.text(left - 12 - Canvas::text_width(label), top + centre - 3, label, kFaint);
    }
  }

 private:
  int at(int block) const { return block / fold_ * cell_; }

  Colour colour_of(int i, int j) const {
    std::array<double, 3> sum{};
    int count = 0;
    for (int q = i * fold_; q < std::min((i + 1) * fold_, blocks_); ++q) {
      for (int k = j * fold_; k < std::min((j + 1) * fold_, blocks_); ++k, ++count) {
        const Colour& colour = kLevels[subject_.selection[static_cast<size_t>(q) * blocks_ + k]];
        for (int c = 0; c < 3; ++c) sum[c] += colour[c];
      }
    }
    Colour mean;
    for (int c = 0; c < 3; ++c) mean[c] = static_cast<uint8_t>(std::lround(sum[c] / count));
    return mean;
  }

  const PictureSubject& subject_;
  int blocks_, cell_, fold_;
};

// All frames, in as many rows as suit the height of the map, and the prefix tokens below.
class VideoPanel {
 public:
  VideoPanel(const PictureSubject& subject, int height)
      : subject_(subject),
        grid_(subject.layout.spec.grid),
        block_of_(token_blocks(subject.layout)),
        row_(subject.selection.subspan(
            static_cast<size_t>(subject.query_block) * subject.layout.blocks(),
            subject.layout.blocks())) {
    choose_arrangement(height);
  }

  // "4 of 36 blocks", and whether the query block is one of them, which its colour hides.
  std::string summary() const {
    const auto selected = std::count_if(row_.begin(), row_.end(), [](uint8_t x) { return x != 0; });
    return fmt::format("{} of {} blocks, {}itself", selected, row_.size(),
                       row_[subject_.query_block] != 0 ? "with " : "without ");
  }
  int width() const { return std::max(columns_ * frame_width(), 300); }
  int height() const {
    return rows() * frame_height() + (prefix_tokens() > 0 ? prefix_height() : 0);
  }

  void draw(Canvas& canvas, int left, int top) const {
    for (int t = 0; t < grid_.t; ++t) {
      draw_frame(canvas, t, left + t % columns_ * frame_width(),
                 top + t / columns_ * frame_height());
    }
    if (prefix_tokens() == 0) return;
    const int below = top + rows() * frame_height();
    canvas.text(left, below, "prefix tokens", kFaint);
    for (int64_t i = 0; i < prefix_tokens(); ++i) {
      const int x = left + static_cast<int>(i % prefix_columns()) * cell_;
      const int y = below + kCaption + static_cast<int>(i / prefix_columns()) * cell_;
      draw_cell(canvas, x, y, grid_.tokens() + i);
    }
  }

 private:
  static constexpr int kFrameGap = 10, kWideCell = 10;

  int frame_width() const { return grid_.w * cell_ + kFrameGap; }
  int frame_height() const { return kCaption + grid_.h * cell_ + kFrameGap; }
  int rows() const { return (grid_.t + columns_ - 1) / columns_; }
  int64_t prefix_tokens() const { return subject_.layout.prefix_tokens(); }
  int64_t prefix_columns() const { return std::max(1, (width() - kFrameGap) / cell_); }
  int prefix_height() const {
    const int64_t lines = (prefix_tokens() + prefix_columns() - 1) / prefix_columns();
    return kCaption + static_cast<int>(lines) * cell_ + kFrameGap;
  }

  // The largest cells that fit the height and twice its width; at least 2 pixels.
  void choose_arrangement(int height) {
    for (cell_ = 24; cell_ > 2; --cell_) {
      for (columns_ = 1; columns_ <= grid_.t; ++columns_) {
        if (columns_ * frame_width() <= 2 * height && this->height() <= height) return;
      }
    }
    cell_ = 2;
    columns_ = std::clamp(2 * height / frame_width(), 1, grid_.t);
  }

  Colour colour_of(int64_t place) const {
    const int block = block_of_[place];
    if (block == subject_.query_block) {
      return subject_.kept.empty() || subject_.kept[place] != 0 ? kQuery : kPruned;
    }
    return kLevels[row_[block]];
  }

  // Gaps between cells where they are large enough to tell.
  void draw_cell(Canvas& canvas, int x, int y, int64_t place) const {
    const int gap = cell_ >= kWideCell ? 1 : 0;
    canvas.fill(x, y, cell_ - gap, cell_ - gap, colour_of(place));
  }

  void draw_frame(Canvas& canvas, int t, int left, int top) const {
    canvas.text(left, top, fmt::format("t {}", t), kFaint);
    const int64_t plane = static_cast<int64_t>(grid_.h) * grid_.w;
    const auto place = [&](int h, int w) {
      return t * plane + static_cast<int64_t>(h) * grid_.w + w;
    };
    top += kCaption;
    for (int h = 0; h < grid_.h; ++h) {
      for (int w = 0; w < grid_.w; ++w) {
        const int x = left + w * cell_, y = top + h * cell_;
        draw_cell(canvas, x, y, place(h, w));
        if (cell_ < 4) continue;
        const Colour edge = blend(colour_of(place(h, w)), kEdge, cell_ >= kWideCell ? 1 : 0.6);
        const int block = block_of_[place(h, w)], wide = cell_ >= kWideCell ? 2 : 1;
        if (w + 1 < grid_.w && block_of_[place(h, w + 1)] != block) {
          canvas.fill(x + cell_ - wide, y, wide, cell_, edge);
        }
        if (h + 1 < grid_.h && block_of_[place(h + 1, w)] != block) {
          canvas.fill(x, y + cell_ - wide, cell_, wide, edge);
        }
      }
    }
    canvas.outline(left - 1, top - 1, grid_.w * cell_ + 2, grid_.h * cell_ + 2, kFaint);
  }

  const PictureSubject& subject_;
  parallel::Grid grid_;
  std::vector<int32_t> block_of_;
  std::span<const uint8_t> row_;
  int cell_ = 2, columns_ = 1;
};

using Legend = std::vector<std::pair<Colour, std::string>>;

Legend legend_of(const PictureSubject& subject) {
  Legend legend = {{kQuery, "query block"}};
  const bool pruned = std::find(subject.kept.begin(), subject.kept.end(), 0) != subject.kept.end();
  if (pruned) legend.push_back({kPruned, "its pruned queries"});
  if (subject.levels) {
    for (int level = 1; level <= 4; ++level) {
      const int tokens = 1 << (level - 1);
      legend.push_back({kLevels[level], level == 1 ? std::string("selected: single tokens")
                                                   : fmt::format("means of {}", tokens)});
    }
  } else {
    legend.push_back({kLevels[1], "selected"});
  }
  legend.push_back({kSkipped, "not selected"});
  return legend;
}

int legend_width(const Legend& legend) {
  int width = 0;
  for (const auto& [colour, text] : legend)
    width += kLine + Canvas::text_width(text, kTextScale) + 24;
  return width;
}

}  // namespace

media::Image draw_selection(const PictureSubject& subject) {
  const BlockMap map(subject);
  const VideoPanel video(subject, std::max(map.side(), 320));
  const Legend legend = legend_of(subject);
  const int map_left = kMargin + kAxis, top = kMargin + 2 * kLine + 2 * kCaption;
  const int video_left = map_left + map.side() + kGap;
  const int body = std::max(map.side(), video.height());
  const std::string caption =
      fmt::format("query block {} attends to {}", subject.query_block, video.summary());
  const int width =
      kMargin + std::max({video_left - kMargin + video.width(),
                          video_left - kMargin + Canvas::text_width(caption, kTextScale),
                          Canvas::text_width(subject.title, kTextScale), legend_width(legend)});
  Canvas canvas(width + kMargin, top + body + kLine + 2 * kMargin, kPaper);
  canvas.text(kMargin, kMargin, subject.title, kInk, kTextScale);
  canvas.text(map_left, kMargin + kLine + 4, "query block down, key block across", kFaint,
              kTextScale);
  canvas.text(video_left, kMargin + kLine + 4, caption, kFaint, kTextScale);
  map.draw(canvas, map_left, top);
  video.draw(canvas, video_left, top - kCaption);
  int x = kMargin;
  const int y = top + body + kMargin;
  for (const auto& [colour, text] : legend) {
    canvas.fill(x, y, kLine - 8, kLine - 8, colour);
    canvas.text(x + kLine, y, text, kInk, kTextScale);
    x += kLine + Canvas::text_width(text, kTextScale) + 24;
  }
  return canvas.image();
}

}  // namespace sprocket::runtime
