// Line charts: panels side by side with axes, grid, labels and one legend.
#pragma once

#include <string>
#include <vector>

#include "runtime/attention/canvas.h"
#include "runtime/media/video.h"

namespace sprocket::runtime {

struct ChartLine {
  std::string name;
  Colour colour{};
  bool dashed = false;
  std::vector<std::pair<double, double>> points;  // ascending x
};

struct ChartTick {
  double value = 0;
  std::string label;
};

struct ChartPanel {
  std::string title, x_label, y_label;
  bool log_y = false;                       // x is logarithmic always
  std::vector<ChartTick> x_ticks, y_ticks;  // ascending; the axes reach from the first to the last
  std::vector<ChartLine> lines;
};

// Texts are those that Canvas can draw. The legend names the lines of the first panel.
media::Image draw_chart(const std::string& title, const std::vector<std::string>& subtitle,
                        const std::vector<ChartPanel>& panels);

}  // namespace sprocket::runtime
