#include "product.h"
#include "tile_words.h"

namespace q3e {

// Codes of 8 bits leave a word no room for sums, so Q8_0 stays with llama.cpp.
extern const Variant avx2 = {
    "avx2",
    product_scratch<Words, Type::Q4_K, Type::Q5_K, Type::Q6_K>,
    compute_product<Words, Type::Q4_K, Type::Q5_K, Type::Q6_K>,
    [](const Attention&, int) -> int64_t { return -1; },
    [](const Attention&, const Team&) {},
};
}  // namespace q3e
