// Fractions that users write in decimal ("sparsity: 0.95") and that counts are derived from.
//
// In binary, ceil((1 - 0.95) * 20) is 2; the user means 1. A Decimal holds the number exactly as
// written, and counts come from integer arithmetic.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace sprocket {

class Decimal {
 public:
  Decimal() = default;  // 0

  // The shortest decimal that reads back as `value`: what the user typed, up to 17 digits.
  // Throws ConfigError for a value that is not finite or needs more than 18 decimal places.
  static Decimal from_double(double value);
  // Parses "0.95", "1", ".5", "1e-2". Throws ConfigError naming the text.
  static Decimal parse(std::string_view text);
  // numerator / 10^places, exactly. places in 0..18.
  static Decimal ratio(int64_t numerator, int places);

  // The nearest double: from_double(x).value() == x.
  double value() const;
  std::string to_string() const;

  // floor and ceil of this * count, exactly. count >= 0. Throws ConfigError beyond 64 bits.
  int64_t floor_times(int64_t count) const;
  int64_t ceil_times(int64_t count) const;

  // Arithmetic is exact. Throws ConfigError when a result needs more than 18 digits.
  Decimal operator-(const Decimal& other) const;
  Decimal operator+(const Decimal& other) const;
  Decimal operator*(int64_t factor) const;
  friend bool operator==(const Decimal& a, const Decimal& b);
  friend bool operator<(const Decimal& a, const Decimal& b);

 private:
  Decimal(int64_t numerator, int places) : numerator_(numerator), places_(places) {}
  int64_t numerator_ = 0;
  int places_ = 0;
};

}  // namespace sprocket
