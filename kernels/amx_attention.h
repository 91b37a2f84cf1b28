// Attention in tiles: queries, keys, values and weights are sums of two bfloat16 numbers each, and of the four products
// of two such sums only the smallest, of both lower parts, is left out. Scores, the softmax and all sums are float32.
//
// One bfloat16 number would be three times as fast to multiply, and too coarse: it is off by up to 2^-9 of itself, so
// that a score of 100 could move by 0.4, and its weight by half.
//
// Keys and values of a block are converted once for many queries of all heads that share them, and what the mask hides
// is neither read nor computed. The softmax goes from block to block: each row keeps its maximum, and its sums are
// scaled when it grows (Milakov and Gimelshein, "Online normalizer calculation for softmax",
// https://arxiv.org/abs/1805.02867).
#pragma once

#include "amx_keys.h"
#include "amx_tiles.h"
#include "attention_tasks.h"
#include "integers.h"
#include "operation.h"
#include "softmax.h"

namespace q3e {
namespace {

constexpr int PAIR = 2 * SIDE;  // rows that are computed at once, a row being a query of one head

// 2^x for x <= 0, with a relative error of 3e-6, where two bfloat16 numbers round by up to 8e-6; 0 below 2^-126, and for -inf. NaN
// stays NaN.
//
// Adding 1.5 * 2^23 rounds to an integer, which then lies in the lowest bits; with 127 more it is the exponent of its
// power of two, 0 for -127. The polynomial was found as that of exponential() in softmax.h.
inline __m512 weight_of(__m512 x) {
    const __m512 rounder = _mm512_set1_ps(0x1.8p23f + 127);
    x = _mm512_max_ps(_mm512_set1_ps(-127), x);
    const __m512 shifted = _mm512_add_ps(x, rounder);
    const __m512 rest = _mm512_sub_ps(x, _mm512_sub_ps(shifted, rounder));
    __m512 p = _mm512_set1_ps(0.009582853f);
    p = _mm512_fmadd_ps(p, rest, _mm512_set1_ps(0.055906426f));
    p = _mm512_fmadd_ps(p, rest, _mm512_set1_ps(0.24024099f));
    p = _mm512_fmadd_ps(p, rest, _mm512_set1_ps(0.6931242f));
    p = _mm512_fmadd_ps(p, rest, _mm512_set1_ps(1));
    return _mm512_mul_ps(p, _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(shifted), 23)));
}

// A range of cells that is a whole number of steps
inline Range whole_steps(Range range) { return {range.first / 2 * 2, (range.last + 1) / 2 * 2}; }

class TileAttention {
  public:
    static constexpr int64_t MOST_ROWS = 512, TILE_ROWS = PAIR, WIDTH_UNIT = STEP;  // sums of 256 KB for heads of 128

    static int64_t most_rows(const Attention& op) { return round_up(queries_in(op, MOST_ROWS) * group_of(op), PAIR); }

    // Scratch of one thread
    static int64_t bytes(const Attention& op) {
        const int64_t rows = most_rows(op);
        return 2 * 2 * rows * op.width + 2 * 2 * 2 * BLOCK * op.width + (4 + 2 * 2) * PAIR * BLOCK +
               4 * rows * (op.width + SIDE + 1) + 16 * rows / PAIR;
    }

    TileAttention(const Attention& op, const Visibility& visibility, uint8_t* scratch)
        : op_(op), visibility_(visibility) {
        const int64_t rows = most_rows(op);
        query_lower_ = 2 * rows * op.width;
        block_lower_ = 2 * BLOCK * op.width;
        query_ = scratch;
        keys_ = query_ + 2 * query_lower_;
        values_ = keys_ + 2 * block_lower_;
        weights_ = values_ + 2 * block_lower_;
        scores_ = reinterpret_cast<float*>(weights_ + 2 * WEIGHT_LOWER);
        output_ = scores_ + PAIR * BLOCK;
        sums_ = output_ + rows * op.width;
        maximum_ = sums_ + rows * SIDE;
        seen_ = reinterpret_cast<uint64_t*>(maximum_ + rows);
        begun_ = seen_ + rows / PAIR;
    }

