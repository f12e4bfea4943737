#include "runtime/media/frame_scaler.h"

#include <algorithm>

#include "base/error.h"

namespace sprocket::media {
namespace {

int colour_table_of(const AVFrame& picture) {
  switch (picture.colorspace) {
    case AVCOL_SPC_BT709:
      return SWS_CS_ITU709;
    case AVCOL_SPC_BT470BG:
    case AVCOL_SPC_SMPTE170M:
      return SWS_CS_ITU601;
    case AVCOL_SPC_SMPTE240M:
      return SWS_CS_SMPTE240M;
    case AVCOL_SPC_FCC:
      return SWS_CS_FCC;
    case AVCOL_SPC_BT2020_NCL:
    case AVCOL_SPC_BT2020_CL:
      return SWS_CS_BT2020;
    default:
      return picture.height >= 720 ? SWS_CS_ITU709 : SWS_CS_ITU601;  // libav's enum is open
  }
}

// Crops to the largest centred rectangle of aspect ratio width : height, at even offsets so that
// subsampled chroma stays aligned.
void crop_to_aspect(AVFrame& picture, int width, int height) {
  const int64_t wide = static_cast<int64_t>(picture.width) * height;
  const int64_t tall = static_cast<int64_t>(picture.height) * width;
  const int keep_width = wide > tall
                             ? std::max<int>(1, static_cast<int>((tall + height / 2) / height))
                             : picture.width;
  const int keep_height =
      tall > wide ? std::max<int>(1, static_cast<int>((wide + width / 2) / width)) : picture.height;
  picture.crop_left = (picture.width - keep_width) / 2 / 2 * 2;
  picture.crop_right = picture.width - keep_width - picture.crop_left;
  picture.crop_top = (picture.height - keep_height) / 2 / 2 * 2;
  picture.crop_bottom = picture.height - keep_height - picture.crop_top;
  const int code = av_frame_apply_cropping(&picture, AV_FRAME_CROP_UNALIGNED);
  SPROCKET_CHECK(code >= 0, "cropping: {}", libav_error(code));
}

}  // namespace

FrameScaler::FrameScaler(int width, int height, int quarter_turns)
    : width_(width), height_(height), quarter_turns_(quarter_turns) {}

void FrameScaler::prepare(const AVFrame& picture) {
  if (picture.width == known_width_ && picture.height == known_height_ &&
      picture.format == known_format_) {
    return;
  }
  const bool turned = quarter_turns_ % 2 == 1;
  const int width = turned ? height_ : width_, height = turned ? width_ : height_;
  const bool shrinks = width < picture.width || height < picture.height;
  context_.reset(sws_getContext(
      picture.width, picture.height, static_cast<AVPixelFormat>(picture.format), width, height,
      AV_PIX_FMT_RGB24,
      (shrinks ? SWS_AREA : SWS_BICUBIC) | SWS_ACCURATE_RND | SWS_FULL_CHR_H_INT | SWS_BITEXACT,
      nullptr, nullptr, nullptr));
  if (context_ == nullptr) {
    throw InputError(fmt::format("pictures of {}x{} in pixel format {} cannot be scaled to {}x{}",
                                 picture.width, picture.height, picture.format, width, height));
  }
  constexpr int kUnity = 1 << 16;
  sws_setColorspaceDetails(context_.get(), sws_getCoefficients(colour_table_of(picture)),
                           picture.color_range == AVCOL_RANGE_JPEG ? 1 : 0,
                           sws_getCoefficients(SWS_CS_DEFAULT), 1, 0, kUnity, kUnity);
  known_width_ = picture.width;
  known_height_ = picture.height;
  known_format_ = picture.format;
}

void FrameScaler::convert(AVFrame& picture, uint8_t* rgb) {
  const bool turned = quarter_turns_ % 2 == 1;
  const int width = turned ? height_ : width_, height = turned ? width_ : height_;
  crop_to_aspect(picture, width, height);
  prepare(picture);
  // The scaler may write past a row's end up to its vector width: it gets rows of its own.
  const int stride = (width * 3 + 63) / 64 * 64;
  unturned_.resize(static_cast<size_t>(stride) * height + 64);
  uint8_t* const planes[4] = {unturned_.data()};
  const int strides[4] = {stride};
  sws_scale(context_.get(), picture.data, picture.linesize, 0, picture.height, planes, strides);
  for (int y = 0; y < height_; ++y) {
    for (int x = 0; x < width_; ++x) {
      int from_y = y, from_x = x;
      if (quarter_turns_ == 1) from_y = x, from_x = width - 1 - y;
      if (quarter_turns_ == 2) from_y = height - 1 - y, from_x = width - 1 - x;
      if (quarter_turns_ == 3) from_y = height - 1 - x, from_x = y;
      std::copy_n(unturned_.data() + static_cast<size_t>(from_y) * stride + from_x * 3, 3,
                  rgb + (static_cast<size_t>(y) * width_ + x) * 3);
    }
  }
}

}  // namespace sprocket::media
