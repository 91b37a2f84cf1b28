// Products with weights of any type, in bfloat16: both sides are rounded to it, products and sums are float32.
//
// Knows how the work is cut to fit the caches and the threads. The sums of an output do not depend on that cut, so they
// do not depend on the number of threads.
#pragma once

#include "amx_tiles.h"
#include "amx_unpack.h"
#include "integers.h"
#include "operation.h"

namespace q3e {
namespace {

// Weights are unpacked in panels of 1 MB, which stay in the second-level cache while all tokens pass: 512 rows where the
// depth is 1,024 or less, so that the tokens pass seldom, and else 256 rows and up to 2,048 of the depth. Two bands of
// tokens meet a panel in slices of 512 numbers: 32 KB, which stay in the first-level cache while the panel is loaded past
// them. (Measured on a CPU with caches of 2 MB and 48 KB: docs/performance.md.)
constexpr int64_t PANEL_TILES = 1024, SLICE_STEPS = 512 / STEP, SUPER_STEPS = SUPER / STEP;
constexpr int64_t MOST_ROWS = 512, MOST_STEPS = 2048 / STEP;
constexpr int64_t WINDOW = 4 * SIDE * SIDE;  // sums of two bands of tokens and two groups of 16 rows
constexpr int64_t PANEL_BYTES = PANEL_TILES * TILE + sizeof(float) * WINDOW * MOST_ROWS / (2 * SIDE);

// How a product is cut: tokens into bands of 16, the rows into panels, one panel to a task, its depth into slabs.
struct Cut {
    int64_t steps, bands, slab_steps, panel_rows, panels;
};

inline Cut cut(const Product& product, int threads) {
    const int64_t steps = product.depth / STEP, blocks = divide_up(steps, SUPER_STEPS);
    const int64_t slab_steps = divide_up(blocks, divide_up(steps, MOST_STEPS)) * SUPER_STEPS;
    int64_t panel_rows = slab_steps <= MOST_STEPS / 2 ? MOST_ROWS : MOST_ROWS / 2;
    while (panel_rows > 2 * SIDE && divide_up(product.rows, panel_rows) < 2 * threads) panel_rows /= 2;
    return {steps, divide_up(product.tokens, SIDE), slab_steps, panel_rows, divide_up(product.rows, panel_rows)};
}

inline int64_t input_bytes(const Cut& cut) { return cut.bands * cut.steps * TILE; }

// The smallest piece of a row, or 0 for a type that is left to llama.cpp: float16 has three bits more than bfloat16
inline int64_t piece_of(Type type) {
    switch (type) {
        case Type::Q4_K:
        case Type::Q5_K:
        case Type::Q6_K: return SUPER;
        case Type::Q8_0:
        case Type::BF16: return STEP;
        case Type::F16:
        case Type::F32: break;
    }
    return 0;
}

inline int64_t tile_product_scratch(const Product& product, int threads) {
    const int64_t piece = piece_of(product.type);
    if (piece == 0 || product.depth == 0 || product.depth % piece != 0) return -1;
    return input_bytes(cut(product, threads)) + threads * PANEL_BYTES;
}

// Tokens of a band, along one block of the depth, as tiles of A. Tokens behind the last are zeros.
inline void pack_tokens(const Product& product, int64_t band, int64_t first_step, int64_t steps, uint8_t* tiles) {
    for (int64_t i = 0; i < SIDE; ++i) {
        const int64_t token = band * SIDE + i;
        const auto* from = reinterpret_cast<const float*>(reinterpret_cast<const char*>(product.input) +
                                                          token * product.input_stride) + first_step * STEP;
        for (int64_t step = 0; step < steps; ++step) {
            __m512i numbers = _mm512_setzero_si512();
            if (token < product.tokens) {
                const float* at = from + step * STEP;
                numbers = rounded(_mm512_loadu_ps(at), _mm512_loadu_ps(at + SIDE));
            }
            _mm512_store_si512(tiles + step * TILE + i * 64, numbers);
        }
    }
}

// All tokens, by all threads of the team
inline void pack_input(const Product& product, const Cut& cut, const Team& team) {
    const int64_t blocks = divide_up(cut.steps, SUPER_STEPS);
    for (int64_t i = team.rank; i < cut.bands * blocks; i += team.size) {
        const int64_t band = i / blocks, first = i % blocks * SUPER_STEPS;
        pack_tokens(product, band, first, smaller(SUPER_STEPS, cut.steps - first),
                    team.scratch + (band * cut.steps + first) * TILE);
    }
}

// 16 rows of weights from `row` on, along a slab, as tiles of B. Rows behind the last are zeros.
template <class Unpack>
void pack_rows(const Product& product, int64_t row, int64_t first_step, int64_t steps, uint8_t* tiles) {
    alignas(64) uint16_t numbers[SIDE][SUPER];
    const int64_t present = smaller(SIDE, product.rows - row);
    if (present < SIDE) std::memset(numbers, 0, sizeof numbers);
    for (int64_t done = 0; done < steps; done += SUPER_STEPS) {
        const int64_t now = smaller(SUPER_STEPS, steps - done);
        for (int64_t i = 0; i < present; ++i) {
            const uint8_t* piece = product.weights + (row + i) * product.weight_stride +
                                   (first_step + done) * STEP / Unpack::SIZE * Unpack::BYTES;
            for (int64_t k = 0; k < now * STEP; k += Unpack::SIZE, piece += Unpack::BYTES) {
                Unpack::unpack(piece, numbers[i] + k);
            }
        }
        for (int64_t step = 0; step < now; ++step) {
            store_as_columns(numbers[0] + step * STEP, SUPER, tiles + (done + step) * TILE);
        }
    }
}

using PackRows = void (*)(const Product&, int64_t row, int64_t first_step, int64_t steps, uint8_t* tiles);

inline PackRows packer(Type type) {
    switch (type) {
        case Type::Q4_K: return pack_rows<UnpackQ4K>;
        case Type::Q5_K: return pack_rows<UnpackQ5K>;
        case Type::Q6_K: return pack_rows<UnpackQ6K>;
        case Type::Q8_0: return pack_rows<UnpackQ80>;
        case Type::BF16: return pack_rows<UnpackBF16>;
        case Type::F16:
        case Type::F32: break;
    }
    return nullptr;
}

// What one thread does: a panel after the other, with all tokens.
class Panels {
  public:
    Panels(const Product& product, const Cut& cut, const Team& team)
        : product_(product), cut_(cut), input_(team.scratch),
          tiles_(team.scratch + input_bytes(cut) + team.rank * PANEL_BYTES),
          sums_(reinterpret_cast<float*>(tiles_ + PANEL_TILES * TILE)) {}

