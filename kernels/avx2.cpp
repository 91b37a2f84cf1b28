// CPUs with AVX2, FMA and F16C (Haswell, 2013; Zen, 2017; and later): products of bytes, added as 16-bit words.
#include "attention.h"
#include "product.h"
#include "tile_words.h"

namespace q3e {

// Codes of 8 bits leave a word no room for sums, so Q8_0 stays with llama.cpp.
extern const Variant avx2 = {
    "avx2",
    product_scratch<Words, Type::Q4_K, Type::Q5_K, Type::Q6_K>,
    compute_product<Words, Type::Q4_K, Type::Q5_K, Type::Q6_K>,
    attention_scratch<Vector8>,
    attention<Vector8>,
};
}  // namespace q3e
