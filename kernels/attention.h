// Attention in float32, for any vector of floats: blocks of keys and values are converted once for many queries of all
// heads that share them, and what the mask hides is neither read nor computed.
//
// The softmax is computed block after block: each row keeps its maximum, and its sums are scaled when it grows
// (Milakov and Gimelshein, "Online normalizer calculation for softmax", https://arxiv.org/abs/1805.02867).
// Knows neither ggml nor threads beyond what operation.h says of them.
#pragma once

#include "attention_tasks.h"
#include "integers.h"
#include "key_blocks.h"
#include "row_tiles.h"
#include "softmax.h"

namespace q3e {
namespace {

constexpr int STRIP_ROWS = 24;        // that use a panel one after the other, while it is in the first cache
constexpr int64_t FEWEST_QUERIES = 2;  // for a single one ggml divides the keys among the threads

template <class V>
class AttentionTask {
    using T = RowTile<V>;
    static constexpr int ROWS = T::ROWS, COLUMNS = T::COLUMNS, STRIP = STRIP_ROWS / ROWS;
    static constexpr int PANEL_CELLS = COLUMNS / CELL;

  public:
    // 128 keys are converted for so many rows, queries times heads, in 3 % of the time.
    static constexpr int64_t MOST_ROWS = 480, TILE_ROWS = ROWS, WIDTH_UNIT = CELL;

    static int64_t most_tiles(const Attention& op) { return divide_up(queries_in(op, MOST_ROWS) * group_of(op), ROWS); }

    static int64_t panels(const Attention& op) { return divide_up(op.width, COLUMNS); }

    // Scratch of one thread.
    static int64_t bytes(const Attention& op) {
        const int64_t rows = most_tiles(op) * ROWS, padded = panels(op) * COLUMNS;
        const int64_t n_floats = rows * (op.width + padded + 2) + BLOCK * (op.width + padded) + STRIP_ROWS * BLOCK;
        return 4 * n_floats + 8 * (rows + most_tiles(op));
    }

    AttentionTask(const Attention& op, const Visibility& visibility, uint8_t* scratch) : op(op), visibility(visibility) {
        const int64_t rows = most_tiles(op) * ROWS, padded = panels(op) * COLUMNS;
        query = reinterpret_cast<float*>(scratch);
        output = query + rows * op.width;
        keys = output + rows * padded;
        values = keys + BLOCK * op.width;
        scores = values + BLOCK * padded;
        maximum = scores + STRIP_ROWS * BLOCK;
        sum = maximum + rows;
        query_of = reinterpret_cast<int64_t*>(sum + rows);
        seen = reinterpret_cast<uint64_t*>(query_of + rows);
    }

    // Queries [first, last) of all heads of a key head.
    void compute(int64_t key_head, int64_t first, int64_t last) {
        this->key_head = key_head;
        this->first = first;
        this->last = last;
        n_tiles = divide_up((last - first) * group_of(op), ROWS);
        read_queries();
        for (int64_t block = 0; block < visibility.n_blocks; ++block) {
            const Range range = look(block);
            if (range.first == range.last) continue;
            read_block(block, range);
            for (int64_t tile = 0; tile < n_tiles; tile += STRIP) {
                add_block(block, tile, smaller(tile + STRIP, n_tiles));
            }
        }
        write_output();
    }

  private:
    // The queries, multiplied so that scores come out in base 2, and empty sums. The rows that fill the last tile repeat
    // the last query: they see what it sees.
    void read_queries() {
        const auto factor = V::all(op.scale * LOG2_E);
        int64_t query = first, member = 0;  // of the group
        for (int64_t row = 0; row < n_tiles * ROWS; ++row) {
            const auto* from = reinterpret_cast<const char*>(op.query) + query * op.query_stride +
                               (key_head * group_of(op) + member) * op.query_head_stride;
            read_query(reinterpret_cast<const float*>(from), factor, row);
            query_of[row] = query;
            maximum[row] = -INFINITY;
            sum[row] = 0;
            if (++member == group_of(op)) {
                member = 0;
                query += query + 1 < last;
            }
        }
        const int64_t n_floats = n_tiles * ROWS * panels(op) * COLUMNS;
        for (int64_t at = 0; at < n_floats; at += V::LANES) V::store(output + at, V::all(0));
    }

    // The query after the next one is fetched meanwhile: they lie pages apart, and no CPU foresees that.
    void read_query(const float* from, typename V::Floats factor, int64_t row) {
        float* to = query + row / ROWS * ROWS * op.width + row % ROWS * CELL;
        for (int64_t cell = 0; cell < op.width; cell += CELL, to += T::CELL_FLOATS) {
            __builtin_prefetch(reinterpret_cast<const char*>(from + cell) + 2 * op.query_stride);
            for (int i = 0; i < CELL; i += V::LANES) V::store(to + i, V::multiply(V::load(from + cell + i), factor));
        }
    }

    // What each tile sees of a block of keys, and the range of cells that some tile sees.
    Range look(int64_t block) {
        uint64_t all = 0;
        for (int64_t tile = 0; tile < n_tiles; ++tile) {
            seen[tile] = cells(visibility, query_of[tile * ROWS], query_of[tile * ROWS + ROWS - 1] + 1, block);
            all |= seen[tile];
        }
        return whole_panels(seen_range(all));
    }

    static Range whole_panels(Range range) {
        return {range.first / PANEL_CELLS * PANEL_CELLS, static_cast<int>(round_up(range.last, PANEL_CELLS))};
    }

