#include "runtime/media/contact_sheet.h"

#include <algorithm>

#include "base/error.h"

namespace sprocket::media {

Image contact_sheet(std::span<const Video> rows, int columns) {
  constexpr int kColumnGap = 2, kRowGap = 6;
  constexpr uint8_t kBackground = 24;
  SPROCKET_CHECK(!rows.empty() && columns > 0, "{} rows, {} columns", rows.size(), columns);
  int cell_width = 0, cell_height = 0;
  for (const Video& video : rows) {
    SPROCKET_CHECK_LT(0, video.frames);
    cell_width = std::max(cell_width, video.width);
    cell_height = std::max(cell_height, video.height);
  }
  Image sheet;
  sheet.width = columns * (cell_width + kColumnGap) + kColumnGap;
  sheet.height = static_cast<int>(rows.size()) * (cell_height + kRowGap) + kRowGap;
  sheet.rgb.assign(static_cast<size_t>(sheet.width) * sheet.height * 3, kBackground);
  for (size_t row = 0; row < rows.size(); ++row) {
    const Video& video = rows[row];
    const int64_t shown = std::min<int64_t>(columns, video.frames);
    for (int64_t column = 0; column < shown; ++column) {
      const int64_t index =
          shown == 1 ? 0 : (column * (video.frames - 1) + (shown - 1) / 2) / (shown - 1);
      const auto frame = video.frame(index);
      const int left = kColumnGap + static_cast<int>(column) * (cell_width + kColumnGap);
      const int top = kRowGap + static_cast<int>(row) * (cell_height + kRowGap);
      const size_t line = static_cast<size_t>(video.width) * 3;
      for (int y = 0; y < video.height; ++y) {
        std::copy_n(frame.begin() + y * line, line,
                    sheet.rgb.begin() + (static_cast<size_t>(top + y) * sheet.width + left) * 3);
      }
    }
  }
  return sheet;
}

}  // namespace sprocket::media
