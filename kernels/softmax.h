// The softmax of attention, over one row of scores and one block of keys after another.
//
// Scores are in base 2: whoever computes them multiplies by LOG2_E, so that the exponential is 2^x. Knows the mask of a
// row; not where scores come from, nor what their exponentials are multiplied with.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstring>

#include "vectors.h"
#include "visibility.h"

namespace q3e {
namespace {

constexpr float LOG2_E = 1.44269504f;

// 2^x for x <= 0, with a relative error of 1e-7; 0 below 2^-126, and for -inf. NaN stays NaN.
//
// x is split in an integer and a rest of at most 0.5. The polynomial is 1 + x * q(x), so that 2^0 is 1; the coefficients
// of q give the least maximum of |p(x) / 2^x - 1| on [-0.5, 0.5], 2e-9 before they are rounded to floats, and were found
// by Lawson's iteration: least squares on 4,001 Chebyshev points, weights multiplied by the error after each round.
template <class V>
inline typename V::Floats exponential(typename V::Floats x) {
    x = V::larger(V::all(-127), x);
    const auto integer = V::nearest_integer(x);
    const auto rest = V::subtract(x, integer);
    constexpr float coefficients[] = {0.00015353362f, 0.0013398874f, 0.009618437f, 0.055503324f, 0.24022648f, 0.6931472f, 1};
    auto p = V::all(coefficients[0]);
    for (int i = 1; i < 7; ++i) p = V::multiply_add(p, rest, V::all(coefficients[i]));
    return V::multiply(p, V::power_of_two(integer));
}

// The part of a mask that belongs to one query and one block of keys.
struct MaskRow {
    const uint16_t* values;  // null without a mask
    int64_t keys;            // that there are, from the first of the block on; what is beyond is hidden
};

inline MaskRow mask_row(const Attention& op, int64_t query, int64_t block) {
    const auto* row = reinterpret_cast<const uint16_t*>(reinterpret_cast<const char*>(op.mask) + query * op.mask_stride);
    return {op.mask ? row + block * BLOCK : nullptr, op.keys - block * BLOCK};
}

// Add the mask of one cell to its scores.
template <class V>
inline void add_mask(float* scores, const MaskRow& mask, int cell) {
    uint16_t rest[CELL] = {};
    const uint16_t* values = rest;
    const int64_t left = mask.keys - cell * CELL;
    if (left >= CELL && mask.values) {
        values = mask.values + cell * CELL;
    } else {
        for (int64_t key = 0; key < CELL; ++key) {
            rest[key] = key >= left ? HIDDEN : mask.values ? mask.values[cell * CELL + key] : 0;
        }
    }
    for (int i = 0; i < CELL; i += V::LANES) {
        V::store(scores + i, V::multiply_add(V::from_f16(values + i), V::all(LOG2_E), V::load(scores + i)));
    }
}

// Add the mask to a row of scores where `block` says that there is one, and return the largest score. Cell `c` of the
// row lies at scores + c * step; only those in the range are there. -inf: the query sees nothing here.
template <class V>
inline float largest_score(float* scores, size_t step, Range range, uint64_t block, const MaskRow& mask) {
    auto largest = V::all(-INFINITY);
    for (int cell = range.first; cell < range.last; ++cell) {
        float* here = scores + cell * step;
        if (is_masked(block, cell)) add_mask<V>(here, mask, cell);
        for (int i = 0; i < CELL; i += V::LANES) largest = V::larger(largest, V::load(here + i));
    }
    return V::largest(largest);
}

// What is subtracted from scores with this maximum: another number than -inf, so that -inf - -inf never appears and a
// query that sees nothing gets zeros.
inline float subtrahend(float maximum) { return maximum == -INFINITY ? 0 : maximum; }

// Replace the scores of a row by 2^(score - subtracted), and return their sum.
template <class V>
inline float exponentials(float* scores, size_t step, Range range, float subtracted) {
    auto sum = V::all(0);
    for (int cell = range.first; cell < range.last; ++cell) {
        float* here = scores + cell * step;
        for (int i = 0; i < CELL; i += V::LANES) {
            const auto weight = exponential<V>(V::subtract(V::load(here + i), V::all(subtracted)));
            V::store(here + i, weight);
            sum = V::add(sum, weight);
        }
    }
    return V::sum(sum);
}

}  // namespace
}  // namespace q3e
