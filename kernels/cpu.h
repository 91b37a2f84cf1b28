// What this CPU and its operating system allow.
#pragma once

namespace q3e {

// Why a variant cannot run here, or null when it can. The operating system counts too: it must save the wide registers
// of a thread, and grant AMX.
const char* why_not_avx2();
const char* why_not_avxvnni();
const char* why_not_avx512();
const char* why_not_amx();

}  // namespace q3e
