// Which arithmetic a variant uses, and how near to a double-precision reference it must therefore be.
//
// An error is given in units of the size of what was added up, so that one bound holds for every shape and scale.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "../operation.h"

namespace q3e::check {

// What numbers are rounded to before they are multiplied. All sums are floats in the end.
enum class Rounding {
    BYTES,     // tokens to 8 bits with a scale per 256 of them (per 32 for weights of Q8_0): so does the reference
    BFLOAT16,  // tokens and weights
    PARTS,     // everything in attention to a sum of two bfloat16 numbers, and without the product of two lower ones
    FLOAT,     // nothing
};

inline const char* name_of(Rounding rounding) {
    switch (rounding) {
        case Rounding::BYTES: return "8 bits";
        case Rounding::BFLOAT16: return "bfloat16";
        case Rounding::PARTS: return "two bfloat16";
        case Rounding::FLOAT: break;
    }
    return "float";
}

// The largest error allowed for one number, and for the root of the mean square of all.
struct Bound {
    double worst, mean;
};

inline bool is_quantized(Type type) { return type != Type::F32 && type != Type::F16 && type != Type::BF16; }

inline bool has_tiles(const char* variant) { return std::strcmp(variant, "amx") == 0; }

// Fewer tokens than a tile has rows are computed as avx512 does.
inline Rounding product_rounding(const char* variant, const Product& product) {
    if (has_tiles(variant) && product.tokens >= 16) return Rounding::BFLOAT16;
    return is_quantized(product.type) ? Rounding::BYTES : Rounding::FLOAT;
}

// Likewise fewer queries, those of all heads that share a key, than two tiles have rows, and heads that do not fill them.
inline Rounding attention_rounding(const char* variant, const Attention& attention) {
    const bool fill_tiles = attention.queries * attention.heads >= 32 * attention.key_heads && attention.width % 32 == 0;
    return has_tiles(variant) && fill_tiles ? Rounding::PARTS : Rounding::FLOAT;
}

// In units of how large the sums are on the way: see ProductReference.
//
// A float is off by 2^-24 = 6e-8 of itself or less. Products of 8-bit codes are whole numbers and their sums within a
// group of weights exact; a group, and then a block, adds one rounding or two. Roundings have both signs, so n of them
// grow as the root of n, and the earlier ones are of smaller sums: the mean of three and the worst of sixteen are room
// for a depth of 10,000. In bfloat16, numbers lie 2^-7 apart at most, and a weight computed in float may lie just on the
// other side of the middle between two of them: rarely, but in the cases of equal weights for a whole group at once.
inline Bound product_bound(Rounding rounding) {
    return rounding == Rounding::BFLOAT16 ? Bound{8e-3, 2e-4} : Bound{1e-6, 2e-7};
}

// In units of the root of the mean square of the values that a query attends to, times one more than the size of a
// score: see AttentionReference.
inline Bound attention_bound(Rounding rounding) {
    return rounding == Rounding::PARTS ? Bound{3e-5, 3e-6} : Bound{4e-6, 4e-7};
}

}  // namespace q3e::check
