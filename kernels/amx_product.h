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

// A panel of weights, 256 rows and 1,024 of the depth, is unpacked to 512 KB, which stay in the second-level cache for
// all tokens. (Measured on Sapphire Rapids: with 128 rows and 512 it takes 1.2 times as long.)
constexpr int64_t PANEL_ROWS = 256, PANEL_STEPS = 1024 / STEP, SUPER_STEPS = SUPER / STEP;
constexpr int64_t PANEL_BYTES = PANEL_ROWS / SIDE * PANEL_STEPS * TILE;

// How a product is cut: tokens into bands of 16, the depth into slabs, the rows into panels, one panel to a task.
struct Cut {
    int64_t steps, bands, slab_steps, panel_rows, panels;
};

inline Cut cut(const Product& product, int threads) {
    const int64_t steps = product.depth / STEP, blocks = divide_up(steps, SUPER_STEPS);
    const int64_t slabs = divide_up(steps, PANEL_STEPS);
    int64_t panel_rows = PANEL_ROWS;
    while (panel_rows > 2 * SIDE && divide_up(product.rows, panel_rows) < 2 * threads) panel_rows /= 2;
    return {steps, divide_up(product.tokens, SIDE), divide_up(blocks, slabs) * SUPER_STEPS, panel_rows,
            divide_up(product.rows, panel_rows)};
}

inline int64_t input_bytes(const Cut& cut) { return cut.bands * cut.steps * TILE; }

// The smallest piece of a row, or 0 for a type without weights
inline int64_t piece_of(Type type) {
    switch (type) {
        case Type::Q4_K:
        case Type::Q5_K:
        case Type::Q6_K: return SUPER;
        case Type::Q8_0:
        case Type::F16:
        case Type::BF16: return STEP;
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
        case Type::F16: return pack_rows<UnpackF16>;
        case Type::BF16: return pack_rows<UnpackBF16>;
        case Type::F32: break;
    }
    return nullptr;
}

// The outputs of two bands of tokens and two groups of 16 rows. Their sums between slabs are in the output itself;
// tiles that reach over its edge have theirs in a buffer, from which the part inside is copied.
class Window {
  public:
    Window(const Product& product, int64_t token, int64_t row) : product_(product), token_(token), row_(row) {
        for (int i = 0; i < 2; ++i) {
            for (int j = 0; j < 2; ++j) {
                square_.sums[i][j] = inside(i, j) ? Sums{output(i, j), product.output_stride} : Sums{edge_[i][j], 64};
            }
        }
    }

    void add(const uint8_t* a, size_t a_next, const uint8_t* b, size_t b_next, int64_t steps, bool fresh) {
        const bool whole = inside(1, 1);
        if (!whole && !fresh) copy_edges(true);
        if (token_ + SIDE < product_.tokens) {
            add_products<2>(a, a_next, b, b_next, steps, square_, fresh);
        } else {
            add_products<1>(a, a_next, b, b_next, steps, square_, fresh);
        }
        if (!whole) copy_edges(false);
    }

  private:
    bool inside(int i, int j) const {
        return token_ + (i + 1) * SIDE <= product_.tokens && row_ + (j + 1) * SIDE <= product_.rows;
    }

    float* output(int i, int j, int64_t line = 0) const {
        return reinterpret_cast<float*>(reinterpret_cast<char*>(product_.output) +
                                        (token_ + i * SIDE + line) * product_.output_stride) + row_ + j * SIDE;
    }

    void copy_edges(bool in) {
        for (int i = 0; i < 2; ++i) {
            for (int j = 0; j < 2; ++j) {
                const int64_t lines = smaller(SIDE, product_.tokens - token_ - i * SIDE);
                const int64_t columns = smaller(SIDE, product_.rows - row_ - j * SIDE);
                if (inside(i, j) || columns <= 0) continue;
                const __mmask16 present = static_cast<__mmask16>((1 << columns) - 1);
                for (int64_t line = 0; line < lines; ++line) {
                    float *there = output(i, j, line), *here = edge_[i][j] + line * SIDE;
                    if (in) {
                        _mm512_store_ps(here, _mm512_maskz_loadu_ps(present, there));
                    } else {
                        _mm512_mask_storeu_ps(there, present, _mm512_load_ps(here));
                    }
                }
            }
        }
    }

    const Product& product_;
    int64_t token_, row_;
    Square square_;
    alignas(64) float edge_[2][2][SIDE * SIDE];
};

inline void multiply_panel(const Product& product, const Cut& cut, int64_t panel, const uint8_t* input,
                           uint8_t* tiles) {
    const int64_t first_row = panel * cut.panel_rows, end = smaller(first_row + cut.panel_rows, product.rows);
    const PackRows pack = packer(product.type);
    for (int64_t first = 0; first < cut.steps; first += cut.slab_steps) {
        const int64_t steps = smaller(cut.slab_steps, cut.steps - first);
        const size_t band_bytes = cut.steps * TILE, group_bytes = steps * TILE;
        for (int64_t group = 0; group * SIDE < cut.panel_rows; ++group) {
            pack(product, first_row + group * SIDE, first, steps, tiles + group * group_bytes);
        }
        for (int64_t band = 0; band < cut.bands; band += 2) {
            const uint8_t* a = input + band * band_bytes + first * TILE;
            for (int64_t row = first_row; row < end; row += 2 * SIDE) {
                Window window(product, band * SIDE, row);
                const uint8_t* b = tiles + (row - first_row) / SIDE * group_bytes;
                window.add(a, band_bytes, b, group_bytes, steps, first == 0);
            }
        }
    }
}

inline void tile_product(const Product& product, const Team& team) {
    const Cut parts = cut(product, team.size);
    uint8_t* panel_tiles = team.scratch + input_bytes(parts) + team.rank * PANEL_BYTES;
    if (team.rank == 0) team.restart(team.pool, 0);
    pack_input(product, parts, team);
    team.wait(team.pool);
    const Tiles tiles;
    for (int64_t panel; (panel = team.take(team.pool, 1)) < parts.panels;) {
        multiply_panel(product, parts, panel, team.scratch, panel_tiles);
    }
}

}  // namespace
}  // namespace q3e
