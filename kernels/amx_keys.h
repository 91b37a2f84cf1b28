// Keys and values of one block as tiles of bfloat16, in the order in which the products of attention read them: tiles
// of their upper parts, and `lower` bytes behind those the tiles of their lower parts.
//
// Knows how numbers are stored; not what is computed with them.
#pragma once

#include "amx_tiles.h"
#include "blocks.h"
#include "operation.h"
#include "visibility.h"

namespace q3e {
namespace {

static_assert(CELL == SIDE && BLOCK % STEP == 0);
constexpr int BLOCK_STEPS = BLOCK / STEP;

// 16 numbers of a row, from number `at` on, a multiple of 16
template <Type TYPE>
inline __m512 load16(const uint8_t* row, int64_t at) {
    if constexpr (TYPE == Type::F32) {
        return _mm512_loadu_ps(row + 4 * at);
    } else if constexpr (TYPE == Type::F16) {
        return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(row + 2 * at)));
    } else if constexpr (TYPE == Type::BF16) {
        const __m256i upper = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row + 2 * at));
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(upper), 16));
    } else {
        const BlockQ80& block = reinterpret_cast<const BlockQ80*>(row)[at / 32];
        const __m128i codes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(block.codes + at % 32));
        return _mm512_mul_ps(_mm512_set1_ps(_cvtsh_ss(block.d)), _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(codes)));
    }
}

// The keys of a range of cells as columns: [cell][step along the width]. From `n_keys` on there are none, and zeros are
// written.
template <Type TYPE>
void read_keys(const uint8_t* keys, size_t stride, int64_t width, Range cells, int64_t n_keys, uint8_t* tiles,
               int64_t lower) {
    alignas(64) uint16_t upper_rows[SIDE][STEP], lower_rows[SIDE][STEP];
    for (int cell = cells.first; cell < cells.last; ++cell) {
        for (int64_t at = 0; at < width; at += STEP) {
            for (int i = 0; i < SIDE; ++i) {
                const int64_t key = cell * CELL + i;
                const uint8_t* row = keys + key * stride;
                const Parts parts = key < n_keys ? in_parts(load16<TYPE>(row, at), load16<TYPE>(row, at + SIDE))
                                                 : Parts{_mm512_setzero_si512(), _mm512_setzero_si512()};
                _mm512_store_si512(upper_rows[i], parts.upper);
                _mm512_store_si512(lower_rows[i], parts.lower);
            }
            uint8_t* tile = tiles + (cell * width + at) / STEP * TILE;
            store_as_columns(upper_rows[0], STEP, tile);
            store_as_columns(lower_rows[0], STEP, tile + lower);
        }
    }
}

// From the numbers of two rows, 16 of each, to pairs of one number of each
alignas(64) constexpr uint16_t IN_PAIRS[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                               8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};

// The values of a range of cells, a whole number of steps, with keys along the depth: [16 numbers of the width][step].
// From `n_keys` on there are none, and zeros are written.
template <Type TYPE>
void read_values(const uint8_t* values, size_t stride, int64_t width, Range cells, int64_t n_keys, uint8_t* tiles,
                 int64_t lower) {
    const __m512i in_pairs = _mm512_load_si512(IN_PAIRS);
    for (int key = cells.first * CELL; key < cells.last * CELL; key += 2) {
        const uint8_t *first = values + key * stride, *second = first + stride;
        uint8_t* line = tiles + key / STEP * TILE + key % STEP / 2 * 64;
        for (int64_t at = 0; at < width; at += SIDE, line += BLOCK_STEPS * TILE) {
            const __m512 zero = _mm512_setzero_ps();
            const Parts parts = in_parts(key < n_keys ? load16<TYPE>(first, at) : zero,
                                         key + 1 < n_keys ? load16<TYPE>(second, at) : zero);
            _mm512_store_si512(line, _mm512_permutexvar_epi16(in_pairs, parts.upper));
            _mm512_store_si512(line + lower, _mm512_permutexvar_epi16(in_pairs, parts.lower));
        }
    }
}

}  // namespace
}  // namespace q3e