    // Queries [first, last) of all heads of a key head
    void compute(int64_t key_head, int64_t first, int64_t last) {
        key_head_ = key_head;
        first_ = first;
        n_rows_ = (last - first) * group_of(op_);
        n_pairs_ = divide_up(n_rows_, PAIR);
        read_queries();
        for (int64_t block = 0; block < visibility_.n_blocks; ++block) {
            const Range range = look(block);
            if (range.first == range.last) continue;
            read_block(block, range);
            for (int64_t pair = 0; pair < n_pairs_; ++pair) add_block(block, pair);
        }
        write_output();
    }

  private:
    // Rows that fill the last pair see what the last query sees.
    int64_t query_of(int64_t row) const { return first_ + (row < n_rows_ ? row : n_rows_ - 1) / group_of(op_); }

    int64_t head_of(int64_t row) const { return key_head_ * group_of(op_) + row % group_of(op_); }

    // The queries, multiplied so that scores come out in base 2, as tiles of A: [16 rows][step]; and no sums yet.
    void read_queries() {
        const __m512 factor = _mm512_set1_ps(op_.scale * LOG2_E);
        for (int64_t row = 0; row < n_pairs_ * PAIR; ++row) {
            const auto* from = reinterpret_cast<const float*>(reinterpret_cast<const char*>(op_.query) +
                                                              query_of(row) * op_.query_stride +
                                                              head_of(row) * op_.query_head_stride);
            uint8_t* to = query_ + row / SIDE * SIDE * 2 * op_.width + row % SIDE * 64;
            for (int64_t at = 0; at < op_.width; at += STEP, to += TILE) {
                const Parts parts = in_parts(_mm512_mul_ps(factor, _mm512_loadu_ps(from + at)),
                                             _mm512_mul_ps(factor, _mm512_loadu_ps(from + at + SIDE)));
                _mm512_store_si512(to, parts.upper);
                _mm512_store_si512(to + query_lower_, parts.lower);
            }
            maximum_[row] = -INFINITY;
            _mm512_store_ps(sums_ + row * SIDE, _mm512_setzero_ps());
        }
        for (int64_t pair = 0; pair < n_pairs_; ++pair) begun_[pair] = 0;
    }

    // What each pair sees of a block of keys, and the range of cells that some pair sees
    Range look(int64_t block) {
        uint64_t all = 0;
        for (int64_t pair = 0; pair < n_pairs_; ++pair) {
            seen_[pair] = cells(visibility_, query_of(pair * PAIR), query_of(pair * PAIR + PAIR - 1) + 1, block);
            all |= seen_[pair];
        }
        return whole_steps(seen_range(all));
    }

    template <Type TYPE>
    void read_block_as(int64_t block, Range range) {
        const int64_t start = block * BLOCK, left = op_.keys - start;
        const uint8_t* key = op_.key + start * op_.key_stride + key_head_ * op_.key_head_stride;
        const uint8_t* value = op_.value + start * op_.value_stride + key_head_ * op_.value_head_stride;
        read_keys<TYPE>(key, op_.key_stride, op_.width, range, left, keys_, block_lower_);
        read_values<TYPE>(value, op_.value_stride, op_.width, range, left, values_, block_lower_);
    }

    void read_block(int64_t block, Range range) {
        switch (op_.type) {
            case Type::F32: return read_block_as<Type::F32>(block, range);
            case Type::F16: return read_block_as<Type::F16>(block, range);
            case Type::BF16: return read_block_as<Type::BF16>(block, range);
            default: return read_block_as<Type::Q8_0>(block, range);
        }
    }

    void add_block(int64_t block, int64_t pair) {
        const Range range = whole_steps(seen_range(seen_[pair]));
        if (range.first == range.last) return;
        const size_t band_bytes = SIDE * 2 * op_.width;  // of 16 queries or keys
        for (int cell = range.first; cell < range.last; cell += 2) {
            begin_sums<2>(nullptr);
            accumulate_parts(query_ + 2 * pair * band_bytes, query_lower_, keys_ + cell * band_bytes, band_bytes,
                             op_.width / STEP);
            store_sums<2>(square(scores_ + cell * CELL, 4 * BLOCK));
        }
        for (int row = 0; row < PAIR; ++row) weigh(block, pair, row, range);
        const size_t side_bytes = BLOCK_STEPS * TILE;  // of 16 numbers of all values, or of 16 rows of weights
        const int64_t first = range.first / 2, steps = range.last / 2 - first;
        for (int64_t at = 0; at < op_.width; at += 2 * SIDE) {
            const Square sums = square(output_ + pair * PAIR * op_.width + at, 4 * op_.width);
            begin_sums<2>(begun_[pair] ? &sums : nullptr);
            accumulate_parts(weights_ + first * TILE, WEIGHT_LOWER, values_ + at / SIDE * side_bytes + first * TILE,
                             side_bytes, steps);
            store_sums<2>(sums);
        }
        begun_[pair] = 1;
    }

