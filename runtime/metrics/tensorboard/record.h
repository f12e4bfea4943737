// TFRecord, the framing of event files (tensorflow.org/tutorials/load_data/tfrecord).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace sprocket::tensorboard {

// CRC-32C (Castagnoli, as in RFC 3720) of the bytes.
uint32_t crc32c(std::string_view bytes);

// crc32c as records hold it: turned right by 15 bits and shifted by a constant, because the CRC of
// a text that holds its own CRC says little.
uint32_t masked_crc32c(std::string_view bytes);

// One record, integers in little endian:
//   uint64 length, uint32 masked CRC of those eight bytes, data, uint32 masked CRC of the data.
std::string record(std::string_view data);

}  // namespace sprocket::tensorboard
