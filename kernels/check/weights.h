// Random weights of each type, and what they mean in double precision.
//
// Written from the descriptions in blocks.h, one weight at a time; knows no kernel.
#pragma once

#include <vector>

#include "../blocks.h"
#include "../operation.h"
#include "numbers.h"

namespace q3e::check {

inline const char* name_of(Type type) {
    switch (type) {
        case Type::F32: return "F32";
        case Type::F16: return "F16";
        case Type::BF16: return "BF16";
        case Type::Q8_0: return "Q8_0";
        case Type::Q4_K: return "Q4_K";
        case Type::Q5_K: return "Q5_K";
        case Type::Q6_K: return "Q6_K";
    }
    return "?";
}

// The smallest piece of a type: how many numbers it holds, in how many bytes.
struct Piece {
    int numbers;
    size_t bytes;
};

inline Piece piece_of(Type type) {
    switch (type) {
        case Type::F32: return {1, 4};
        case Type::F16: return {1, 2};
        case Type::BF16: return {1, 2};
        case Type::Q8_0: return {32, sizeof(BlockQ80)};
        case Type::Q4_K: return {SUPER, sizeof(BlockQ4K)};
        case Type::Q5_K: return {SUPER, sizeof(BlockQ5K)};
        case Type::Q6_K: return {SUPER, sizeof(BlockQ6K)};
    }
    return {1, 1};
}

inline size_t row_bytes(Type type, int64_t numbers) {
    const Piece piece = piece_of(type);
    return static_cast<size_t>(numbers / piece.numbers) * piece.bytes;
}

// One weight, and how large the parts are whose sum it is: a kernel may add those parts apart, with the rounding errors
// of numbers of their size.
struct Weight {
    double value, size;
};

// What random blocks hold: any codes and scales, or the largest of both, which is where narrow sums overflow.
enum class Filling { RANDOM, LARGEST };

template <typename Block>
Block read_block(const uint8_t* data, int64_t i) {
    Block block;
    std::memcpy(&block, data + static_cast<size_t>(i) * sizeof block, sizeof block);
    return block;
}

inline int scale_of_6_bits(const uint8_t* packed, int group) {
    return group < 4 ? packed[group] & 63 : (packed[group + 4] & 15) | packed[group - 4] >> 6 << 4;
}

inline int min_of_6_bits(const uint8_t* packed, int group) {
    return group < 4 ? packed[group + 4] & 63 : packed[group + 4] >> 4 | packed[group] >> 6 << 4;
}

inline Weight weight_with_min(uint16_t d, uint16_t dmin, const uint8_t* scales, int group, int code) {
    const double scaled = from_f16(d) * scale_of_6_bits(scales, group) * code;
    const double minimum = from_f16(dmin) * min_of_6_bits(scales, group);
    return {scaled - minimum, std::fabs(scaled) + std::fabs(minimum)};
}

inline Weight weight_q4k(const uint8_t* row, int64_t k) {
    const auto block = read_block<BlockQ4K>(row, k / SUPER);
    const int i = static_cast<int>(k % SUPER), group = i / 32;
    return weight_with_min(block.d, block.dmin, block.scales, group, block.low[group / 2 * 32 + i % 32] >> group % 2 * 4 & 15);
}

inline Weight weight_q5k(const uint8_t* row, int64_t k) {
    const auto block = read_block<BlockQ5K>(row, k / SUPER);
    const int i = static_cast<int>(k % SUPER), group = i / 32;
    const int low = block.low[group / 2 * 32 + i % 32] >> group % 2 * 4 & 15, high = block.high[i % 32] >> group & 1;
    return weight_with_min(block.d, block.dmin, block.scales, group, low + 16 * high);
}

// A half of a block has 128 codes: the low halves of 64 bytes, then their high halves; byte `i` of 32 has two bits more
// for each of the four codes i, i + 32, i + 64, i + 96.
inline Weight weight_q6k(const uint8_t* row, int64_t k) {
    const auto block = read_block<BlockQ6K>(row, k / SUPER);
    const int i = static_cast<int>(k % SUPER), half = i / 128, in_half = i % 128;
    const int low = block.low[half * 64 + in_half % 64] >> in_half / 64 * 4 & 15;
    const int high = block.high[half * 32 + in_half % 32] >> in_half / 32 * 2 & 3;
    const double scale = from_f16(block.d) * block.scales[i / 16];
    const int code = low + 16 * high;
    return {scale * (code - 32), std::fabs(scale) * (code + 32)};
}

inline Weight weight_q80(const uint8_t* row, int64_t k) {
    const auto block = read_block<BlockQ80>(row, k / 32);
    const double value = from_f16(block.d) * block.codes[k % 32];
    return {value, std::fabs(value)};
}

template <typename Number>
Number read_number(const uint8_t* row, int64_t k) {
    Number number;
    std::memcpy(&number, row + static_cast<size_t>(k) * sizeof number, sizeof number);
    return number;
}

inline Weight weight_at(Type type, const uint8_t* row, int64_t k) {
    double value = 0;
    switch (type) {
        case Type::Q4_K: return weight_q4k(row, k);
        case Type::Q5_K: return weight_q5k(row, k);
        case Type::Q6_K: return weight_q6k(row, k);
        case Type::Q8_0: return weight_q80(row, k);
        case Type::F16: value = from_f16(read_number<uint16_t>(row, k)); break;
        case Type::BF16: value = from_bf16(read_number<uint16_t>(row, k)); break;
        case Type::F32: value = static_cast<double>(read_number<float>(row, k)); break;
    }
    return {value, std::fabs(value)};
}

// A scale as model files have them, a few with a sign that no quantizer gives.
inline uint16_t random_scale(Random& random, double size) {
    const double sign = random.between(0, 15) == 0 ? -1 : 1;
    return to_f16(sign * size * (0.5 + random.uniform()));
}

template <typename Block>
void fill_with_min(uint8_t* at, Random& random, Filling filling) {
    Block block;
    auto* bytes = reinterpret_cast<uint8_t*>(&block);
    for (size_t i = 0; i < sizeof block; ++i) bytes[i] = filling == Filling::LARGEST ? 0xff : static_cast<uint8_t>(random.bits());
    block.d = random_scale(random, 1e-3);
    block.dmin = random_scale(random, 4e-3);
    std::memcpy(at, &block, sizeof block);
}

inline void fill_q6k(uint8_t* at, Random& random, Filling filling) {
    BlockQ6K block;
    auto* bytes = reinterpret_cast<uint8_t*>(&block);
    const bool zeros = random.between(0, 1) == 0;  // the largest weight is that of code 0 or of code 63
    for (size_t i = 0; i < sizeof block; ++i) {
        bytes[i] = filling == Filling::RANDOM ? static_cast<uint8_t>(random.bits()) : zeros ? 0 : 0xff;
    }
    if (filling == Filling::LARGEST) std::memset(block.scales, zeros ? -128 : 127, sizeof block.scales);
    block.d = random_scale(random, 1e-4);
    std::memcpy(at, &block, sizeof block);
}

inline void fill_q80(uint8_t* at, Random& random, Filling filling) {
    BlockQ80 block;
    block.d = random_scale(random, 1e-2);
    const int sign = random.between(0, 1) == 0 ? 1 : -1;
    for (int8_t& code : block.codes) code = static_cast<int8_t>(filling == Filling::LARGEST ? sign * 127 : random.between(-127, 127));
    std::memcpy(at, &block, sizeof block);
}

inline void fill_number(Type type, uint8_t* at, double value) {
    const uint16_t half = type == Type::F16 ? to_f16(value) : to_bf16(value);
    const float whole = static_cast<float>(value);
    if (type == Type::F32) {
        std::memcpy(at, &whole, sizeof whole);
    } else {
        std::memcpy(at, &half, sizeof half);
    }
}

// One row of `numbers` random weights.
inline void fill_row(Type type, uint8_t* row, int64_t numbers, Random& random, Filling filling) {
    const Piece piece = piece_of(type);
    for (int64_t i = 0; i < numbers / piece.numbers; ++i) {
        uint8_t* at = row + static_cast<size_t>(i) * piece.bytes;
        switch (type) {
            case Type::Q4_K: fill_with_min<BlockQ4K>(at, random, filling); break;
            case Type::Q5_K: fill_with_min<BlockQ5K>(at, random, filling); break;
            case Type::Q6_K: fill_q6k(at, random, filling); break;
            case Type::Q8_0: fill_q80(at, random, filling); break;
            default: fill_number(type, at, filling == Filling::LARGEST ? 3 : random.normal()); break;
        }
    }
}

}  // namespace q3e::check
