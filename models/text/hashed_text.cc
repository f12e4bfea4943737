#include "models/text/hashed_text.h"

#include <xxhash.h>

#include <algorithm>

#include "base/error.h"
#include "base/philox.h"

namespace sprocket::text {

std::vector<std::string> words_of(std::string_view caption) {
  std::vector<std::string> words;
  bool inside = false;
  for (const char letter : caption) {
    const auto byte = static_cast<unsigned char>(letter);
    const bool upper = byte >= 'A' && byte <= 'Z';
    const bool part =
        upper || (byte >= 'a' && byte <= 'z') || (byte >= '0' && byte <= '9') || byte >= 0x80;
    if (part && !inside) words.emplace_back();
    if (part) words.back() += upper ? static_cast<char>(byte - 'A' + 'a') : letter;
    inside = part;
  }
  return words;
}

std::vector<float> embed_hashed(std::string_view caption, int64_t tokens, int64_t dim) {
  SPROCKET_CHECK(tokens >= 1 && dim >= 1, "{} tokens of {}", tokens, dim);
  std::vector<float> embedding(static_cast<size_t>(tokens * dim), 0.0f);
  const std::vector<std::string> words = words_of(caption);
  const int64_t used = std::min<int64_t>(tokens, static_cast<int64_t>(words.size()));
  for (int64_t i = 0; i < used; ++i) {
    const uint64_t hash = XXH3_64bits(words[i].data(), words[i].size());
    RandomStream(hash, 0, 0, RandomPurpose::kInitialisation)
        .normal(std::span(embedding).subspan(i * dim, dim));
  }
  return embedding;
}

}  // namespace sprocket::text
