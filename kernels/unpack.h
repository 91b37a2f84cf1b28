// Quantized weights of 8 rows as the micro kernels read them: a byte for each code, a word of four in the lane of its
// row, scales and mins as vectors over rows. AVX2, which every variant has.
//
// The raw bytes are transposed before they are taken apart: a byte holds two codes or more, so that is half the work.
#pragma once

#include <immintrin.h>

#include "tiles.h"

namespace q3e {
namespace {

inline __m256i load(const void* from) { return _mm256_loadu_si256(static_cast<const __m256i*>(from)); }

template <class Lane> inline void store(Lane* to, __m256i lanes) {
    static_assert(sizeof(Lane) == 4);
    _mm256_store_si256(reinterpret_cast<__m256i*>(to), lanes);
}

// 32 bytes of each of 8 rows: row r at rows[r] + offset. columns[i] has word i of every row.
inline void transpose(const uint8_t* const* rows, size_t offset, __m256i* columns) {
    __m256i two[8], four[8];
    for (int r = 0; r < 8; r += 2) {
        const __m256i a = load(rows[r] + offset), b = load(rows[r + 1] + offset);
        two[r] = _mm256_unpacklo_epi32(a, b), two[r + 1] = _mm256_unpackhi_epi32(a, b);
    }
    for (int r = 0; r < 8; r += 4) {
        for (int i = 0; i < 2; ++i) {
            four[r + 2 * i] = _mm256_unpacklo_epi64(two[r + i], two[r + i + 2]);
            four[r + 2 * i + 1] = _mm256_unpackhi_epi64(two[r + i], two[r + i + 2]);
        }
    }
    for (int i = 0; i < 4; ++i) {
        columns[i] = _mm256_permute2x128_si256(four[i], four[i + 4], 0x20);
        columns[i + 4] = _mm256_permute2x128_si256(four[i], four[i + 4], 0x31);
    }
}

// 16 bytes of each of 8 rows.
inline void transpose_half(const uint8_t* const* rows, size_t offset, __m256i* columns) {
    __m256i row[4], two[4];
    for (int r = 0; r < 4; ++r) {
        row[r] = _mm256_loadu2_m128i(reinterpret_cast<const __m128i*>(rows[r + 4] + offset),
                                     reinterpret_cast<const __m128i*>(rows[r] + offset));
    }
    for (int r = 0; r < 4; r += 2) {
        two[r] = _mm256_unpacklo_epi32(row[r], row[r + 1]), two[r + 1] = _mm256_unpackhi_epi32(row[r], row[r + 1]);
    }
    for (int i = 0; i < 2; ++i) {
        columns[2 * i] = _mm256_unpacklo_epi64(two[i], two[i + 2]);
        columns[2 * i + 1] = _mm256_unpackhi_epi64(two[i], two[i + 2]);
    }
}

// The float16 in the low half of each word.
inline __m256 half_to_float(__m256i words) {
    const __m256i low = _mm256_and_si256(words, _mm256_set1_epi32(0xffff));
    const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(low, low), 0xd8);
    return _mm256_cvtph_ps(_mm256_castsi256_si128(packed));
}

inline __m256 halves_at(const uint8_t* const* rows, size_t offset) {
    alignas(32) uint16_t half[8];
    for (int r = 0; r < 8; ++r) __builtin_memcpy(&half[r], rows[r] + offset, 2);
    return _mm256_cvtph_ps(_mm_load_si128(reinterpret_cast<const __m128i*>(half)));
}

inline __m256i bits(__m256i words, int shift, int mask) {
    return _mm256_and_si256(_mm256_srli_epi16(words, shift), _mm256_set1_epi8(static_cast<char>(mask)));
}

// Bytes of each word moved within it: the four numbers in `order`, the lowest first; 0x80 gives a zero.
inline __m256i moved(__m256i words, uint32_t order) {
    const __m256i lanes = _mm256_setr_epi32(0, 0x04040404, 0x08080808, 0x0c0c0c0c, 0, 0x04040404, 0x08080808, 0x0c0c0c0c);
    return _mm256_shuffle_epi8(words, _mm256_add_epi32(_mm256_set1_epi32(static_cast<int>(order)), lanes));
}

// The signed byte `place` of each word, as both 16-bit halves of a word.
inline __m256i twice(__m256i bytes, uint32_t place) {
    return _mm256_srai_epi16(moved(bytes, 0x00800080 | place << 8 | place << 24), 8);
}

// The signed byte `place` of each word as a scale; `d` is its other part.
inline void put_scale(int32_t* to, __m256i bytes, int place, __m256) { store(to, twice(bytes, place)); }

inline void put_scale(float* to, __m256i bytes, int place, __m256 d) {
    const __m256i one = _mm256_srai_epi32(_mm256_slli_epi32(bytes, 24 - 8 * place), 24);
    _mm256_store_ps(to, _mm256_mul_ps(d, _mm256_cvtepi32_ps(one)));
}

// d, dmin, 8 scales and 8 mins of 6 bits: the first 16 bytes of a block of Q4_K or Q5_K.
template <class Strip> inline void unpack_scales_and_mins(const uint8_t* const* rows, Strip& strip, int lane) {
    __m256i head[4];
    transpose_half(rows, 0, head);
    const __m256 d = half_to_float(head[0]);
    _mm256_store_ps(strip.d + lane, d);
    _mm256_store_ps(strip.dmin + lane, half_to_float(_mm256_srli_epi32(head[0], 16)));
    const auto joined = [](__m256i low, __m256i high) { return _mm256_or_si256(low, _mm256_slli_epi16(high, 4)); };
    const __m256i scales[2] = {bits(head[1], 0, 0x3f), joined(bits(head[3], 0, 0x0f), bits(head[1], 6, 0x03))};
    const __m256i mins[2] = {bits(head[2], 0, 0x3f), joined(bits(head[3], 4, 0x0f), bits(head[2], 6, 0x03))};
    for (int g = 0; g < 8; ++g) put_scale(strip.scales[g] + lane, scales[g / 4], g % 4, d);
    for (int i = 0; i < 4; ++i) store(strip.mins[i] + lane, moved(mins[i / 2], i % 2 ? 0x80038002 : 0x80018000));
}

template <class Strip> void unpack(Format<Type::Q4_K>, const uint8_t* const* rows, Strip& strip, int lane) {
    unpack_scales_and_mins(rows, strip, lane);
    for (int pair = 0; pair < 4; ++pair) {
        __m256i raw[8];
        transpose(rows, offsetof(BlockQ4K, low) + 32 * pair, raw);
        for (int q = 0; q < 8; ++q) {
            store(strip.codes[16 * pair + q] + lane, bits(raw[q], 0, 0x0f));
            store(strip.codes[16 * pair + 8 + q] + lane, bits(raw[q], 4, 0x0f));
        }
    }
}

template <class Strip> void unpack(Format<Type::Q5_K>, const uint8_t* const* rows, Strip& strip, int lane) {
    unpack_scales_and_mins(rows, strip, lane);
    __m256i high[8];
    transpose(rows, offsetof(BlockQ5K, high), high);
    for (int group = 0; group < 8; group += 2) {
        __m256i raw[8];
        transpose(rows, offsetof(BlockQ5K, low) + 16 * group, raw);
        for (int q = 0; q < 8; ++q) {
            const __m256i even = _mm256_slli_epi16(bits(high[q], group, 0x01), 4);
            const __m256i odd = _mm256_slli_epi16(bits(high[q], group + 1, 0x01), 4);
            store(strip.codes[8 * group + q] + lane, _mm256_or_si256(bits(raw[q], 0, 0x0f), even));
            store(strip.codes[8 * group + 8 + q] + lane, _mm256_or_si256(bits(raw[q], 4, 0x0f), odd));
        }
    }
}

template <class Strip> void unpack(Format<Type::Q6_K>, const uint8_t* const* rows, Strip& strip, int lane) {
    const __m256 d = halves_at(rows, offsetof(BlockQ6K, d));
    _mm256_store_ps(strip.d + lane, d);
    __m256i scales[4];
    transpose_half(rows, offsetof(BlockQ6K, scales), scales);
    for (int g = 0; g < 16; ++g) put_scale(strip.scales[g] + lane, scales[g / 4], g % 4, d);
    // In each half of 128 codes: 32 times two bits of four codes that are 32 apart, and their low four bits.
    for (int half = 0; half < 2; ++half) {
        __m256i high[8], raw[8];
        transpose(rows, offsetof(BlockQ6K, high) + 32 * half, high);
        for (int part = 0; part < 2; ++part) {
            transpose(rows, offsetof(BlockQ6K, low) + 64 * half + 32 * part, raw);
            for (int q = 0; q < 8; ++q) {
                const __m256i first = _mm256_slli_epi16(bits(high[q], 2 * part, 0x03), 4);
                const __m256i second = _mm256_slli_epi16(bits(high[q], 2 * part + 4, 0x03), 4);
                uint32_t(*codes)[sizeof strip.codes[0] / 4] = strip.codes + 32 * half + 8 * part + q;
                store(codes[0] + lane, _mm256_or_si256(bits(raw[q], 0, 0x0f), first));
                store(codes[16] + lane, _mm256_or_si256(bits(raw[q], 4, 0x0f), second));
            }
        }
    }
}

template <class Strip> void unpack(Format<Type::Q8_0>, const uint8_t* const* rows, Strip& strip, int lane) {
    for (int block = 0; block < 8; ++block) {
        const size_t begin = sizeof(BlockQ80) * block;
        _mm256_store_ps(strip.scales[block] + lane, halves_at(rows, begin + offsetof(BlockQ80, d)));
        __m256i raw[8];
        transpose(rows, begin + offsetof(BlockQ80, codes), raw);
        for (int q = 0; q < 8; ++q) {
            store(strip.codes[8 * block + q] + lane, _mm256_xor_si256(raw[q], _mm256_set1_epi8(-128)));
        }
    }
}

}  // namespace
}  // namespace q3e
