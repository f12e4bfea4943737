#include "runtime/planner/line_chart.h"

#include <algorithm>
#include <cmath>

namespace sprocket::runtime {
namespace {

constexpr Colour kPaper = {255, 255, 255}, kInk = {40, 44, 52}, kFaint = {110, 116, 126};
constexpr Colour kGrid = {228, 231, 236};

// Everything is drawn so many times larger and averaged, which makes slanted lines smooth.
constexpr int kFine = 4;
constexpr int kMargin = 28, kPanelWidth = 620, kPanelHeight = 430, kAxisLeft = 84, kAxisBelow = 74;
constexpr int kPanelGap = 36, kTitleLine = 34, kSmallLine = 20, kLegendHeight = 44;
constexpr int kPanelHead = 58;

class Picture {
 public:
  Picture(int width, int height) : canvas_(width * kFine, height * kFine, kPaper) {}

  void fill(double x, double y, double width, double height, Colour colour) {
    canvas_.fill(at(x), at(y), at(width), at(height), colour);
  }
  // Letters of 7 x 2 or, small, 7 x 1.5 pixels.
  void text(double x, double y, const std::string& text, Colour colour, bool small = false) {
    canvas_.text(at(x), at(y), text, colour, scale(small));
  }
  static double width(const std::string& text, bool small = false) {
    return static_cast<double>(Canvas::text_width(text, scale(small))) / kFine;
  }
  void line(double x0, double y0, double x1, double y1, double thick, Colour colour, bool dashed) {
    const double length = std::hypot(x1 - x0, y1 - y0);
    const int steps = std::max(1, static_cast<int>(length * kFine));
    for (int i = 0; i <= steps; ++i) {
      const double share = static_cast<double>(i) / steps;
      if (dashed && std::fmod(share * length, 14) > 8) continue;
      dot(x0 + share * (x1 - x0), y0 + share * (y1 - y0), thick / 2, colour);
    }
  }
  void dot(double x, double y, double radius, Colour colour) {
    const int r = static_cast<int>(std::lround(radius * kFine));
    for (int dy = -r; dy <= r; ++dy) {
      const int half = static_cast<int>(std::sqrt(static_cast<double>(r * r - dy * dy)));
      canvas_.fill(at(x) - half, at(y) + dy, 2 * half + 1, 1, colour);
    }
  }
  media::Image image() const {
    const media::Image& fine = canvas_.image();
    media::Image image{fine.width / kFine, fine.height / kFine, {}};
    image.rgb.resize(static_cast<size_t>(image.width) * image.height * 3);
    for (int y = 0; y < image.height; ++y) {
      for (int x = 0; x < image.width; ++x) {
        for (int c = 0; c < 3; ++c) {
          int sum = 0;
          for (int i = 0; i < kFine * kFine; ++i) {
            const int row = y * kFine + i / kFine, column = x * kFine + i % kFine;
            sum += fine.rgb[(static_cast<size_t>(row) * fine.width + column) * 3 + c];
          }
          image.rgb[(static_cast<size_t>(y) * image.width + x) * 3 + c] =
              static_cast<uint8_t>((sum + kFine * kFine / 2) / (kFine * kFine));
        }
      }
    }
    return image;
  }

 private:
  static int at(double pixels) { return static_cast<int>(std::lround(pixels * kFine)); }
  static int scale(bool small) { return small ? kFine * 3 / 2 : kFine * 2; }
  Canvas canvas_;
};

class Panel {
 public:
  Panel(Picture& picture, const ChartPanel& panel, double left, double top)
      : picture_(picture), panel_(panel), left_(left + kAxisLeft), top_(top + kPanelHead) {}

