// Blocks of quantized weights, as GGUF files have them.
//
// The formats are those of ggml's ggml-common.h (MIT License, Copyright (c) 2023-2026 The ggml authors):
// https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml-common.h
#pragma once

#include <cstdint>

namespace q3e {

constexpr int SUPER = 256;  // weights in a block of the K types

// weight = d * scale[j] * code - dmin * min[j], codes of 4 bits, j = one of 8 groups of 32
struct BlockQ4K {
    uint16_t d, dmin;    // float16
    uint8_t scales[12];  // 8 scales and 8 mins of 6 bits
    uint8_t low[128];    // 64 codes in 32 bytes: the low halves are group 2i, the high halves group 2i + 1
};

// The same with codes of 5 bits
struct BlockQ5K {
    uint16_t d, dmin;
    uint8_t scales[12];
    uint8_t high[32];    // bit j of byte i: the fifth bit of code i of group j
    uint8_t low[128];
};

// weight = d * scale[j] * (code - 32), codes of 6 bits, j = one of 16 groups of 16
struct BlockQ6K {
    uint8_t low[128];
    uint8_t high[64];
    int8_t scales[16];
    uint16_t d;
};

// weight = d * code, codes of 8 bits with a sign, 32 of them
struct BlockQ80 {
    uint16_t d;
    int8_t codes[32];
};

static_assert(sizeof(BlockQ4K) == 144 && sizeof(BlockQ5K) == 176 && sizeof(BlockQ6K) == 210 && sizeof(BlockQ80) == 34);

}  // namespace q3e
