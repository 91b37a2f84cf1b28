// The tile registers of AMX: their configuration, and sums of products of bfloat16 numbers in them.
//
// Knows nothing of weights, tokens and attention. Every tile here is 16 rows of 64 bytes, so one configuration serves
// all. To read: Intel's Software Developer's Manual, volume 1, chapter 18, and TDPBF16PS in volume 2.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace q3e {
namespace {

constexpr int SIDE = 16;    // rows of a tile, and float32 numbers in a row
constexpr int STEP = 32;    // bfloat16 numbers in a row: the depth of one product of tiles
constexpr int TILE = 1024;  // bytes

// GCC's _tile_ functions do not say which memory they read and write. This keeps the compiler from moving loads and
// stores over them.
inline void settle_memory() { __asm__ volatile("" ::: "memory"); }

struct alignas(64) TileConfiguration {
    uint8_t palette;
    uint8_t start_row;
    uint8_t reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};
static_assert(sizeof(TileConfiguration) == 64);

constexpr TileConfiguration ALL_FULL = {1, 0, {}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};

// While it lives, the tile registers of this thread can be used.
class Tiles {
  public:
    // Not _tile_loadconfig: GCC 12's claims to read 8 bytes, and the compiler drops stores to the other 56.
    Tiles() { __asm__ volatile("ldtilecfg %0" ::"m"(ALL_FULL) : "memory"); }
    // Tiles that hold anything would be saved at every switch of threads.
    ~Tiles() { _tile_release(); }
    Tiles(const Tiles&) = delete;
    Tiles& operator=(const Tiles&) = delete;
};

// A tile of sums in memory
struct Sums {
    float* at;
    size_t stride;  // bytes from row to row
};

// The sums of two A and two B: [A][B]
struct Square {
    Sums sums[2][2];
};

// Four tiles behind each other
inline Square window(float* at) {
    constexpr int64_t NEXT = SIDE * SIDE;
    return {{{{at, 64}, {at + NEXT, 64}}, {{at + 2 * NEXT, 64}, {at + 3 * NEXT, 64}}}};
}

// Four in rows, with so many bytes from one to the next
inline Square square(float* at, size_t stride) {
    float* below = reinterpret_cast<float*>(reinterpret_cast<char*>(at) + SIDE * stride);
    return {{{{at, stride}, {at + SIDE, stride}}, {{below, stride}, {below + SIDE, stride}}}};
}

// The sums in the registers begin with those in memory; without `from`, with 0. A: one or two tiles of A are used.
template <int A>
void begin_sums(const Square* from) {
    settle_memory();
    if (from == nullptr) {
        _tile_zero(0);
        _tile_zero(1);
        if (A == 2) {
            _tile_zero(2);
            _tile_zero(3);
        }
    } else {
        const auto& sums = from->sums;
        _tile_loadd(0, sums[0][0].at, sums[0][0].stride);
        _tile_loadd(1, sums[0][1].at, sums[0][1].stride);
        if (A == 2) {
            _tile_loadd(2, sums[1][0].at, sums[1][0].stride);
            _tile_loadd(3, sums[1][1].at, sums[1][1].stride);
        }
    }
}

// Add a[i] * b[j] to the sums, for the one or two A and two B beside each other. Tiles of A lie behind each other along
// the depth, each with 16 rows of 32 numbers; tiles of B likewise, each with the numbers 2p and 2p + 1 along the depth
// of 16 columns in its row p. `*_next`: bytes from the first to the second.
//
// Two by two, because then each tile that is loaded serves two products: the loads take half of the time of the
// products.
template <int A>
void accumulate(const uint8_t* a, size_t a_next, const uint8_t* b, size_t b_next, int64_t steps) {
    for (int64_t step = 0; step < steps; ++step, a += TILE, b += TILE) {
        _tile_loadd(4, a, 64);
        _tile_stream_loadd(6, b, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_stream_loadd(7, b + b_next, 64);
        _tile_dpbf16ps(1, 4, 7);
        if (A == 2) {
            _tile_loadd(5, a + a_next, 64);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
    }
}

template <int A>
void store_sums(const Square& to) {
    const auto& sums = to.sums;
    _tile_stored(0, sums[0][0].at, sums[0][0].stride);
    _tile_stored(1, sums[0][1].at, sums[0][1].stride);
    if (A == 2) {
        _tile_stored(2, sums[1][0].at, sums[1][0].stride);
        _tile_stored(3, sums[1][1].at, sums[1][1].stride);
    }
    settle_memory();
}

// to[i][j] = from[i][j] + a[i] * b[j]
template <int A>
void add_products(const uint8_t* a, size_t a_next, const uint8_t* b, size_t b_next, int64_t steps,
                  const Square* from, const Square& to) {
    begin_sums<A>(from);
    accumulate<A>(a, a_next, b, b_next, steps);
    store_sums<A>(to);
}

// A tile of B from 16 rows of 32 bfloat16 numbers, each row one column of B: pair p of each row goes to row p. It is a
// transposition of 16 x 16 pairs. Loads put the quarters of four rows into one register; the rest is 4 x 4 in lanes.
inline void store_as_columns(const uint16_t* rows, size_t row_numbers, uint8_t* tile) {
    for (int quarter = 0; quarter < 4; ++quarter) {
        __m512i four[4];  // four[r]: this quarter of rows r, r + 4, r + 8, r + 12
        for (int r = 0; r < 4; ++r) {
            const uint16_t* from = rows + r * row_numbers + 8 * quarter;
            const auto load = [&](int i) {
                return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i * row_numbers));
            };
            four[r] = _mm512_castsi128_si512(load(0));
            four[r] = _mm512_inserti32x4(four[r], load(4), 1);
            four[r] = _mm512_inserti32x4(four[r], load(8), 2);
            four[r] = _mm512_inserti32x4(four[r], load(12), 3);
        }
        const __m512i low01 = _mm512_unpacklo_epi32(four[0], four[1]), high01 = _mm512_unpackhi_epi32(four[0], four[1]);
        const __m512i low23 = _mm512_unpacklo_epi32(four[2], four[3]), high23 = _mm512_unpackhi_epi32(four[2], four[3]);
        uint8_t* to = tile + 4 * 64 * quarter;
        _mm512_store_si512(to, _mm512_unpacklo_epi64(low01, low23));
        _mm512_store_si512(to + 64, _mm512_unpackhi_epi64(low01, low23));
        _mm512_store_si512(to + 128, _mm512_unpacklo_epi64(high01, high23));
        _mm512_store_si512(to + 192, _mm512_unpackhi_epi64(high01, high23));
    }
}

// 32 float32 numbers as bfloat16, rounded to the nearest
inline __m512i rounded(__m512 first, __m512 second) {
    return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(second, first));
}

// 32 float32 numbers as sums of two bfloat16 numbers, to about 17 of their 24 bits: those of a float16 number are all
// there. The lower part of an infinite number is NaN.
struct Parts {
    __m512i upper, lower;
};

inline Parts in_parts(__m512 first, __m512 second) {
    const auto widened = [](__m256i halves) {
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
    };
    const __m512i upper = rounded(first, second);
    return {upper, rounded(_mm512_sub_ps(first, widened(_mm512_castsi512_si256(upper))),
                           _mm512_sub_ps(second, widened(_mm512_extracti64x4_epi64(upper, 1))))};
}

}  // namespace
}  // namespace q3e