    // Of queries and keys, or of weights and values; bytes from the first tiles to the second are those of both sides.
    void accumulate_parts(const uint8_t* a, int64_t a_lower, const uint8_t* b, size_t next, int64_t steps) const {
        accumulate<2>(a, next, b, next, steps);
        accumulate<2>(a + a_lower, next, b, next, steps);
        accumulate<2>(a, next, b + block_lower_, next, steps);
    }

    // Replace the scores of one row by weights, and scale its sums where its maximum grows.
    void weigh(int64_t block, int64_t pair, int row_of_pair, Range range) {
        const int64_t row = pair * PAIR + row_of_pair, query = query_of(row);
        float* scores = scores_ + row_of_pair * BLOCK;
        const uint64_t seen = cells(visibility_, query, query + 1, block);
        const float found = largest_score<Vector16>(scores, CELL, range, seen, mask_row(op_, query, block));
        if (found > maximum_[row]) grow(row, found, begun_[pair]);
        const __m512 most = _mm512_set1_ps(subtrahend(maximum_[row]));
        __m512 sum = _mm512_load_ps(sums_ + row * SIDE);
        uint8_t* to = weights_ + row_of_pair / SIDE * BLOCK_STEPS * TILE + row_of_pair % SIDE * 64;
        for (int step = range.first / 2; step < range.last / 2; ++step) {
            const float* here = scores + step * STEP;
            const __m512 first = weight_of(_mm512_sub_ps(_mm512_load_ps(here), most));
            const __m512 second = weight_of(_mm512_sub_ps(_mm512_load_ps(here + SIDE), most));
            sum = _mm512_add_ps(sum, _mm512_add_ps(first, second));
            const Parts parts = in_parts(first, second);
            _mm512_store_si512(to + step * TILE, parts.upper);
            _mm512_store_si512(to + step * TILE + WEIGHT_LOWER, parts.lower);
        }
        _mm512_store_ps(sums_ + row * SIDE, sum);
    }

    void grow(int64_t row, float maximum, bool begun) {
        const __m512 factor = weight_of(_mm512_set1_ps(maximum_[row] - maximum));
        maximum_[row] = maximum;
        if (!begun) return;
        float* sums = sums_ + row * SIDE;
        _mm512_store_ps(sums, _mm512_mul_ps(factor, _mm512_load_ps(sums)));
        float* output = output_ + row * op_.width;
        for (int64_t at = 0; at < op_.width; at += SIDE) {
            _mm512_store_ps(output + at, _mm512_mul_ps(factor, _mm512_load_ps(output + at)));
        }
    }

    // A query that saw nothing gets zeros, as in ggml.
    void write_output() {
        for (int64_t row = 0; row < n_rows_; ++row) {
            const float sum = Vector16::sum(_mm512_load_ps(sums_ + row * SIDE));
            const __m512 factor = _mm512_set1_ps(1 / sum);
            const float* from = output_ + row * op_.width;
            float* to = op_.output + (query_of(row) * op_.heads + head_of(row)) * op_.width;
            for (int64_t at = 0; at < op_.width; at += SIDE) {
                const __m512 numbers = _mm512_mul_ps(factor, _mm512_load_ps(from + at));
                _mm512_storeu_ps(to + at, sum == 0 ? _mm512_setzero_ps() : numbers);
            }
        }
    }

    static constexpr int64_t WEIGHT_LOWER = 2 * PAIR * BLOCK;  // bytes from upper parts to lower ones, as the next two

    const Tiles tiles_;
    const Attention& op_;
    const Visibility& visibility_;
    int64_t query_lower_, block_lower_;
    uint8_t *query_, *keys_, *values_, *weights_;  // tiles
    float *scores_, *output_;    // rows of one pair with 128 keys each; rows of the task with their width
    float *sums_, *maximum_;     // of the weights of each row, 16 partial ones; of its scores
    uint64_t *seen_, *begun_;    // by each pair of the block; whether it has seen any block
    int64_t key_head_ = 0, first_ = 0, n_rows_ = 0, n_pairs_ = 0;
};

}  // namespace
}  // namespace q3e
