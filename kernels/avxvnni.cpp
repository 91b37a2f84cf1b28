// Intel CPUs with AVX-VNNI and without AVX-512 (Alder Lake, 2021, and later): products of bytes in vectors of 256 bits.
#include "attention.h"
#include "product.h"
#include "tile_dots.h"

namespace q3e {
namespace {

// 256 bits. With 4 tokens the float sums would not fit the 16 registers.
struct Vectors : Vector8 {
    using Integers = __m256i;
    static constexpr int TOKENS = 3, VECTORS = 2;
    using Vector8::all, Vector8::load;

    static Integers all(int32_t number) { return _mm256_set1_epi32(number); }
    template <class Lane> static Integers load(const Lane* from) { return _mm256_load_si256(reinterpret_cast<const __m256i*>(from)); }
    static Integers dot_bytes(Integers sum, Integers x, Integers y) { return _mm256_dpbusd_avx_epi32(sum, x, y); }
    static Integers dot_words(Integers sum, Integers x, Integers y) { return _mm256_dpwssd_avx_epi32(sum, x, y); }
    static Floats to_float(Integers x) { return _mm256_cvtepi32_ps(x); }
    static Floats subtract_product(Floats x, Floats y, Floats from) { return _mm256_fnmadd_ps(x, y, from); }
};

using Tile = Dots<Vectors>;

}  // namespace

extern const Variant avxvnni = {
    "avxvnni",
    product_scratch<Tile, Type::Q4_K, Type::Q5_K, Type::Q6_K, Type::Q8_0>,
    compute_product<Tile, Type::Q4_K, Type::Q5_K, Type::Q6_K, Type::Q8_0>,
    attention_scratch<Vector8>,
    attention<Vector8>,
};
}  // namespace q3e
