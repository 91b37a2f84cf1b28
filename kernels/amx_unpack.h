// Weights of each type as bfloat16 numbers, rounded to the nearest.
//
// Knows pieces of a row: a block of quantized weights, or 32 plain numbers. `unpack` writes SIZE numbers.
#pragma once

#include <immintrin.h>

#include <cstring>

#include "amx_tiles.h"
#include "blocks.h"
#include "operation.h"

namespace q3e {
namespace {

inline __m256i load_bytes(const void* from) { return _mm256_loadu_si256(static_cast<const __m256i*>(from)); }

inline void store_numbers(uint16_t* to, __m512i numbers) { _mm512_storeu_si512(to, numbers); }

// d * scale of the 8 groups of a Q4_K or Q5_K block, then dmin * min of the 8. ggml packs 6 bits of each into 12 bytes:
// bytes 0 to 3 scales 0 to 3, bytes 4 to 7 mins 0 to 3, bytes 8 to 11 the low halves of scales and mins 4 to 7, and
// the free upper bits of bytes 0 to 7 what is missing of those.
inline void group_factors(const uint8_t* packed, uint16_t d, uint16_t dmin, float* factors) {
    uint32_t word[3];
    std::memcpy(word, packed, sizeof word);
    const __m128i codes = _mm_setr_epi32(
        static_cast<int>(word[0] & 0x3f3f3f3f),
        static_cast<int>((word[2] & 0x0f0f0f0f) | (word[0] >> 2 & 0x30303030)),
        static_cast<int>(word[1] & 0x3f3f3f3f),
        static_cast<int>((word[2] >> 4 & 0x0f0f0f0f) | (word[1] >> 2 & 0x30303030)));
    const __m512 unit = _mm512_mask_blend_ps(0xff00, _mm512_set1_ps(_cvtsh_ss(d)), _mm512_set1_ps(_cvtsh_ss(dmin)));
    _mm512_storeu_ps(factors, _mm512_mul_ps(unit, _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(codes))));
}

// Factors are broadcast from memory, which any load does; GCC would keep them in a register and permute it for each,
// on the one port that all permutations of an Intel CPU share.
inline void keep_in_memory(float (&factors)[16]) { __asm__("" : "+m"(factors)); }

inline __m512 counting_from(float first) {
    return _mm512_add_ps(_mm512_set1_ps(first),
                         _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
}

inline __m512 values(__m512 codes, float scale, float min) {
    return _mm512_fmsub_ps(codes, _mm512_set1_ps(scale), _mm512_set1_ps(min));
}

// A group of 32 weights has 16 values at most, or 32 with 5 bits. They are computed once and then looked up, two groups
// of 16 in one table of 32: a permutation reads the lowest five bits of each code.
struct UnpackQ4K {
    static constexpr int SIZE = SUPER, BYTES = sizeof(BlockQ4K);

    static void unpack(const uint8_t* piece, uint16_t* out) {
        const auto* block = reinterpret_cast<const BlockQ4K*>(piece);
        alignas(64) float factors[16];
        group_factors(block->scales, block->d, block->dmin, factors);
        keep_in_memory(factors);
        const __m512 codes = counting_from(0);
        for (int group = 0; group < 8; group += 2, out += 64) {
            const float *scale = factors + group, *min = factors + 8 + group;
            const __m512i table = rounded(values(codes, scale[0], min[0]), values(codes, scale[1], min[1]));
            const __m512i pairs = _mm512_cvtepu8_epi16(load_bytes(block->low + 16 * group));
            const __m512i low = _mm512_and_si512(pairs, _mm512_set1_epi16(0x0f));
            const __m512i high = _mm512_srli_epi16(_mm512_or_si512(pairs, _mm512_set1_epi16(0x100)), 4);
            store_numbers(out, _mm512_permutexvar_epi16(low, table));
            store_numbers(out + 32, _mm512_permutexvar_epi16(high, table));
        }
    }
};

struct UnpackQ5K {
    static constexpr int SIZE = SUPER, BYTES = sizeof(BlockQ5K);

    static void unpack(const uint8_t* piece, uint16_t* out) {
        const auto* block = reinterpret_cast<const BlockQ5K*>(piece);
        alignas(64) float factors[16];
        group_factors(block->scales, block->d, block->dmin, factors);
        keep_in_memory(factors);
        const __m512 codes = counting_from(0), more_codes = counting_from(16);
        const __m512i low_bits = _mm512_set1_epi16(0x0f);
        // The fifth bit of the group is in bit 4.
        __m512i fifth = _mm512_slli_epi16(_mm512_cvtepu8_epi16(load_bytes(block->high)), 4);
        for (int group = 0; group < 8; ++group, out += 32) {
            const float scale = factors[group], min = factors[8 + group];
            const __m512i table = rounded(values(codes, scale, min), values(more_codes, scale, min));
            const __m512i pairs = _mm512_cvtepu8_epi16(load_bytes(block->low + 32 * (group / 2)));
            const __m512i low = group % 2 == 0 ? pairs : _mm512_srli_epi16(pairs, 4);
            // low_bits ? low : fifth, bit by bit; the bits above the fifth are not read
            const __m512i code = _mm512_ternarylogic_epi32(low_bits, low, fifth, 0xca);
            store_numbers(out, _mm512_permutexvar_epi16(code, table));
            fifth = _mm512_srli_epi16(fifth, 1);
        }
    }
};

// 32 signed codes times the scales of their halves
inline __m512i scaled(__m256i codes, float first, float second) {
    const __m512 low = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm256_castsi256_si128(codes)));
    const __m512 high = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm256_extracti128_si256(codes, 1)));
    return rounded(_mm512_mul_ps(low, _mm512_set1_ps(first)), _mm512_mul_ps(high, _mm512_set1_ps(second)));
}

