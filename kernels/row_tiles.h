// The product that attention consists of, with sums in registers: a tile of rows times a panel of columns.
//
// A tile has ROWS rows; its numbers lie in the order [column / 16][row][column % 16], so that 16 steps of a product read
// 16 numbers of each row from fixed distances to one pointer. A panel has two vectors of columns, row after row.
// Knows nothing of queries and keys: the rows are queries or weights of values, the columns keys or numbers of values.
#pragma once

#include "vectors.h"
#include "visibility.h"

namespace q3e {
namespace {

template <class V>
struct RowTile {
    static constexpr int ROWS = V::ROWS;
    static constexpr int COLUMNS = 2 * V::LANES;       // of a panel
    static constexpr int CELL_FLOATS = ROWS * CELL;    // 16 columns of all rows

    // Where vector `i` of row `row` of a panel's results lies.
    static float* place(float* results, int row, int i) {
        const int column = i * V::LANES;
        return results + column / CELL * CELL_FLOATS + row * CELL + column % CELL;
    }
};

// results = tile * panel, over `n_cells` times 16 columns of the tile, which are rows of the panel. With `factors`, one
// for each row, the product is added to results * factors. All loops over sums are unrolled: an array that is indexed by a
// variable cannot lie in registers.
template <class V, bool ADD>
inline void multiply(const float* tile, const float* panel, int64_t n_cells, const float* factors, float* results) {
    using T = RowTile<V>;
    typename V::Floats sums[T::ROWS][2];
#pragma GCC unroll 12
    for (int row = 0; row < T::ROWS; ++row) {
#pragma GCC unroll 2
        for (int i = 0; i < 2; ++i) {
            sums[row][i] = V::all(0);
            if (ADD) sums[row][i] = V::multiply(V::load(T::place(results, row, i)), V::all(factors[row]));
        }
    }
    for (int64_t cell = 0; cell < n_cells; ++cell, tile += T::CELL_FLOATS) {
#pragma GCC unroll 4
        for (int step = 0; step < CELL; ++step, panel += T::COLUMNS) {
            const auto left = V::load(panel), right = V::load(panel + V::LANES);
#pragma GCC unroll 12
            for (int row = 0; row < T::ROWS; ++row) {
                const auto number = V::all(tile[row * CELL + step]);
                sums[row][0] = V::multiply_add(number, left, sums[row][0]);
                sums[row][1] = V::multiply_add(number, right, sums[row][1]);
            }
        }
    }
#pragma GCC unroll 12
    for (int row = 0; row < T::ROWS; ++row) {
#pragma GCC unroll 2
        for (int i = 0; i < 2; ++i) V::store(T::place(results, row, i), sums[row][i]);
    }
}

}  // namespace
}  // namespace q3e
