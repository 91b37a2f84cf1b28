// Intel CPUs with AMX (Sapphire Rapids, 2023, and later): bfloat16 products in tile registers.
#include "amx_attention.h"
#include "amx_product.h"
#include "operation.h"
#include "variants.h"

namespace q3e {
namespace {

// Fewer tokens than a tile has rows take as long as all of them: int8 products, whose weights are unpacked in less
// time, are as fast or faster there. (An estimate from counts of instructions, not measured.)
constexpr int64_t FEW_TOKENS = SIDE;

bool are_few(const Product& product) { return product.tokens < FEW_TOKENS; }

int64_t product_scratch(const Product& product, int threads) {
    return are_few(product) ? avx512.product_scratch(product, threads) : tile_product_scratch(product, threads);
}

void product(const Product& product, const Team& team) {
    return are_few(product) ? avx512.product(product, team) : tile_product(product, team);
}

// Tiles of 32 rows are computed for fewer as well, and have a step of 32 numbers.
bool fill_tiles(const Attention& attention) {
    return attention.queries * attention.heads >= PAIR * attention.key_heads && attention.width % STEP == 0;
}

int64_t attention_scratch(const Attention& attention, int threads) {
    return fill_tiles(attention) ? tasks_scratch<TileAttention>(attention, threads)
                                 : avx512.attention_scratch(attention, threads);
}

void attention(const Attention& attention, const Team& team) {
    return fill_tiles(attention) ? compute_tasks<TileAttention>(attention, team) : avx512.attention(attention, team);
}

}  // namespace

extern const Variant amx = {
    "amx",
    product_scratch,
    product,
    attention_scratch,
    attention,
};

}  // namespace q3e