struct UnpackQ6K {
    static constexpr int SIZE = SUPER, BYTES = sizeof(BlockQ6K);

    static void unpack(const uint8_t* piece, uint16_t* out) {
        const auto* block = reinterpret_cast<const BlockQ6K*>(piece);
        alignas(64) float scales[16];
        const __m128i whole = _mm_loadu_si128(reinterpret_cast<const __m128i*>(block->scales));
        _mm512_storeu_ps(scales, _mm512_mul_ps(_mm512_set1_ps(_cvtsh_ss(block->d)),
                                               _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(whole))));
        keep_in_memory(scales);
        const __m256i low_bits = _mm256_set1_epi8(0x0f), high_bits = _mm256_set1_epi8(0x30);
        for (int half = 0; half < 2; ++half) {
            const __m256i high = load_bytes(block->high + 32 * half);
            for (int group = 0; group < 4; ++group, out += 32) {  // the low bits of 2 and 3 lie above those of 0 and 1
                const __m256i low = load_bytes(block->low + 64 * half + 32 * (group % 2));
                const __m256i below = group < 2 ? low : _mm256_srli_epi16(low, 4);
                const __m256i above = group < 2 ? _mm256_slli_epi16(high, 4 - 2 * group)
                                                : _mm256_srli_epi16(high, 2 * group - 4);
                const __m256i code = _mm256_or_si256(_mm256_and_si256(below, low_bits),
                                                     _mm256_and_si256(above, high_bits));
                const float* scale = scales + 8 * half + 2 * group;
                store_numbers(out, scaled(_mm256_sub_epi8(code, _mm256_set1_epi8(32)), scale[0], scale[1]));
            }
        }
    }
};

struct UnpackQ80 {
    static constexpr int SIZE = 32, BYTES = sizeof(BlockQ80);

    static void unpack(const uint8_t* piece, uint16_t* out) {
        const auto* block = reinterpret_cast<const BlockQ80*>(piece);
        const float d = _cvtsh_ss(block->d);
        store_numbers(out, scaled(load_bytes(block->codes), d, d));
    }
};

struct UnpackBF16 {
    static constexpr int SIZE = 32, BYTES = 64;

    static void unpack(const uint8_t* piece, uint16_t* out) { std::memcpy(out, piece, BYTES); }
};

}  // namespace
}  // namespace q3e
