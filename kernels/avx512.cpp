// CPUs with AVX-512 VNNI (Ice Lake, 2019; Zen 4, 2022; and later): products of bytes in vectors of 512 bits.
#include "attention.h"
#include "product.h"
#include "tile_dots.h"

namespace q3e {
namespace {

// 512 bits: 12 integer and 12 float sums, 2 vectors of weights and one of a token are 27 of 32 registers.
struct Vectors : Vector16 {
    using Integers = __m512i;
    static constexpr int TOKENS = 6, VECTORS = 2;
    using Vector16::all, Vector16::load;

    static Integers all(int32_t number) { return _mm512_set1_epi32(number); }
    template <class Lane> static Integers load(const Lane* from) { return _mm512_load_si512(from); }
    static Integers dot_bytes(Integers sum, Integers x, Integers y) { return _mm512_dpbusd_epi32(sum, x, y); }
    static Integers dot_words(Integers sum, Integers x, Integers y) { return _mm512_dpwssd_epi32(sum, x, y); }
    static Floats to_float(Integers x) { return _mm512_cvtepi32_ps(x); }
    static Floats subtract_product(Floats x, Floats y, Floats from) { return _mm512_fnmadd_ps(x, y, from); }
};

using Tile = Dots<Vectors>;

}  // namespace

extern const Variant avx512 = {
    "avx512",
    product_scratch<Tile, Type::Q4_K, Type::Q5_K, Type::Q6_K, Type::Q8_0>,
    compute_product<Tile, Type::Q4_K, Type::Q5_K, Type::Q6_K, Type::Q8_0>,
    attention_scratch<Vector16>,
    attention<Vector16>,
};
}  // namespace q3e
