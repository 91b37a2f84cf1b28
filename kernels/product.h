// Products of quantized weights with a batch of tokens: who computes what, and in which order.
//
// The team rounds the tokens to 8 bits, then its threads take panels of rows. A panel is unpacked once for all tokens.
// Tile is the micro kernel: it says how many tokens and rows it multiplies at a time, and adds up their products.
#pragma once

#include "activations.h"
#include "integers.h"
#include "unpack.h"

namespace q3e {
namespace {

// Below this many tokens unpacking costs more than it saves.
constexpr int64_t MIN_TOKENS = 4;
// A strip of this many blocks fits the first-level cache beside a tile of tokens, and a panel of them the second.
constexpr int64_t SLAB = 4;
constexpr int64_t PANEL_ROWS = 64;
// Tokens of which a slab stays in the second-level cache while all strips of a panel use it.
constexpr int64_t CACHED_TOKENS = 192;

template <class Tile, class Format> class ProductOf {
    using Codes = Strip<Format, Tile::ROWS, typename Tile::Scale>;
    using Tokens = Numbers<Format, Tile::TOKENS>;
    static constexpr int64_t STRIPS = PANEL_ROWS / Tile::ROWS;
    static constexpr int64_t BLOCK_BYTES = sizeof(typename Format::Block) * Format::BLOCKS;

    const Product& product;
    const Team& team;
    const int64_t n_blocks, n_tiles;
    Tokens* const tokens;  // n_blocks of each tile
    Codes* const panel;    // SLAB of each strip; of this thread alone

    static int64_t token_bytes(const Product& product) {
        return round_up(divide_up(product.tokens, Tile::TOKENS) * (product.depth / SUPER) * sizeof(Tokens), 64);
    }
    static constexpr int64_t PANEL_BYTES = STRIPS * SLAB * sizeof(Codes);

    ProductOf(const Product& given, const Team& given_team)
        : product(given), team(given_team), n_blocks(given.depth / SUPER), n_tiles(divide_up(given.tokens, Tile::TOKENS)),
          tokens(reinterpret_cast<Tokens*>(given_team.scratch)),
          panel(reinterpret_cast<Codes*>(given_team.scratch + token_bytes(given) + given_team.rank * PANEL_BYTES)) {}

    void round_tokens() const {
        for (int64_t tile = team.rank; tile < n_tiles; tile += team.size) {
            const int64_t first = tile * Tile::TOKENS, n = smaller(Tile::TOKENS, product.tokens - first);
            const uint8_t* input = reinterpret_cast<const uint8_t*>(product.input) + first * product.input_stride;
            round_tile<Format, Tile::TOKENS, Tile::HALVES>(input, product.input_stride, n, n_blocks, tokens + tile * n_blocks);
        }
    }

    // Rows beyond the last are copies of it, whose products are not stored.
    void unpack_panel(int64_t first_row, int64_t n_strips, int64_t first_block, int64_t n) const {
        for (int64_t strip = 0; strip < n_strips; ++strip) {
            for (int lane = 0; lane < Tile::ROWS; lane += 8) {
                const uint8_t* rows[8];
                for (int r = 0; r < 8; ++r) {
                    const int64_t row = smaller(first_row + strip * Tile::ROWS + lane + r, product.rows - 1);
                    rows[r] = product.weights + row * product.weight_stride + first_block * BLOCK_BYTES;
                }
                for (int64_t b = 0; b < n; ++b) {
                    unpack(Format{}, rows, panel[strip * SLAB + b], lane);
                    for (const uint8_t*& row : rows) row += BLOCK_BYTES;
                }
            }
        }
    }

    void multiply(int64_t tile, int64_t first_row, const Codes* strip, int64_t first_block, int64_t n) const {
        alignas(64) float sums[Tile::TOKENS][Tile::ROWS] = {};
        Tile::template add<Format>(strip, tokens + tile * n_blocks + first_block, n, sums);
        const int64_t first_token = tile * Tile::TOKENS, n_rows = smaller(Tile::ROWS, product.rows - first_row);
        uint8_t* output = reinterpret_cast<uint8_t*>(product.output) + first_token * product.output_stride;
        for (int64_t t = 0; t < smaller(Tile::TOKENS, product.tokens - first_token); ++t) {
            float* to = reinterpret_cast<float*>(output + t * product.output_stride) + first_row;
            if (n_rows == Tile::ROWS) {
                for (int r = 0; r < Tile::ROWS; ++r) to[r] = sums[t][r] + (first_block ? to[r] : 0.0f);
            } else {
                for (int r = 0; r < n_rows; ++r) to[r] = sums[t][r] + (first_block ? to[r] : 0.0f);
            }
        }
    }

    void compute_panel(int64_t first_row) const {
        const int64_t n_strips = divide_up(smaller(PANEL_ROWS, product.rows - first_row), Tile::ROWS);
        constexpr int64_t CACHED = CACHED_TOKENS / Tile::TOKENS;
        for (int64_t block = 0; block < n_blocks; block += SLAB) {
            const int64_t n = smaller(SLAB, n_blocks - block);
            unpack_panel(first_row, n_strips, block, n);
            for (int64_t begin = 0; begin < n_tiles; begin += CACHED) {
                for (int64_t strip = 0; strip < n_strips; ++strip) {
                    for (int64_t tile = begin; tile < smaller(begin + CACHED, n_tiles); ++tile) {
                        multiply(tile, first_row + strip * Tile::ROWS, panel + strip * SLAB, block, n);
                    }
                }
            }
        }
    }

  public:
    static int64_t scratch(const Product& product, int threads) { return token_bytes(product) + threads * PANEL_BYTES; }

    static void compute(const Product& product, const Team& team) {
        const ProductOf work(product, team);
        if (team.rank == 0) team.restart(team.pool, 0);
        work.round_tokens();
        team.wait(team.pool);
        const int64_t n_panels = divide_up(product.rows, PANEL_ROWS);
        for (int64_t i = team.take(team.pool, 1); i < n_panels; i = team.take(team.pool, 1)) work.compute_panel(i * PANEL_ROWS);
    }
};

inline bool is_batch(const Product& product) {
    return product.tokens >= MIN_TOKENS && product.rows > 0 && product.depth > 0 && product.depth % SUPER == 0;
}

// The functions of a Variant, for weights of these types.
template <class Tile, Type... TYPES> int64_t product_scratch(const Product& product, int threads) {
    int64_t bytes = -1;
    if (!is_batch(product)) return bytes;
    ((product.type == TYPES ? void(bytes = ProductOf<Tile, Format<TYPES>>::scratch(product, threads)) : void()), ...);
    return bytes;
}

template <class Tile, Type... TYPES> void compute_product(const Product& product, const Team& team) {
    ((product.type == TYPES ? ProductOf<Tile, Format<TYPES>>::compute(product, team) : void()), ...);
}

}  // namespace
}  // namespace q3e
