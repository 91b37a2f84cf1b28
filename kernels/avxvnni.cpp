#include "product.h"
#include "tile_dots.h"

namespace q3e {
namespace {

// 256 bits. With 4 tokens the float sums would not fit the 16 registers.
struct Vectors {
    using Int = __m256i;
    using Float = __m256;
    static constexpr int TOKENS = 3, VECTORS = 2, LANES = 8;

    static Float zero() { return _mm256_setzero_ps(); }
    static Int all(int32_t number) { return _mm256_set1_epi32(number); }
    static Float all(float number) { return _mm256_set1_ps(number); }
    template <class Lane> static Int load(const Lane* from) { return _mm256_load_si256(reinterpret_cast<const Int*>(from)); }
    static Float load(const float* from) { return _mm256_load_ps(from); }
    static void store(float* to, Float lanes) { _mm256_store_ps(to, lanes); }
    static Int dot_bytes(Int sum, Int codes, Int numbers) { return _mm256_dpbusd_avx_epi32(sum, codes, numbers); }
    static Int dot_words(Int sum, Int a, Int b) { return _mm256_dpwssd_avx_epi32(sum, a, b); }
    static Float to_float(Int lanes) { return _mm256_cvtepi32_ps(lanes); }
    static Float add(Float a, Float b) { return _mm256_add_ps(a, b); }
    static Float multiply(Float a, Float b) { return _mm256_mul_ps(a, b); }
    static Float fma(Float a, Float b, Float sum) { return _mm256_fmadd_ps(a, b, sum); }
    static Float subtract_product(Float a, Float b, Float from) { return _mm256_fnmadd_ps(a, b, from); }
};

using Tile = Dots<Vectors>;

}  // namespace

extern const Variant avxvnni = {
    "avxvnni",
    product_scratch<Tile, Type::Q4_K, Type::Q5_K, Type::Q6_K, Type::Q8_0>,
    compute_product<Tile, Type::Q4_K, Type::Q5_K, Type::Q6_K, Type::Q8_0>,
    [](const Attention&, int) -> int64_t { return -1; },
    [](const Attention&, const Team&) {},
};
}  // namespace q3e