    void compute(int64_t panel) {
        first_row_ = panel * cut_.panel_rows;
        n_rows_ = smaller(cut_.panel_rows, product_.rows - first_row_);
        for (first_step_ = 0; first_step_ < cut_.steps; first_step_ += cut_.slab_steps) {
            steps_ = smaller(cut_.slab_steps, cut_.steps - first_step_);
            unpack();
            for (int64_t band = 0; band < cut_.bands; band += 2) {
                if (band + 1 < cut_.bands) {
                    multiply<2>(band);
                } else {
                    multiply<1>(band);
                }
            }
        }
    }

  private:
    // Groups of 16 rows come in twos.
    void unpack() {
        const PackRows pack = packer(product_.type);
        for (int64_t row = 0; row < round_up(n_rows_, 2 * SIDE); row += SIDE) {
            pack(product_, first_row_ + row, first_step_, steps_, tiles_of(row));
        }
    }

    uint8_t* tiles_of(int64_t row) const { return tiles_ + row / SIDE * steps_ * TILE; }

    // A bands of tokens and all rows, along the slab. Sums of a window stay in a buffer from slice to slice, and in the
    // output from slab to slab; what reaches over the edge of the output is copied from there and back.
    template <int A>
    void multiply(int64_t band) {
        const int64_t slice = divide_up(steps_, divide_up(steps_, SLICE_STEPS)), token = band * SIDE;
        for (int64_t first = 0; first < steps_; first += slice) {
            const int64_t steps = smaller(slice, steps_ - first);
            const uint8_t* a = input_ + (band * cut_.steps + first_step_ + first) * TILE;
            const bool begins = first == 0 && first_step_ == 0, ends = first + steps == steps_;
            float* sums = sums_;
            for (int64_t row = 0; row < n_rows_; row += 2 * SIDE, sums += WINDOW) {
                const bool whole = tokens_from(token) == 2 * SIDE && n_rows_ - row >= 2 * SIDE;
                const Square here = window(sums), there = square(output(token, row), product_.output_stride);
                if (!whole && first == 0 && !begins) copy(sums, token, row, true);
                const Square& from = whole && first == 0 ? there : here;
                add_products<A>(a, cut_.steps * TILE, tiles_of(row) + first * TILE, steps_ * TILE, steps,
                                begins ? nullptr : &from, whole && ends ? there : here);
                if (!whole && ends) copy(sums, token, row, false);
            }
        }
    }

    float* output(int64_t token, int64_t row) const {
        return reinterpret_cast<float*>(reinterpret_cast<char*>(product_.output) + token * product_.output_stride) +
               first_row_ + row;
    }

    int64_t tokens_from(int64_t token) const { return smaller(2 * SIDE, product_.tokens - token); }

    // The sums of a window from the part of it that is in the output, or back.
    void copy(float* sums, int64_t token, int64_t row, bool in) const {
        const uint32_t present = 0xffffffffu >> (2 * SIDE - smaller(2 * SIDE, n_rows_ - row));
        for (int64_t i = 0; i < tokens_from(token); ++i) {
            for (int half = 0; half < 2; ++half) {
                const __mmask16 mask = static_cast<__mmask16>(present >> half * SIDE);
                float* there = output(token + i, row) + half * SIDE;
                float* here = sums + (i / SIDE * 2 + half) * SIDE * SIDE + i % SIDE * SIDE;
                if (in) {
                    _mm512_store_ps(here, _mm512_maskz_loadu_ps(mask, there));
                } else {
                    _mm512_mask_storeu_ps(there, mask, _mm512_load_ps(here));
                }
            }
        }
    }

    const Product& product_;
    const Cut& cut_;
    const uint8_t* input_;
    uint8_t* tiles_;  // [group of 16 rows][step] of the slab
    float* sums_;     // windows, each of four tiles, of all rows of the panel
    int64_t first_row_ = 0, n_rows_ = 0, first_step_ = 0, steps_ = 0;
};

inline void tile_product(const Product& product, const Team& team) {
    const Cut parts = cut(product, team.size);
    if (team.rank == 0) team.restart(team.pool, 0);
    pack_input(product, parts, team);
    team.wait(team.pool);
    const Tiles tiles;
    Panels panels(product, parts, team);
    for (int64_t panel; (panel = team.take(team.pool, 1)) < parts.panels;) panels.compute(panel);
}

}  // namespace
}  // namespace q3e
