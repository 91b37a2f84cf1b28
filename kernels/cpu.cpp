// Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, sections 13.2 (XGETBV), 14.3 (AVX), 15.2
// (AVX-512) and 18.3 (AMX); for AMX in Linux: https://docs.kernel.org/arch/x86/xstate.html
#include "cpu.h"

#if defined(__x86_64__)
#include <cpuid.h>

#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <cstdint>

namespace q3e {
namespace {

struct Leaf {
    unsigned a = 0, b = 0, c = 0, d = 0;
};

Leaf leaf(unsigned number, unsigned part = 0) {
    Leaf found;
    __get_cpuid_count(number, part, &found.a, &found.b, &found.c, &found.d);
    return found;
}

bool has(unsigned bits, int bit) { return bits >> bit & 1; }

// Which registers the operating system saves when it switches threads (XCR0).
uint64_t saved_registers() {
    if (!has(leaf(1).c, 27)) return 0;  // OSXSAVE
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return static_cast<uint64_t>(high) << 32 | low;
}

constexpr uint64_t YMM = 0x6, ZMM = 0xe6, TILES = 0x60000;

bool saves(uint64_t registers) { return (saved_registers() & registers) == registers; }

}  // namespace

const char* why_not_avx2() {
    const Leaf basic = leaf(1), more = leaf(7);
    if (!has(more.b, 5)) return "the CPU has no AVX2";
    if (!has(basic.c, 12) || !has(basic.c, 29)) return "the CPU has no FMA or no F16C";
    if (!saves(YMM)) return "the operating system does not save the registers of AVX";
    return nullptr;
}

const char* why_not_avxvnni() {
    if (const char* why = why_not_avx2()) return why;
    return has(leaf(7, 1).a, 4) ? nullptr : "the CPU has no AVX-VNNI";
}

const char* why_not_avx512() {
    if (const char* why = why_not_avx2()) return why;
    const Leaf more = leaf(7);
    // F, DQ, BW, VL
    if (!has(more.b, 16) || !has(more.b, 17) || !has(more.b, 30) || !has(more.b, 31)) return "the CPU has no AVX-512";
    if (!has(more.c, 11)) return "the CPU has no AVX-512 VNNI";
    if (!saves(ZMM)) return "the operating system does not save the registers of AVX-512";
    return nullptr;
}

const char* why_not_amx() {
    if (const char* why = why_not_avx512()) return why;
    const Leaf more = leaf(7);
    if (!has(more.d, 22) || !has(more.d, 24)) return "the CPU has no AMX with bfloat16";
    if (!has(leaf(7, 1).a, 5)) return "the CPU has no AVX-512 BF16";
    if (!saves(TILES)) return "the operating system does not save the registers of AMX";
#if defined(__linux__)
    // Linux grants the tiles to a process that asks: ARCH_REQ_XCOMP_PERM for XFEATURE_XTILEDATA.
    if (syscall(SYS_arch_prctl, 0x1023, 18) != 0) return "Linux does not grant this process AMX";
    return nullptr;
#else
    return "AMX is used on Linux only";
#endif
}

}  // namespace q3e
#endif
