// The formats of numbers, written out in plain C++, and random numbers that are the same on every machine.
//
// Nothing here is fast, and nothing is shared with the kernels: an error there must not repeat itself here.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace q3e::check {

inline double from_f16(uint16_t bits) {
    const int exponent = bits >> 10 & 31, fraction = bits & 1023;
    const double sign = bits >> 15 ? -1 : 1;
    if (exponent == 0) return sign * std::ldexp(fraction, -24);
    if (exponent == 31) return fraction ? std::nan("") : sign * INFINITY;
    return sign * std::ldexp(1024 + fraction, exponent - 25);
}

inline double from_bf16(uint16_t bits) {
    const uint32_t wide = static_cast<uint32_t>(bits) << 16;
    float number;
    std::memcpy(&number, &wide, sizeof number);
    return static_cast<double>(number);
}

// The nearest float16; among two as near, the even one.
inline uint16_t to_f16(double number) {
    const uint16_t sign = std::signbit(number) ? 0x8000 : 0;
    const double size = std::fabs(number);
    if (size >= 65520) return static_cast<uint16_t>(sign | 0x7c00);
    if (size < std::ldexp(1, -14)) return static_cast<uint16_t>(sign | static_cast<int>(std::nearbyint(std::ldexp(size, 24))));
    int exponent;
    const double half = std::frexp(size, &exponent);  // in [0.5, 1)
    // A fraction that rounds up to 1,024 carries into the exponent, as it must.
    return static_cast<uint16_t>(sign | (((exponent + 14) << 10) + static_cast<int>(std::nearbyint(half * 2048)) - 1024));
}

inline uint16_t to_bf16(double number) {
    const float narrow = static_cast<float>(number);
    uint32_t bits;
    std::memcpy(&bits, &narrow, sizeof bits);
    return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// splitmix64: https://prng.di.unimi.it/splitmix64.c (public domain)
class Random {
  public:
    explicit Random(uint64_t seed) : state_(seed) {}

    uint64_t bits() {
        uint64_t z = state_ += 0x9e3779b97f4a7c15;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
        z = (z ^ z >> 27) * 0x94d049bb133111eb;
        return z ^ z >> 31;
    }

    // From `low` to `high`, both of them included
    int64_t between(int64_t low, int64_t high) { return low + static_cast<int64_t>(bits() % static_cast<uint64_t>(high - low + 1)); }

    double uniform() { return std::ldexp(static_cast<double>(bits() >> 11), -53); }  // [0, 1)

    // Near to a normal number of mean 0 and deviation 1: twelve uniform ones would do; four, with their weight, do here.
    double normal() { return (uniform() + uniform() + uniform() + uniform() - 2) * 1.7320508075688772; }

  private:
    uint64_t state_;
};

}  // namespace q3e::check
