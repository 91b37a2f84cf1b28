// Which arithmetic a variant uses, and how near to a double-precision reference it must therefore be.
//
// An error is given in units of the size of what was added up, so that one bound holds for every shape and scale.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "../operation.h"

namespace q3e::check {

// How a product rounds its tokens.
enum class Rounding {
    BYTES,     // to 8 bits with a scale per 256 of them (per 32 for weights of Q8_0): so does the reference
    BFLOAT16,  // and the weights too: so does the reference
    NONE,
};

// The largest error allowed for one number, and for the root of the mean square of all.
struct Bound {
    double worst, mean;
};

inline bool is_quantized(Type type) { return type != Type::F32 && type != Type::F16 && type != Type::BF16; }

inline Rounding product_rounding(const char* variant, Type type) {
    if (std::strcmp(variant, "amx") == 0) return Rounding::BFLOAT16;
    return is_quantized(type) ? Rounding::BYTES : Rounding::NONE;
}

// In units of the root of the sum over k of (weight[k] * input[k])^2. A float is off by 2^-24, here once for each group
// of weights. A weight computed in float may lie just on the other side of the middle between two bfloat16, which are
// 2^-8 of it apart: rarely, but in the cases of equal weights for a whole group at once.
inline Bound product_bound(Rounding rounding) {
    return rounding == Rounding::BFLOAT16 ? Bound{8e-3, 2e-4} : Bound{1e-5, 2e-6};
}

// In units of the root of the mean square of the values that a query attends to, times one more than the size of a
// score: see reference_attention.
inline Bound attention_bound(const char* variant) {
    return std::strcmp(variant, "amx") == 0 ? Bound{8e-3, 2e-3} : Bound{4e-6, 4e-7};
}

}  // namespace q3e::check
