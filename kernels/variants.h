// The kernels that are compiled in, the fastest first: Q3E_VARIANTS, from build.py.
//
// To add one: a file of its own that defines a Variant, a function in cpu.h that says where it runs, and a line in
// build.py with its name and its compiler flags. build.py leaves out what the compiler cannot do.
#pragma once

#include "cpu.h"
#include "operation.h"

namespace q3e {

struct Candidate {
    const Variant* variant;
    const char* (*why_not)();  // null: it runs here
};

#define Q3E_DECLARE(name) extern const Variant name;
#define Q3E_CANDIDATE(name) {&name, why_not_##name},

Q3E_VARIANTS(Q3E_DECLARE)
inline constexpr Candidate candidates[] = {Q3E_VARIANTS(Q3E_CANDIDATE)};

}  // namespace q3e
