// Many frames in one picture, for eyes and documents.
#pragma once

#include <span>

#include "runtime/media/video.h"

namespace sprocket::media {

// One row per video, `columns` frames of each at equal distances from its first to its last; a
// video of fewer frames leaves the rest of its row empty. Cells have the size of the largest frame;
// thin dark lines separate them, wider ones the rows. rows and columns >= 1, every video has a
// frame.
Image contact_sheet(std::span<const Video> rows, int columns);

}  // namespace sprocket::media
