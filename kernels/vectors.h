// Vectors of floats, as wide as the registers of a CPU, for what is written once for all of them.
//
// A structure here knows the instructions of its CPU and how many registers it has; it does not know what is computed.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace q3e {
namespace {

// AVX2 with FMA and F16C
struct Vector8 {
    static constexpr int LANES = 8;
    // Rows of a product that are summed in registers at once, two vectors each: 12 of 16 registers hold sums, 3 operands.
    static constexpr int ROWS = 6;
    using Floats = __m256;

    static Floats load(const float* from) { return _mm256_loadu_ps(from); }
    static void store(float* to, Floats x) { _mm256_storeu_ps(to, x); }
    static Floats all(float x) { return _mm256_set1_ps(x); }
    static Floats add(Floats x, Floats y) { return _mm256_add_ps(x, y); }
    static Floats subtract(Floats x, Floats y) { return _mm256_sub_ps(x, y); }
    static Floats multiply(Floats x, Floats y) { return _mm256_mul_ps(x, y); }
    static Floats multiply_add(Floats x, Floats y, Floats z) { return _mm256_fmadd_ps(x, y, z); }
    // `y` where one of them is NaN
    static Floats larger(Floats x, Floats y) { return _mm256_max_ps(x, y); }
    static Floats nearest_integer(Floats x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
    // 2^n for an integer -127 <= n <= 127; 0 for -127
    static Floats power_of_two(Floats n) {
        const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
        return _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23));
    }
    static Floats from_f16(const uint16_t* from) {
        return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
    }
    static float sum(Floats x) {
        __m128 y = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
        y = _mm_add_ps(y, _mm_movehl_ps(y, y));
        return _mm_cvtss_f32(_mm_add_ss(y, _mm_movehdup_ps(y)));
    }
    static float largest(Floats x) {
        __m128 y = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
        y = _mm_max_ps(y, _mm_movehl_ps(y, y));
        return _mm_cvtss_f32(_mm_max_ss(y, _mm_movehdup_ps(y)));
    }
};

#if defined(__AVX512F__)
struct Vector16 {
    static constexpr int LANES = 16;
    static constexpr int ROWS = 12;  // 24 of 32 registers hold sums
    using Floats = __m512;

    static Floats load(const float* from) { return _mm512_loadu_ps(from); }
    static void store(float* to, Floats x) { _mm512_storeu_ps(to, x); }
    static Floats all(float x) { return _mm512_set1_ps(x); }
    static Floats add(Floats x, Floats y) { return _mm512_add_ps(x, y); }
    static Floats subtract(Floats x, Floats y) { return _mm512_sub_ps(x, y); }
    static Floats multiply(Floats x, Floats y) { return _mm512_mul_ps(x, y); }
    static Floats multiply_add(Floats x, Floats y, Floats z) { return _mm512_fmadd_ps(x, y, z); }
    static Floats larger(Floats x, Floats y) { return _mm512_max_ps(x, y); }
    static Floats nearest_integer(Floats x) {
        return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    }
    static Floats power_of_two(Floats n) {
        const __m512i exponent = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
        return _mm512_castsi512_ps(_mm512_slli_epi32(exponent, 23));
    }
    static Floats from_f16(const uint16_t* from) {
        return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
    }
    static float sum(Floats x) {
        return Vector8::sum(_mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1)));
    }
    static float largest(Floats x) {
        return Vector8::largest(_mm256_max_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1)));
    }
};
#endif

}  // namespace
}  // namespace q3e
