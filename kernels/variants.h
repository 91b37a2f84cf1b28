// The kernels that are compiled in, the fastest first.
//
// To add one: a file of its own that defines a Variant, a line here, a function in cpu.h that says where it runs, and
// its compiler flags in build.py. What a compiler cannot do, build.py leaves out: Q3E_WITHOUT_AMX.
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
#ifndef Q3E_WITHOUT_AMX
    {&amx, why_not_amx},
#endif
#ifndef Q3E_WITHOUT_AVX512
    {&avx512, why_not_avx512},
#endif
#ifndef Q3E_WITHOUT_AVXVNNI
    {&avxvnni, why_not_avxvnni},
#endif
#ifndef Q3E_WITHOUT_AVX2
    {&avx2, why_not_avx2},
#endif
};
#endif

}  // namespace q3e
