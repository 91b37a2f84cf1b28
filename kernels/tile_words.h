// The product of a tile of tokens with a strip of rows in AVX2, whose products of bytes are 16-bit words.
//
// A word has room for the sum of several products of small codes, so they are added as words first; one multiplication
// by the integer part of the scale makes 32-bit sums of them, which are exact over the whole of a block.
#pragma once

#include <immintrin.h>

#include "tiles.h"

namespace q3e {
namespace {

struct Words {
    using Scale = int32_t;
    static constexpr int TOKENS = 3, VECTORS = 2, ROWS = 8 * VECTORS;
    static constexpr bool HALVES = true;

    static __m256i vector(const void* from) { return _mm256_load_si256(static_cast<const __m256i*>(from)); }

    // How many products of four codes may be added as words. With an offset, codes have a sign in the end: sums wrap
    // around on the way and are right when all are in.
    template <class Format> static constexpr int n_added() {
        constexpr int one = 2 * 127 * (Format::OFFSET ? Format::OFFSET : Format::LARGEST), room = 32767 / one;
        return room < Format::GROUP / 4 ? room : Format::GROUP / 4;
    }

    // sums[token][row] += products with this many blocks
    template <class Format>
    static void add(const Strip<Format, ROWS, Scale>* strip, const Numbers<Format, TOKENS>* tokens, int n_blocks,
                    float (*sums)[ROWS]) {
        for (int b = 0; b < n_blocks; ++b) {
            __m256i total[TOKENS][VECTORS];
            dots(strip[b], tokens[b], total);
            for (int t = 0; t < TOKENS; ++t) {
                for (int v = 0; v < VECTORS; ++v) {
                    const __m256 d = _mm256_load_ps(strip[b].d + 8 * v);
                    __m256 product = _mm256_mul_ps(_mm256_cvtepi32_ps(total[t][v]), d);
                    if constexpr (Format::MINS) {
                        const __m256 least = _mm256_cvtepi32_ps(mins(strip[b], tokens[b], t, v));
                        product = _mm256_fnmadd_ps(least, _mm256_load_ps(strip[b].dmin + 8 * v), product);
                    }
                    const __m256 scale = _mm256_broadcast_ss(&tokens[b].scales[0][t]);
                    float* to = sums[t] + 8 * v;
                    _mm256_store_ps(to, _mm256_fmadd_ps(product, scale, _mm256_load_ps(to)));
                }
            }
        }
    }

  private:
    // gcc would multiply first and add afterwards, as a tree, and needs twice the registers that there are.
    static void keep(__m256i& sum) { __asm__("" : "+x"(sum)); }

    template <class Format>
    static inline void dots(const Strip<Format, ROWS, Scale>& strip, const Numbers<Format, TOKENS>& tokens,
                            __m256i (*total)[VECTORS]) {
        constexpr int ADDED = n_added<Format>();
        for (int t = 0; t < TOKENS; ++t) {
            for (int v = 0; v < VECTORS; ++v) total[t][v] = _mm256_setzero_si256();
        }
        for (int begin = 0; begin < QUADS; begin += ADDED) {
            __m256i words[TOKENS][VECTORS];
            for (int t = 0; t < TOKENS; ++t) {
                for (int v = 0; v < VECTORS; ++v) {
                    words[t][v] = Format::OFFSET ? _mm256_set1_epi32(tokens.sums[begin / ADDED][t]) : _mm256_setzero_si256();
                }
            }
#pragma GCC unroll 8
            for (int q = begin; q < begin + ADDED; ++q) {
                const __m256i codes[VECTORS] = {vector(strip.codes[q]), vector(strip.codes[q] + 8)};
                for (int t = 0; t < TOKENS; ++t) {
                    const __m256i numbers = _mm256_set1_epi32(tokens.quads[q][t]);
                    for (int v = 0; v < VECTORS; ++v) {
                        words[t][v] = _mm256_add_epi16(words[t][v], _mm256_maddubs_epi16(codes[v], numbers));
                        keep(words[t][v]);
                    }
                }
            }
            for (int v = 0; v < VECTORS; ++v) {
                const __m256i scale = vector(strip.scales[4 * begin / Format::GROUP] + 8 * v);
                for (int t = 0; t < TOKENS; ++t) {
                    total[t][v] = _mm256_add_epi32(total[t][v], _mm256_madd_epi16(words[t][v], scale));
                }
            }
        }
    }

    template <class Format>
    static inline __m256i mins(const Strip<Format, ROWS, Scale>& strip, const Numbers<Format, TOKENS>& tokens, int t, int v) {
        __m256i total = _mm256_setzero_si256();
        for (int i = 0; i < 4; ++i) {
            const __m256i sums = _mm256_set1_epi32(tokens.sums[i][t]);
            total = _mm256_add_epi32(total, _mm256_madd_epi16(vector(strip.mins[i] + 8 * v), sums));
        }
        return total;
    }
};

}  // namespace
}  // namespace q3e
