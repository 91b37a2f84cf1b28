// What each query sees of the keys: read once from the mask by all threads together, then used by all heads.
//
// A cell is 16 keys of one query. Knows the mask, and no kernel; whatever a kernel takes at once, 6 queries or 32, it
// asks for the cells of all of them.
#pragma once

#include <immintrin.h>

#include <cstring>

#include "integers.h"
#include "operation.h"

namespace q3e {
namespace {

constexpr int CELL = 16;    // keys of a cell
constexpr int BLOCK = 128;  // keys of a block: 8 cells, a byte each in one uint64_t, the first key in the lowest
constexpr uint16_t HIDDEN = 0xfc00;  // -inf in float16

// The bits of a cell. Those of several cells are combined by "or": nothing is seen without the first bit, and without
// the second every key is, with no bias. A cell without the first has the second.
constexpr uint64_t SEEN = 0x0101010101010101, MASKED = 0x0202020202020202;

struct Visibility {
    uint64_t* blocks;  // [query][block]; one row for all queries without a mask
    int32_t* n_seen;   // [query]: cells that are seen
    int64_t n_blocks;
    int64_t row_step;  // from one query to the next in `blocks`
};

inline int64_t key_blocks(const Attention& op) { return divide_up(op.keys, BLOCK); }

inline int64_t visibility_bytes(const Attention& op) {
    return (op.mask ? op.queries : 1) * key_blocks(op) * 8 + round_up(op.queries * 4, 8);
}

// Where it lies in scratch memory; nothing is read or written yet.
inline Visibility visibility_at(const Attention& op, uint8_t* scratch) {
    const int64_t n_blocks = key_blocks(op);
    auto* blocks = reinterpret_cast<uint64_t*>(scratch);
    auto* n_seen = reinterpret_cast<int32_t*>(blocks + (op.mask ? op.queries : 1) * n_blocks);
    return {blocks, n_seen, n_blocks, op.mask ? n_blocks : 0};
}

inline uint64_t read_cell(const uint16_t* mask) {
    const __m256i values = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(mask));
    const __m256i hidden = _mm256_cmpeq_epi16(values, _mm256_set1_epi16(static_cast<short>(HIDDEN)));
    const bool seen = _mm256_movemask_epi8(hidden) != -1;
    return (seen ? 1 : 0) | (_mm256_testz_si256(values, values) ? 0 : 2);
}

// The cells of a block with so many keys. `mask` may be null.
inline uint64_t read_block(const uint16_t* mask, int64_t keys) {
    uint64_t block = 0;
    for (int cell = 0; cell < BLOCK / CELL; ++cell) {
        const int64_t left = keys - cell * CELL;
        uint64_t bits = 2;  // there are no keys
        if (left >= CELL) {
            bits = mask ? read_cell(mask + cell * CELL) : 1;
        } else if (left > 0) {
            uint16_t rest[CELL] = {};
            if (mask) std::memcpy(rest, mask + cell * CELL, left * sizeof *mask);
            for (int64_t key = left; key < CELL; ++key) rest[key] = HIDDEN;
            bits = read_cell(rest);
        }
        block |= bits << 8 * cell;
    }
    return block;
}

// Fill in the part of this thread. The whole is there after team.wait().
inline void read_visibility(const Attention& op, const Visibility& visibility, const Team& team) {
    const int64_t first = op.queries * team.rank / team.size, last = op.queries * (team.rank + 1) / team.size;
    for (int64_t query = first; query < last; ++query) {
        const auto* mask = reinterpret_cast<const uint16_t*>(reinterpret_cast<const char*>(op.mask) + query * op.mask_stride);
        if (!op.mask) {
            visibility.n_seen[query] = static_cast<int32_t>(divide_up(op.keys, CELL));
            if (query > 0) continue;  // one row serves all
            mask = nullptr;
        }
        int32_t n_seen = 0;
        uint64_t* row = visibility.blocks + query * visibility.row_step;
        for (int64_t block = 0; block < visibility.n_blocks; ++block) {
            row[block] = read_block(mask ? mask + block * BLOCK : nullptr, op.keys - block * BLOCK);
            n_seen += __builtin_popcountll(row[block] & SEEN);
        }
        visibility.n_seen[query] = n_seen;
    }
}

// The cells of this block of keys for the queries from `first` on, before `last`.
inline uint64_t cells(const Visibility& visibility, int64_t first, int64_t last, int64_t block) {
    if (visibility.row_step == 0) return visibility.blocks[block];
    uint64_t all = 0;
    for (int64_t query = first; query < last; ++query) all |= visibility.blocks[query * visibility.row_step + block];
    return all;
}

// The range of cells that holds all those that are seen; empty when there is none.
struct Range {
    int first, last;
};

inline Range seen_range(uint64_t block) {
    const uint64_t seen = block & SEEN;
    if (seen == 0) return {0, 0};
    return {__builtin_ctzll(seen) / 8, 8 - __builtin_clzll(seen) / 8};
}

inline bool is_masked(uint64_t block, int cell) { return block >> 8 * cell & 2; }

}  // namespace
}  // namespace q3e
