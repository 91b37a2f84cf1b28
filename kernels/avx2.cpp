#include "attention.h"
#include "product.h"
#include "tile_words.h"

namespace q3e {
namespace {

int64_t scratch(const Product& product, int threads) {
    if (!is_batch(product)) return -1;
    switch (product.type) {
        case Type::Q4_K: return ProductOf<Words, Format<Type::Q4_K>>::scratch(product, threads);
        case Type::Q5_K: return ProductOf<Words, Format<Type::Q5_K>>::scratch(product, threads);
        case Type::Q6_K: return ProductOf<Words, Format<Type::Q6_K>>::scratch(product, threads);
        default: return -1;
    }
}

void compute(const Product& product, const Team& team) {
    switch (product.type) {
        case Type::Q4_K: return ProductOf<Words, Format<Type::Q4_K>>::compute(product, team);
        case Type::Q5_K: return ProductOf<Words, Format<Type::Q5_K>>::compute(product, team);
        case Type::Q6_K: return ProductOf<Words, Format<Type::Q6_K>>::compute(product, team);
        default: return;
    }
}

}  // namespace

extern const Variant avx2 = {
    "avx2",
    scratch,
    compute,
    attention_scratch<Vector8>,
    attention<Vector8>,
};
}  // namespace q3e
