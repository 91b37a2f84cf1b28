// Tokens rounded to 8 bits, in the layout of the micro kernels, with the sums that these need. AVX2.
//
// The rounding is ggml's own (quantize_row_q8_K and quantize_row_q8_0 in ggml-quants.c), except that a scale stays a
// float where Q8_0 rounds it to float16. Nothing here knows weights.
#pragma once

#include <immintrin.h>

#include "tiles.h"

namespace q3e {
namespace {

inline float largest(const float* numbers, int n) {
    __m256 found = _mm256_setzero_ps();
    for (int i = 0; i < n; i += 8) {
        found = _mm256_max_ps(found, _mm256_andnot_ps(_mm256_set1_ps(-0.0f), _mm256_loadu_ps(numbers + i)));
    }
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(found), _mm256_extractf128_ps(found, 1));
    four = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
}

// 32 numbers times `factor`, rounded to bytes.
inline __m256i rounded(const float* numbers, float factor) {
    __m256i part[4];
    for (int i = 0; i < 4; ++i) {
        part[i] = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(numbers + 8 * i), _mm256_set1_ps(factor)));
    }
    const __m256i mixed = _mm256_packs_epi16(_mm256_packs_epi32(part[0], part[1]), _mm256_packs_epi32(part[2], part[3]));
    return _mm256_permutevar8x32_epi32(mixed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

// Per 16 bytes a word of two 16-bit sums: of the first and of the second two bytes of each quad.
inline __m256i sums_of_16(__m256i bytes) {
    __m256i sums = _mm256_maddubs_epi16(_mm256_set1_epi8(1), bytes);
    sums = _mm256_add_epi16(sums, _mm256_shuffle_epi32(sums, 0x4e));
    return _mm256_add_epi16(sums, _mm256_shuffle_epi32(sums, 0xb1));
}

// One token's part of a block. `halves` becomes sums_of_16 of all its bytes.
template <class Format, int TOKENS>
inline void round_token(const float* numbers, Numbers<Format, TOKENS>& block, int t, int32_t* halves) {
    constexpr int GROUP = Format::TOKEN_GROUP;
    for (int begin = 0; begin < SUPER; begin += GROUP) {
        const float most = largest(numbers + begin, GROUP), factor = most > 0 ? 127.0f / most : 0.0f;
        block.scales[begin / GROUP][t] = most > 0 ? 1.0f / factor : 0.0f;
        for (int k = begin; k < begin + GROUP; k += 32) {
            const __m256i bytes = rounded(numbers + k, factor), sums = sums_of_16(bytes);
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(block.quads[t] + k / 4), bytes);
            halves[k / 16] = _mm256_cvtsi256_si32(sums);
            halves[k / 16 + 1] = _mm256_extract_epi32(sums, 4);
        }
    }
}

inline int32_t low(int32_t halves) { return static_cast<int16_t>(halves); }
inline int32_t high(int32_t halves) { return halves >> 16; }
inline int32_t join(int32_t low, int32_t high) { return (low & 0xffff) | high * 65536; }

// The sum of this many 16 bytes in succession.
inline int32_t sum_of(const int32_t* halves, int n) {
    int32_t sum = 0;
    for (int i = 0; i < n; ++i) sum += low(halves[i]) + high(halves[i]);
    return sum;
}

// What Numbers::sums has at this place. HALVES: the micro kernel adds 16-bit halves, so that each starts by itself.
template <class Format, bool HALVES> inline int32_t sum_at(const int32_t* halves, int place) {
    if constexpr (Format::MINS) {
        static_assert(Format::GROUP == 32);
        return join(sum_of(halves + 4 * place, 2), sum_of(halves + 4 * place + 2, 2));
    } else if constexpr (HALVES) {
        static_assert(Format::GROUP == 16);
        return join(-Format::OFFSET * low(halves[place]), -Format::OFFSET * high(halves[place]));
    } else {
        constexpr int N = Format::GROUP / 16;
        return -Format::OFFSET * sum_of(halves + N * place, N);
    }
}

// All blocks of a tile of up to TOKENS tokens, the first of which begins at `input`; those that are missing become 0.
template <class Format, int TOKENS, bool HALVES>
void round_tile(const uint8_t* input, size_t stride, int n_tokens, int n_blocks, Numbers<Format, TOKENS>* tile) {
    if (n_tokens < TOKENS) __builtin_memset(tile, 0, n_blocks * sizeof *tile);
    for (int t = 0; t < n_tokens; ++t) {
        const float* numbers = reinterpret_cast<const float*>(input + t * stride);
        for (int b = 0; b < n_blocks; ++b) {
            int32_t halves[SUPER / 16];
            round_token(numbers + SUPER * b, tile[b], t, halves);
            constexpr int SUMS = sizeof tile->sums / sizeof tile->sums[0];
            for (int i = 0; i < SUMS; ++i) tile[b].sums[i][t] = sum_at<Format, HALVES>(halves, i);
        }
    }
}

}  // namespace
}  // namespace q3e
