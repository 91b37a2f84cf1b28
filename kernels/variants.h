// The kernels that are compiled in, the fastest first.
//
// To add one: a file of its own that defines a Variant, a line here, a function in cpu.h that says where it runs, and
// its compiler flags in build.py.
#pragma once

#include "cpu.h"
#include "operation.h"

namespace q3e {

extern const Variant amx, avx512, avxvnni, avx2;

struct Candidate {
    const Variant* variant;
    const char* (*why_not)();  // null: it runs here
};

#if defined(__x86_64__)
inline constexpr Candidate candidates[] = {
    {&amx, why_not_amx},
    {&avx512, why_not_avx512},
    {&avxvnni, why_not_avxvnni},
    {&avx2, why_not_avx2},
};
#endif

}  // namespace q3e
