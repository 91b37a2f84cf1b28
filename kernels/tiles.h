// How a micro kernel reads weights and tokens: the formats of the weights as numbers, and the layouts that unpack.h and
// activations.h write.
//
// In both layouts four consecutive numbers of a row share a 32-bit word (a quad), as the instructions for products of
// bytes want them. Nothing here knows an instruction.
#pragma once

#include "blocks.h"
#include "operation.h"

namespace q3e {
namespace {

constexpr int QUADS = SUPER / 4;

// weight = scale of its group * (code - OFFSET) [- min of its group], codes from 0 to LARGEST; a group has GROUP weights.
// Tokens are rounded to 8 bits as ggml rounds them for these weights, with one scale for TOKEN_GROUP numbers.
template <Type TYPE> struct Format;

template <> struct Format<Type::Q4_K> {
    using Block = BlockQ4K;
    static constexpr int BLOCKS = 1, GROUP = 32, TOKEN_GROUP = SUPER, OFFSET = 0, LARGEST = 15;
    static constexpr bool MINS = true;
};

template <> struct Format<Type::Q5_K> {
    using Block = BlockQ5K;
    static constexpr int BLOCKS = 1, GROUP = 32, TOKEN_GROUP = SUPER, OFFSET = 0, LARGEST = 31;
    static constexpr bool MINS = true;
};

template <> struct Format<Type::Q6_K> {
    using Block = BlockQ6K;
    static constexpr int BLOCKS = 1, GROUP = 16, TOKEN_GROUP = SUPER, OFFSET = 32, LARGEST = 63;
    static constexpr bool MINS = false;
};

template <> struct Format<Type::Q8_0> {
    using Block = BlockQ80;
    static constexpr int BLOCKS = 8, GROUP = 32, TOKEN_GROUP = 32, OFFSET = 128, LARGEST = 255;
    static constexpr bool MINS = false;
};

// SUPER weights of each of ROWS rows. Scale is float: the scale of the group; or int32_t: the integer part of that
// scale, as two equal 16-bit halves, and `d` is the other part.
template <class Format, int ROWS, class Scale> struct alignas(64) Strip {
    static constexpr int GROUPS = SUPER / Format::GROUP;
    uint32_t codes[QUADS][ROWS];
    Scale scales[GROUPS][ROWS];
    int32_t mins[Format::MINS ? GROUPS / 2 : 1][ROWS];  // integer parts of two groups' mins, as 16-bit halves
    float d[ROWS], dmin[ROWS];
};

// SUPER numbers of each of TOKENS tokens.
template <class Format, int TOKENS> struct Numbers {
    static constexpr int GROUPS = SUPER / Format::GROUP;
    int32_t quads[TOKENS][QUADS];
    // With mins: sums of two groups, as 16-bit halves. With an offset: what the dot product of a group with codes must
    // start at to become that with code - OFFSET.
    int32_t sums[Format::MINS ? GROUPS / 2 : GROUPS][TOKENS];
    float scales[SUPER / Format::TOKEN_GROUP][TOKENS];
};

}  // namespace
}  // namespace q3e
