// The product of a tile of tokens with a strip of rows by instructions that add four products of bytes to a 32-bit sum.
//
// The same for vectors of 256 and of 512 bits: V adds integers to the floats of vectors.h, and says how many tokens and
// vectors of rows fit the registers. Scales are floats, as a product by an integer scale costs these CPUs twice as much.
#pragma once

#include "tiles.h"

namespace q3e {
namespace {

template <class V> struct Dots {
    using Scale = float;
    using Integers = typename V::Integers;
    using Floats = typename V::Floats;
    static constexpr int TOKENS = V::TOKENS, VECTORS = V::VECTORS, LANES = V::LANES, ROWS = LANES * VECTORS;
    static constexpr bool HALVES = false;

    // sums[token][row] += products with this many blocks
    template <class Format>
    static void add(const Strip<Format, ROWS, Scale>* strip, const Numbers<Format, TOKENS>* tokens, int n_blocks,
                    float (*sums)[ROWS]) {
        for (int b = 0; b < n_blocks; ++b) {
            Floats total[TOKENS][VECTORS];
            for (int t = 0; t < TOKENS; ++t) {
                for (int v = 0; v < VECTORS; ++v) total[t][v] = V::all(0.0f);
            }
            for (int group = 0; group < SUPER / Format::GROUP; ++group) add_group(strip[b], tokens[b], group, total);
            if constexpr (Format::MINS) subtract_mins(strip[b], tokens[b], total);
            for (int t = 0; t < TOKENS; ++t) {
                for (int v = 0; v < VECTORS; ++v) {
                    float* to = sums[t] + LANES * v;
                    if constexpr (Format::TOKEN_GROUP == SUPER) {
                        V::store(to, V::multiply_add(total[t][v], V::all(tokens[b].scales[0][t]), V::load(to)));
                    } else {
                        V::store(to, V::add(total[t][v], V::load(to)));
                    }
                }
            }
        }
    }

  private:
    template <class Format>
    static inline void add_group(const Strip<Format, ROWS, Scale>& strip, const Numbers<Format, TOKENS>& tokens, int group,
                                 Floats (*total)[VECTORS]) {
        Integers dot[TOKENS][VECTORS];
        for (int t = 0; t < TOKENS; ++t) {
            for (int v = 0; v < VECTORS; ++v) dot[t][v] = V::all(Format::OFFSET ? tokens.sums[group][t] : 0);
        }
        constexpr int N = Format::GROUP / 4;
#pragma GCC unroll 8
        for (int i = 0; i < N; ++i) {
            const int q = N * group + i;
            Integers codes[VECTORS];
            for (int v = 0; v < VECTORS; ++v) codes[v] = V::load(strip.codes[q] + LANES * v);
            for (int t = 0; t < TOKENS; ++t) {
                const Integers numbers = V::all(tokens.quads[t][q]);
                for (int v = 0; v < VECTORS; ++v) dot[t][v] = V::dot_bytes(dot[t][v], codes[v], numbers);
            }
        }
        for (int v = 0; v < VECTORS; ++v) {
            const Floats scale = V::load(strip.scales[group] + LANES * v);
            for (int t = 0; t < TOKENS; ++t) {
                Floats product = V::to_float(dot[t][v]);
                if constexpr (Format::TOKEN_GROUP != SUPER) product = V::multiply(product, V::all(tokens.scales[group][t]));
                total[t][v] = V::multiply_add(product, scale, total[t][v]);
            }
        }
    }

    template <class Format>
    static inline void subtract_mins(const Strip<Format, ROWS, Scale>& strip, const Numbers<Format, TOKENS>& tokens,
                                     Floats (*total)[VECTORS]) {
        for (int v = 0; v < VECTORS; ++v) {
            const Floats dmin = V::load(strip.dmin + LANES * v);
            for (int t = 0; t < TOKENS; ++t) {
                Integers mins = V::all(0);
                for (int i = 0; i < SUPER / Format::GROUP / 2; ++i) {
                    mins = V::dot_words(mins, V::load(strip.mins[i] + LANES * v), V::all(tokens.sums[i][t]));
                }
                total[t][v] = V::subtract_product(V::to_float(mins), dmin, total[t][v]);
            }
        }
    }
};

}  // namespace
}  // namespace q3e
