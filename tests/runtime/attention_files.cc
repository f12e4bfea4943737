#include "tests/runtime/attention_files.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <functional>
#include <limits>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/philox.h"
#include "models/safetensors/writer.h"

namespace sprocket::testing {
namespace {

using safetensors::ElementType;

template <class T>
void append(std::vector<std::byte>& bytes, T value) {
  const auto* from = reinterpret_cast<const std::byte*>(&value);
  bytes.insert(bytes.end(), from, from + sizeof value);
}

std::vector<std::byte> encode(const InputTensor& tensor) {
  std::vector<std::byte> bytes;
  for (const double value : tensor.values) {
    if (tensor.type == ElementType::kF64) {
      append(bytes, value);
    } else if (tensor.type == ElementType::kF32) {
      append(bytes, static_cast<float>(value));
    } else if (tensor.type == ElementType::kBF16) {
      append(bytes, BFloat16(static_cast<float>(value)));
    } else {
      append(bytes, static_cast<int32_t>(value));
    }
  }
  return bytes;
}

template <class T>
std::vector<double> decode(std::span<const std::byte> data) {
  std::vector<double> values;
  for (size_t at = 0; at < data.size(); at += sizeof(T)) {
    T value;
    std::memcpy(&value, data.data() + at, sizeof value);
    if constexpr (std::is_same_v<T, BFloat16>) {
      values.push_back(static_cast<float>(value));
    } else {
      values.push_back(static_cast<double>(value));
    }
  }
  return values;
}

double dot(const double* a, const double* b, int64_t count) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += a[i] * b[i];
  return sum;
}

void add_scaled(double* to, double factor, const double* from, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] += factor * from[i];
}

}  // namespace

InputTensor random_tensor(const std::string& name, const Extents& extents, ElementType type) {
  InputTensor tensor{name, extents.shape(), {}, type};
  uint64_t seed = 0;
  for (const char c : name) seed = seed * 31 + static_cast<unsigned char>(c);
  std::vector<float> values(extents.elements());
  RandomStream(seed, 0, 0, RandomPurpose::kTest).normal(values);
  tensor.values.assign(values.begin(), values.end());
  return tensor;
}

std::string path_in_test_folder(const std::string& name) {
  // Empty: an earlier process may have had this number and left its files.
  static const std::string folder = [] {
    const std::string path =
        fmt::format("{}sprocket_attention_{}/", ::testing::TempDir(), ::getpid());
    std::filesystem::remove_all(path);
    std::filesystem::create_directories(path);
    return path;
  }();
  return folder + name;
}

std::string write_tensors(const std::string& name, const std::vector<InputTensor>& tensors) {
  const std::string path = path_in_test_folder(name);
  std::vector<std::vector<std::byte>> bytes;
  std::vector<safetensors::TensorToWrite> list;
  for (const InputTensor& tensor : tensors) bytes.push_back(encode(tensor));
  for (size_t i = 0; i < tensors.size(); ++i) {
    list.push_back({{tensors[i].name, tensors[i].type, tensors[i].shape}, bytes[i]});
  }
  safetensors::write_file(path, list);
  return path;
}

std::vector<double> values_of(const safetensors::File& file, const std::string& name) {
  const safetensors::TensorInfo& tensor = file.at(name);
  const auto data = file.data(tensor);
  if (tensor.type == ElementType::kF64) return decode<double>(data);
  if (tensor.type == ElementType::kF32) return decode<float>(data);
  if (tensor.type == ElementType::kBF16) return decode<BFloat16>(data);
  if (tensor.type == ElementType::kI32) return decode<int32_t>(data);
  SPROCKET_CHECK(tensor.type == ElementType::kI8 || tensor.type == ElementType::kBool, "{}", name);
  return decode<int8_t>(data);
}

Attention masked_attention(const Extents& x, const std::vector<double>& q,
                           const std::vector<double>& k, const std::vector<double>& v,
                           const std::vector<double>& grad_out,
                           const std::vector<double>& selection,
                           const std::vector<double>& token_block) {
  const auto blocks = static_cast<int64_t>(
      std::lround(*std::max_element(token_block.begin(), token_block.end()) + 1));
  const double scale = 1 / std::sqrt(static_cast<double>(x.d));
  Attention result;
  for (auto* tensor : {&result.out, &result.dq, &result.dk, &result.dv}) {
    tensor->resize(x.elements());
  }
  for (int64_t b = 0; b < x.b; ++b) {
    for (int64_t h = 0; h < x.h; ++h) {
      for (int64_t i = 0; i < x.l; ++i) {
        const int64_t qi = x.at(b, i, h);
        std::vector<std::pair<int64_t, double>> keys;  // offset, probability
        double largest = -std::numeric_limits<double>::infinity(), sum = 0;
        for (int64_t j = 0; j < x.l; ++j) {
          const double pair = ((b * x.h + h) * blocks + token_block[i]) * blocks + token_block[j];
          if (selection[std::lround(pair)] == 0) continue;
          keys.emplace_back(x.at(b, j, h), scale * dot(&q[qi], &k[x.at(b, j, h)], x.d));
          largest = std::max(largest, keys.back().second);
        }
        for (auto& [kj, p] : keys) sum += p = std::exp(p - largest);
        result.lse.push_back(largest + std::log(sum));
        for (auto& [kj, p] : keys) add_scaled(&result.out[qi], p /= sum, &v[kj], x.d);
        const double delta = dot(&grad_out[qi], &result.out[qi], x.d);
        for (const auto& [kj, p] : keys) {
          const double ds = scale * p * (dot(&grad_out[qi], &v[kj], x.d) - delta);
          add_scaled(&result.dv[kj], p, &grad_out[qi], x.d);
          add_scaled(&result.dq[qi], ds, &k[kj], x.d);
          add_scaled(&result.dk[kj], ds, &q[qi], x.d);
        }
      }
    }
  }
  return result;
}

}  // namespace sprocket::testing
