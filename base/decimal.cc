#include "base/decimal.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/error.h"

namespace sprocket {
namespace {

using Wide = __int128;
constexpr int kLargestExponent = 1000;  // far beyond any legal one; keeps the sums of places small

Wide power_of_ten(int exponent) {
  Wide result = 1;
  for (int i = 0; i < exponent; ++i) result *= 10;
  return result;
}

int64_t narrow(Wide value) {
  if (value > INT64_MAX || value < -INT64_MAX) {
    throw ConfigError("the result of decimal arithmetic needs more than 18 digits");
  }
  return static_cast<int64_t>(value);
}

}  // namespace

Decimal Decimal::ratio(int64_t numerator, int places) {
  SPROCKET_CHECK(places >= 0 && places <= 18, "places is {}", places);
  while (places > 0 && numerator % 10 == 0) {
    numerator /= 10;
    --places;
  }
  return Decimal(numerator, places);
}

Decimal Decimal::parse(std::string_view text) {
  const auto fail = [&](const char* why) -> ConfigError {
    return ConfigError(fmt::format("expected a decimal number, found \"{}\": {}", text, why));
  };
  Wide numerator = 0;
  int places = 0, digits = 0;
  size_t i = 0;
  bool negative = false, after_point = false;
  if (i < text.size() && (text[i] == '-' || text[i] == '+')) negative = text[i++] == '-';
  for (; i < text.size() && text[i] != 'e' && text[i] != 'E'; ++i) {
    if (text[i] == '.' && !after_point) {
      after_point = true;
      continue;
    }
    if (text[i] < '0' || text[i] > '9') throw fail("not a digit");
    numerator = numerator * 10 + (text[i] - '0');
    ++digits;
    if (after_point) ++places;
    if (numerator > power_of_ten(18)) throw fail("more than 18 digits");
  }
  if (digits == 0) throw fail("no digits");
  if (i < text.size()) {
    const std::string_view sign_and_digits = text.substr(i + 1);
    const bool plus = sign_and_digits.starts_with('+');
    if (plus && sign_and_digits.starts_with("+-")) throw fail("bad exponent");
    int exponent = 0;
    const char* end_of_text = text.data() + text.size();
    const auto [end, error] =
        std::from_chars(sign_and_digits.data() + (plus ? 1 : 0), end_of_text, exponent);
    if (error != std::errc() || end != end_of_text) throw fail("bad exponent");
    if (exponent < -kLargestExponent || exponent > kLargestExponent) {
      throw fail("exponent out of range");
    }
    places -= exponent;
  }
  if (numerator == 0) places = 0;
  while (places > 0 && numerator % 10 == 0) {
    numerator /= 10;
    --places;
  }
  if (places > 18) throw fail("more than 18 decimal places");
  if (places < -18) throw fail("more than 18 digits");
  if (places < 0) {
    numerator *= power_of_ten(-places);
    places = 0;
  }
  if (numerator > power_of_ten(18)) throw fail("more than 18 digits");
  return ratio(narrow(negative ? -numerator : numerator), places);
}

Decimal Decimal::from_double(double value) {
  if (!std::isfinite(value))
    throw ConfigError(fmt::format("expected a finite number, found {}", value));
  char text[64];
  const auto [end, error] = std::to_chars(text, text + sizeof text, value);
  SPROCKET_CHECK(error == std::errc(), "to_chars failed for {}", value);
  return parse(std::string_view(text, end - text));
}

double Decimal::value() const {
  const std::string text = to_string();  // read back, because a quotient would round twice
  double result = 0;
  std::from_chars(text.data(), text.data() + text.size(), result);
  return result;
}

std::string Decimal::to_string() const {
  if (places_ == 0) return std::to_string(numerator_);
  const int64_t scale = static_cast<int64_t>(power_of_ten(places_));
  const int64_t magnitude = numerator_ < 0 ? -numerator_ : numerator_;
  return fmt::format("{}{}.{:0{}}", numerator_ < 0 ? "-" : "", magnitude / scale, magnitude % scale,
                     places_);
}

int64_t Decimal::floor_times(int64_t count) const {
  const Wide scale = power_of_ten(places_), product = static_cast<Wide>(numerator_) * count;
  Wide quotient = product / scale;
  if (product < 0 && quotient * scale != product) --quotient;
  return narrow(quotient);
}

int64_t Decimal::ceil_times(int64_t count) const {
  const Wide scale = power_of_ten(places_), product = static_cast<Wide>(numerator_) * count;
  Wide quotient = product / scale;
  if (product > 0 && quotient * scale != product) ++quotient;
  return narrow(quotient);
}

Decimal Decimal::operator+(const Decimal& other) const {
  const int places = std::max(places_, other.places_);
  return ratio(narrow(numerator_ * power_of_ten(places - places_) +
                      other.numerator_ * power_of_ten(places - other.places_)),
               places);
}

Decimal Decimal::operator-(const Decimal& other) const {
  return *this + Decimal(-other.numerator_, other.places_);
}

Decimal Decimal::operator*(int64_t factor) const {
  return ratio(narrow(static_cast<Wide>(numerator_) * factor), places_);
}

bool operator==(const Decimal& a, const Decimal& b) {
  return a.numerator_ == b.numerator_ && a.places_ == b.places_;
}

bool operator<(const Decimal& a, const Decimal& b) {
  return a.numerator_ * power_of_ten(b.places_) < b.numerator_ * power_of_ten(a.places_);
}

}  // namespace sprocket
