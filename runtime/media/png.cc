#include "runtime/media/png.h"

#include <png.h>

#include "base/error.h"
#include "runtime/media/output_file.h"

namespace sprocket::media {

void write_png(const std::string& path, const Image& image) {
  SPROCKET_CHECK_EQ(image.rgb.size(), static_cast<size_t>(image.width) * image.height * 3);
  png_image description{};
  description.version = PNG_IMAGE_VERSION;
  description.width = static_cast<png_uint_32>(image.width);
  description.height = static_cast<png_uint_32>(image.height);
  description.format = PNG_FORMAT_RGB;
  png_alloc_size_t size = PNG_IMAGE_PNG_SIZE_MAX(description);
  std::vector<std::byte> bytes(size);
  if (png_image_write_to_memory(&description, bytes.data(), &size, 0, image.rgb.data(), 0,
                                nullptr) == 0) {
    throw OutputError(fmt::format("{}: cannot be encoded as PNG: {}", path, description.message));
  }
  bytes.resize(size);
  write_output_file(path, bytes);
}

}  // namespace sprocket::media
