// Arithmetic of sizes and places. Knows no kernel.
//
// Not std::min: the linker could keep the copy of an inline function that was compiled for AVX-512, and call it on
// every CPU.
#pragma once

#include <cstdint>

namespace q3e {
namespace {

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t larger(int64_t a, int64_t b) { return a < b ? b : a; }
inline int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t round_up(int64_t a, int64_t b) { return divide_up(a, b) * b; }

}  // namespace
}  // namespace q3e
