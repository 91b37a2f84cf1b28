// Keys and values of one block, as floats in the order in which the products of attention read them.
//
// A product reads panels: a few columns, row after row without a gap. Here a column is a key, or a number of a value.
// Knows how numbers are stored; not what is computed with them.
#pragma once

#include <cstring>

#include "blocks.h"
#include "visibility.h"

namespace q3e {
namespace {

// Eight numbers of a row, from number `at` on, a multiple of 8.
template <Type TYPE>
inline __m256 load8(const uint8_t* row, int64_t at) {
    if constexpr (TYPE == Type::F32) {
        return _mm256_loadu_ps(reinterpret_cast<const float*>(row) + at);
    } else if constexpr (TYPE == Type::F16) {
        return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(row + 2 * at)));
    } else if constexpr (TYPE == Type::BF16) {
        const __m128i upper = _mm_loadu_si128(reinterpret_cast<const __m128i*>(row + 2 * at));
        return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(upper), 16));
    } else {
        const BlockQ80& block = reinterpret_cast<const BlockQ80*>(row)[at / 32];
        const __m128i codes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(block.codes + at % 32));
        return _mm256_mul_ps(_mm256_set1_ps(_cvtsh_ss(block.d)), _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes)));
    }
}

inline void transpose8(__m256 (&rows)[8]) {
    __m256 pairs[8], fours[8];
    for (int i = 0; i < 8; i += 2) {
        pairs[i] = _mm256_unpacklo_ps(rows[i], rows[i + 1]);
        pairs[i + 1] = _mm256_unpackhi_ps(rows[i], rows[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        for (int j = 0; j < 2; ++j) {
            fours[i + 2 * j] = _mm256_shuffle_ps(pairs[i + j], pairs[i + j + 2], 0x44);
            fours[i + 2 * j + 1] = _mm256_shuffle_ps(pairs[i + j], pairs[i + j + 2], 0xee);
        }
    }
    for (int i = 0; i < 4; ++i) {
        rows[i] = _mm256_permute2f128_ps(fours[i], fours[i + 4], 0x20);
        rows[i + 4] = _mm256_permute2f128_ps(fours[i], fours[i + 4], 0x31);
    }
}

// Keys [first, last) of a block, multiples of 8, to panels of COLUMNS keys: [key / COLUMNS][number][key % COLUMNS].
// From `n_keys` on there are none, and zeros are written.
template <Type TYPE, int COLUMNS>
void read_keys(const uint8_t* keys, size_t stride, int64_t width, int first, int last, int64_t n_keys, float* panels) {
    for (int key = first; key < last; key += 8) {
        float* panel = panels + key / COLUMNS * width * COLUMNS + key % COLUMNS;
        for (int64_t at = 0; at < width; at += 8) {
            __m256 rows[8];
            for (int i = 0; i < 8; ++i) {
                rows[i] = key + i < n_keys ? load8<TYPE>(keys + (key + i) * stride, at) : _mm256_setzero_ps();
            }
            transpose8(rows);
            for (int i = 0; i < 8; ++i) _mm256_storeu_ps(panel + (at + i) * COLUMNS, rows[i]);
        }
    }
}

// Values [first, last) of a block to panels of COLUMNS numbers: [number / COLUMNS][key][number % COLUMNS], BLOCK keys
// each. From `n_keys` on there are none, and zeros are written.
template <Type TYPE, int COLUMNS>
void read_values(const uint8_t* values, size_t stride, int64_t width, int first, int last, int64_t n_keys, float* panels) {
    for (int key = first; key < last; key += 8) {
        for (int64_t at = 0; at < width; at += 8) {
            float* to = panels + (at / COLUMNS * BLOCK + key) * COLUMNS + at % COLUMNS;
            for (int i = 0; i < 8; ++i) {
                const bool is_there = key + i < n_keys;
                const __m256 numbers = is_there ? load8<TYPE>(values + (key + i) * stride, at) : _mm256_setzero_ps();
                _mm256_storeu_ps(to + i * COLUMNS, numbers);
            }
        }
    }
}

}  // namespace
}  // namespace q3e
