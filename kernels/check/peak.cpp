// What the arithmetic of a CPU could reach at best: loops of the instructions of one variant, over registers alone.
//
// The flags of a variant choose its instructions. Prints a line for products and one for attention: billions of
// operations in a second of CPU time, a multiplication and an addition being two, and the instructions. Knows nothing of
// kernels: there are no loads, no unpacking, no scales.
#include <immintrin.h>

#include <cstdio>
#include <ctime>

#include "../cpu.h"
#if defined(__AMX_BF16__)
#include "../amx_tiles.h"
#endif

namespace q3e {
namespace {

constexpr int PARTS = 5;          // of which the fastest counts
constexpr int REPEATS = 1 << 19;   // in a part: some milliseconds
// As many as hide the latency of any of the instructions; with the operands and a product they fit 16 registers.
constexpr int N_SUMS = 12;

// Step adds the product of two registers to a sum. Not by intrinsics: with these gcc computes what does not change
// before the loop, and keeps sums in memory.
template <class Step> struct Loop {
    static constexpr const char* INSTRUCTIONS = Step::INSTRUCTIONS;
    static constexpr double OPERATIONS = N_SUMS * Step::OPERATIONS;  // in a repeat

    static void run() {
        const typename Step::Register a = Step::number(), b = Step::number();
        typename Step::Register sums[N_SUMS];
#pragma GCC unroll 12
        for (int i = 0; i < N_SUMS; ++i) sums[i] = Step::number();
        for (int n = 0; n < REPEATS; ++n) {
#pragma GCC unroll 12
            for (int i = 0; i < N_SUMS; ++i) Step::add(sums[i], a, b);
        }
    }
};

#if defined(__AMX_BF16__)
struct TileProducts {
    static constexpr const char* INSTRUCTIONS = "tdpbf16ps";
    static constexpr double OPERATIONS = 4 * 2.0 * SIDE * SIDE * STEP;

    static void run() {
        alignas(64) uint16_t ones[TILE / 2];
        for (uint16_t& number : ones) number = 0x3f80;
        settle_memory();
        const Tiles tiles;
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        _tile_loadd(4, ones, 64);
        _tile_loadd(5, ones, 64);
        _tile_loadd(6, ones, 64);
        _tile_loadd(7, ones, 64);
        for (int n = 0; n < REPEATS; ++n) {
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(1, 4, 7);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
    }
};
using Products = TileProducts;
using Attentions = TileProducts;
constexpr auto why_not = why_not_amx;

#elif defined(__AVX512VNNI__)
struct ByteProducts {
    using Register = __m512i;
    static constexpr const char* INSTRUCTIONS = "vpdpbusd, 512 bits";
    static constexpr double OPERATIONS = 2 * 64;
    static Register number() { return _mm512_set1_epi8(3); }
    static void add(Register& sum, Register a, Register b) {
        __asm__ volatile("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
    }
};
struct FloatProducts {
    using Register = __m512;
    static constexpr const char* INSTRUCTIONS = "vfmadd, 512 bits";
    static constexpr double OPERATIONS = 2 * 16;
    static Register number() { return _mm512_set1_ps(1.5f); }
    static void add(Register& sum, Register a, Register b) {
        __asm__ volatile("vfmadd231ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
    }
};
using Products = Loop<ByteProducts>;
using Attentions = Loop<FloatProducts>;
constexpr auto why_not = why_not_avx512;

#else
struct FloatProducts {
    using Register = __m256;
    static constexpr const char* INSTRUCTIONS = "vfmadd, 256 bits";
    static constexpr double OPERATIONS = 2 * 8;
    static Register number() { return _mm256_set1_ps(1.5f); }
    static void add(Register& sum, Register a, Register b) {
        __asm__ volatile("vfmadd231ps %2, %1, %0" : "+x"(sum) : "x"(a), "x"(b));
    }
};
using Attentions = Loop<FloatProducts>;
#if defined(__AVXVNNI__)
struct ByteProducts {
    using Register = __m256i;
    static constexpr const char* INSTRUCTIONS = "vpdpbusd, 256 bits";
    static constexpr double OPERATIONS = 2 * 32;
    static Register number() { return _mm256_set1_epi8(3); }
    static void add(Register& sum, Register a, Register b) {
        __asm__ volatile("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(a), "x"(b));
    }
};
constexpr auto why_not = why_not_avxvnni;
#else
struct ByteProducts {
    using Register = __m256i;
    static constexpr const char* INSTRUCTIONS = "vpmaddubsw and vpaddw, 256 bits";
    static constexpr double OPERATIONS = 2 * 32;
    static Register number() { return _mm256_set1_epi8(3); }
    static void add(Register& sum, Register a, Register b) {
        Register product;
        __asm__ volatile("vpmaddubsw %3, %2, %1\n\tvpaddw %1, %0, %0" : "+x"(sum), "=&x"(product) : "x"(a), "x"(b));
    }
};
constexpr auto why_not = why_not_avx2;
#endif
using Products = Loop<ByteProducts>;
#endif

double cpu_seconds() {
    timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return now.tv_sec + 1e-9 * now.tv_nsec;
}

template <class L> void print_peak(const char* name) {
    double best = 0;
    for (int part = 0; part < PARTS; ++part) {
        const double begin = cpu_seconds();
        L::run();
        const double speed = 1e-9 * L::OPERATIONS * REPEATS / (cpu_seconds() - begin);
        if (speed > best) best = speed;
    }
    std::printf("%s %.1f %s\n", name, best, L::INSTRUCTIONS);
}

}  // namespace
}  // namespace q3e

int main() {
    if (const char* why = q3e::why_not()) {  // for AMX it asks Linux, too
        std::fprintf(stderr, "%s\n", why);
        return 1;
    }
    q3e::print_peak<q3e::Products>("products");
    q3e::print_peak<q3e::Attentions>("attention");
}