    template <Type TYPE>
    void read_block_as(int64_t block, Range range) {
        const int from = range.first * CELL, to = range.last * CELL;
        const int64_t start = block * BLOCK, left = op.keys - start;
        const uint8_t* key = op.key + start * op.key_stride + key_head * op.key_head_stride;
        const uint8_t* value = op.value + start * op.value_stride + key_head * op.value_head_stride;
        read_keys<TYPE, COLUMNS>(key, op.key_stride, op.width, from, to, left, keys);
        read_values<TYPE, COLUMNS>(value, op.value_stride, op.width, from, to, left, values);
    }

    void read_block(int64_t block, Range range) {
        switch (op.type) {
            case Type::F32: return read_block_as<Type::F32>(block, range);
            case Type::F16: return read_block_as<Type::F16>(block, range);
            case Type::BF16: return read_block_as<Type::BF16>(block, range);
            default: return read_block_as<Type::Q8_0>(block, range);
        }
    }

    // Add a block of keys and values to the sums of a strip of tiles. Panels come first, tiles second: each panel stays
    // in the first cache for all of them.
    void add_block(int64_t block, int64_t begin, int64_t end) {
        Range ranges[STRIP];
        float factors[STRIP_ROWS];
        for (int64_t tile = begin; tile < end; ++tile) ranges[tile - begin] = whole_panels(seen_range(seen[tile]));
        for (int cell = 0; cell < BLOCK / CELL; cell += PANEL_CELLS) {
            for (int64_t tile = begin; tile < end; ++tile) {
                if (cell < ranges[tile - begin].first || cell >= ranges[tile - begin].last) continue;
                multiply<V, false>(query + tile * ROWS * op.width, keys + cell * CELL * op.width, op.width / CELL, nullptr,
                                   scores_of(tile - begin) + cell * T::CELL_FLOATS);
            }
        }
        for (int64_t tile = begin; tile < end; ++tile) {
            weigh(block, tile, scores_of(tile - begin), ranges[tile - begin], factors + (tile - begin) * ROWS);
        }
        for (int64_t panel = 0; panel < panels(op); ++panel) {
            for (int64_t tile = begin; tile < end; ++tile) {
                const Range range = ranges[tile - begin];
                if (range.first == range.last) continue;
                multiply<V, true>(scores_of(tile - begin) + range.first * T::CELL_FLOATS,
                                  values + (panel * BLOCK + range.first * CELL) * COLUMNS, range.last - range.first,
                                  factors + (tile - begin) * ROWS,
                                  output + (tile * panels(op) + panel) * ROWS * COLUMNS);
            }
        }
    }

    float* scores_of(int64_t place) const { return scores + place * ROWS * BLOCK; }

    // Replace the scores of a tile by weights, and say by which factors its sums shrink.
    void weigh(int64_t block, int64_t tile, float* scores, Range range, float* factors) {
        float before[CELL] = {}, shrinks[CELL];  // of all rows, in one or two vectors
        for (int row = 0; row < ROWS && range.first < range.last; ++row) {
            float& most = maximum[tile * ROWS + row];
            const float old = most;
            const MaskRow mask = mask_row(op, query_of[tile * ROWS + row], block);
            const float found = largest_score<V>(scores + row * CELL, T::CELL_FLOATS, range, seen[tile], mask);
            most = found > old ? found : old;
            before[row] = old - subtrahend(most);
        }
        for (int i = 0; i < CELL; i += V::LANES) V::store(shrinks + i, exponential<V>(V::load(before + i)));
        for (int row = 0; row < ROWS && range.first < range.last; ++row) {
            const float most = subtrahend(maximum[tile * ROWS + row]);
            const float added = exponentials<V>(scores + row * CELL, T::CELL_FLOATS, range, most);
            sum[tile * ROWS + row] = sum[tile * ROWS + row] * shrinks[row] + added;
            factors[row] = shrinks[row];
        }
    }

    // A query that saw nothing gets zeros, as in ggml. Memory is fetched ahead as in read_query.
    void write_output() {
        int64_t row = 0;
        for (int64_t query = first; query < last; ++query) {
            float* to = op.output + (query * op.heads + key_head * group_of(op)) * op.width;
            for (int64_t member = 0; member < group_of(op); ++member, ++row, to += op.width) {
                const float* from = output + row / ROWS * ROWS * panels(op) * COLUMNS + row % ROWS * CELL;
                const auto factor = V::all(sum[row] == 0 ? 0 : 1 / sum[row]);
                for (int64_t cell = 0; cell < op.width; cell += CELL, from += T::CELL_FLOATS) {
                    __builtin_prefetch(to + 2 * op.heads * op.width + cell, 1);
                    for (int i = 0; i < CELL; i += V::LANES) {
                        V::store(to + cell + i, V::multiply(V::load(from + i), factor));
                    }
                }
            }
        }
    }

    const Attention& op;
    const Visibility& visibility;
    float *query, *output;     // tiles
    float *keys, *values;      // panels of one block
    float* scores;             // tiles of one strip
    float *maximum, *sum;      // of each row
    int64_t* query_of;         // each row
    uint64_t* seen;            // of the block, by each tile
    int64_t key_head = 0, first = 0, last = 0, n_tiles = 0;
};

template <class V>
int64_t attention_scratch(const Attention& op, int threads) {
    return op.queries < FEWEST_QUERIES ? -1 : tasks_scratch<AttentionTask<V>>(op, threads);
}

template <class V>
void attention(const Attention& op, const Team& team) {
    compute_tasks<AttentionTask<V>>(op, team);
}

}  // namespace
}  // namespace q3e