  void draw() {
    picture_.text(left_, top_ - kPanelHead + 4, panel_.title, kInk);
    for (const ChartTick& tick : panel_.y_ticks) {
      picture_.fill(left_, y_of(tick.value) - 0.5, kWidth, 1, kGrid);
      picture_.text(left_ - 10 - Picture::width(tick.label, true), y_of(tick.value) - 5, tick.label,
                    kFaint, true);
    }
    for (const ChartTick& tick : panel_.x_ticks) {
      picture_.fill(x_of(tick.value) - 0.5, top_, 1, kHeight, kGrid);
      picture_.text(x_of(tick.value) - Picture::width(tick.label, true) / 2, top_ + kHeight + 10,
                    tick.label, kFaint, true);
    }
    picture_.fill(left_ - 1, top_, 1.5, kHeight + 1, kInk);
    picture_.fill(left_ - 1, top_ + kHeight, kWidth + 1, 1.5, kInk);
    picture_.text(left_ + (kWidth - Picture::width(panel_.x_label, true)) / 2, top_ + kHeight + 32,
                  panel_.x_label, kInk, true);
    picture_.text(left_, top_ - 22, panel_.y_label, kFaint, true);
    for (const ChartLine& line : panel_.lines) {
      for (size_t i = 1; i < line.points.size(); ++i) {
        picture_.line(x_of(line.points[i - 1].first), y_of(line.points[i - 1].second),
                      x_of(line.points[i].first), y_of(line.points[i].second),
                      line.dashed ? 1.5 : 3, line.colour, line.dashed);
      }
      if (line.dashed) continue;
      // A point alone would hide below those of the other lines.
      const double halo = line.points.size() == 1 ? 9 : 0;
      for (const auto& [x, y] : line.points) {
        picture_.dot(x_of(x), y_of(y), halo, line.colour);
        picture_.dot(x_of(x), y_of(y), halo > 0 ? 6.5 : 5, kPaper);
        picture_.dot(x_of(x), y_of(y), 4, line.colour);
      }
    }
  }

 private:
  static constexpr double kWidth = kPanelWidth - kAxisLeft, kHeight = kPanelHeight - kAxisBelow;

  static double share(double value, double first, double last, bool log) {
    if (log) return std::log(value / first) / std::log(last / first);
    return (value - first) / (last - first);
  }
  double x_of(double value) const {
    return left_ +
           kWidth * share(value, panel_.x_ticks.front().value, panel_.x_ticks.back().value, true);
  }
  double y_of(double value) const {
    return top_ + kHeight * (1 - share(value, panel_.y_ticks.front().value,
                                       panel_.y_ticks.back().value, panel_.log_y));
  }

  Picture& picture_;
  const ChartPanel& panel_;
  double left_, top_;
};

}  // namespace

media::Image draw_chart(const std::string& title, const std::vector<std::string>& subtitle,
                        const std::vector<ChartPanel>& panels) {
  const int count = static_cast<int>(panels.size());
  const int head = kMargin + kTitleLine + kSmallLine * static_cast<int>(subtitle.size()) + 14;
  const int width = 2 * kMargin + count * kPanelWidth + (count - 1) * kPanelGap;
  Picture picture(width, head + kPanelHead + kPanelHeight + kLegendHeight);
  picture.text(kMargin, kMargin, title, kInk);
  for (size_t i = 0; i < subtitle.size(); ++i) {
    picture.text(kMargin, kMargin + kTitleLine + kSmallLine * static_cast<double>(i), subtitle[i],
                 kFaint, true);
  }
  for (int i = 0; i < count; ++i) {
    Panel(picture, panels[i], kMargin + i * (kPanelWidth + kPanelGap), head).draw();
  }
  double x = kMargin + kAxisLeft;
  const double y = head + kPanelHead + kPanelHeight + 4;
  for (const ChartLine& line : panels.front().lines) {
    picture.line(x, y + 5, x + 34, y + 5, line.dashed ? 1.5 : 3, line.colour, line.dashed);
    if (!line.dashed) picture.dot(x + 17, y + 5, 4, line.colour);
    picture.text(x + 44, y, line.name, kInk, true);
    x += 44 + Picture::width(line.name, true) + 36;
  }
  return picture.image();
}

}  // namespace sprocket::runtime
