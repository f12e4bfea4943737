// A text embedder without weights: every word is a fixed random vector.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace sprocket::text {

// Stored with data; changes whenever the embedding of any caption does.
inline constexpr int kHashedTextVersion = 1;

// The words of a caption: runs of ASCII letters, digits and non-ASCII bytes, ASCII lower-cased;
// everything else separates.
std::vector<std::string> words_of(std::string_view caption);

// [tokens, dim]: row i is a standard normal vector that depends on word i alone (Philox keyed by
// the word's XXH3 hash); rows after the last word are zero, words past `tokens` are dropped. An
// empty caption gives zeros. tokens, dim >= 1.
std::vector<float> embed_hashed(std::string_view caption, int64_t tokens, int64_t dim);

}  // namespace sprocket::text
