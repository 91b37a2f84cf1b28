// Attention: the cases, the reference in double precision, and the comparison of one kernel with it.
#pragma once

#include <string>
#include <vector>

#include "guarded.h"
#include "result.h"
#include "team.h"
#include "weights.h"

namespace q3e::check {

// Which keys a query sees.
enum class Mask {
    NONE,       // no mask: all of them
    CAUSAL,     // those up to its own place, the queries being the last of the keys
    PACKED,     // those of its own text up to its own place: several texts follow each other
    PREFIX,     // the same, and a prefix that all texts share
    SCATTERED,  // any, with a bias; some queries see none
    HIDDEN,     // none at all
};

struct AttentionCase {
    Type type;
    int64_t width, queries, keys;
    int64_t key_heads, group;  // a group of query heads shares a key head
    Mask mask;
    int threads;
    int gap = 0;       // bytes between two rows of each operand, in units of what they may be a multiple of
    double sharp = 1;  // the larger, the more a query prefers few keys

    int64_t heads() const { return key_heads * group; }

    std::string name() const {
        static const char* const names[] = {"no", "causal", "packed", "prefix", "scattered", "hidden"};
        return std::string(name_of(type)) + " width " + std::to_string(width) + ", " + std::to_string(queries) + " queries, " +
               std::to_string(keys) + " keys, " + std::to_string(key_heads) + " x " + std::to_string(group) + " heads, " +
               names[static_cast<int>(mask)] + " mask, " + std::to_string(threads) + " threads, gap " + std::to_string(gap) +
               ", sharp " + std::to_string(sharp);
    }
};

// Memory of a case, in llama.cpp's order: [token][head][width] for keys and values, [head][query][width] with the
// strides of a permuted view for queries; without a byte to spare behind the last number of any operand.
struct AttentionMemory {
    size_t query_stride, query_head_stride, key_stride, key_head_stride, mask_stride;
    Guarded query, key, value, mask, output;

    explicit AttentionMemory(const AttentionCase& one)
        : query_stride(static_cast<size_t>(4 * (one.heads() * one.width + one.gap))),
          query_head_stride(static_cast<size_t>(4 * one.width)),
          key_stride(static_cast<size_t>(one.key_heads) * row_bytes(one.type, one.width) + padding(one)),
          key_head_stride(row_bytes(one.type, one.width)), mask_stride(static_cast<size_t>(2 * (one.keys + one.gap))),
          query(rows(one.queries, query_stride, static_cast<size_t>(4 * one.heads() * one.width)), 4),
          key(rows(one.keys, key_stride, static_cast<size_t>(one.key_heads) * key_head_stride), 2),
          value(rows(one.keys, key_stride, static_cast<size_t>(one.key_heads) * key_head_stride), 2),
          mask(one.mask == Mask::NONE ? 0 : rows(one.queries, mask_stride, static_cast<size_t>(2 * one.keys)), 2),
          output(static_cast<size_t>(4 * one.queries * one.heads() * one.width), 4) {}

    static size_t rows(int64_t n, size_t stride, size_t last) { return n > 0 ? static_cast<size_t>(n - 1) * stride + last : 0; }
    static size_t padding(const AttentionCase& one) { return static_cast<size_t>(one.gap) * (one.type == Type::F32 ? 4 : 2); }

    float* query_at(int64_t q, int64_t head) const {
        return reinterpret_cast<float*>(query.data() + static_cast<size_t>(q) * query_stride + static_cast<size_t>(head) * query_head_stride);
    }
    uint8_t* row_of(const Guarded& operand, int64_t k, int64_t head) const {
        return operand.data() + static_cast<size_t>(k) * key_stride + static_cast<size_t>(head) * key_head_stride;
    }
    uint16_t* mask_at(int64_t q) const { return reinterpret_cast<uint16_t*>(mask.data() + static_cast<size_t>(q) * mask_stride); }
    const float* output_at(const AttentionCase& one, int64_t q, int64_t head) const {
        return reinterpret_cast<const float*>(output.data()) + (q * one.heads() + head) * one.width;
    }
};

// What is added to the score of query `q` and key `k`. The last keys of a causal, packed or prefix mask are
// seen by no query, as the unused cells of llama.cpp's cache.
inline double mask_value(const AttentionCase& one, int64_t q, int64_t k, Random& random) {
    const int64_t used = one.keys > 64 ? one.keys - 17 : one.keys, place = used - one.queries + q, text = 23;
    const int64_t prefix = used / 4;
    bool seen = true;
    switch (one.mask) {
        case Mask::NONE: break;
        case Mask::CAUSAL: seen = k <= place; break;
        case Mask::PACKED: seen = k <= place && k / text == place / text; break;
        case Mask::PREFIX: seen = k <= place && (k < prefix || k / text == place / text); break;
        case Mask::SCATTERED: {
            const double bias = random.between(0, 1) ? 0 : -3 * random.uniform();
            return q % 7 == 2 || random.between(0, 2) == 0 ? -INFINITY : bias;
        }
        case Mask::HIDDEN: seen = false; break;
    }
    return seen ? 0 : -INFINITY;
}

inline void fill_key(const AttentionCase& one, uint8_t* row, Random& random) {
    if (one.type != Type::Q8_0) return fill_row(one.type, row, one.width, random, Filling::RANDOM);
    for (int64_t i = 0; i < one.width / 32; ++i) {
        BlockQ80 block;
        block.d = to_f16(random.uniform() / 60);
        for (int8_t& code : block.codes) code = static_cast<int8_t>(random.between(-127, 127));
        std::memcpy(row + static_cast<size_t>(i) * sizeof block, &block, sizeof block);
    }
}

inline void fill(const AttentionCase& one, const AttentionMemory& memory) {
    Random random(static_cast<uint64_t>(one.queries * 1000003 + one.keys * 1009 + one.width));
    for (int64_t q = 0; q < one.queries; ++q) {
        for (int64_t head = 0; head < one.heads(); ++head) {
            for (int64_t i = 0; i < one.width; ++i) memory.query_at(q, head)[i] = static_cast<float>(one.sharp * random.normal());
        }
        if (one.mask == Mask::NONE) continue;
        for (int64_t k = 0; k < one.keys; ++k) memory.mask_at(q)[k] = to_f16(mask_value(one, q, k, random));
    }
    for (int64_t k = 0; k < one.keys; ++k) {
        for (int64_t head = 0; head < one.key_heads; ++head) {
            fill_key(one, memory.row_of(memory.key, k, head), random);
            fill_key(one, memory.row_of(memory.value, k, head), random);
        }
    }
    for (const Guarded* operand : {&memory.query, &memory.key, &memory.value, &memory.mask}) operand->freeze();
}

// The keys and values of one key head in double precision.
class AttentionReference {
  public:
    AttentionReference(const AttentionCase& one, const AttentionMemory& memory, int64_t key_head)
        : one_(one), memory_(memory), width_(static_cast<size_t>(one.width)), keys_(static_cast<size_t>(one.keys)),
          key_(keys_ * width_), value_(keys_ * width_), weight_(keys_), sum_(width_) {
        for (int64_t k = 0; k < one.keys; ++k) {
            for (int64_t i = 0; i < one.width; ++i) {
                const size_t at = static_cast<size_t>(k * one.width + i);
                key_[at] = weight_at(one.type, memory.row_of(memory.key, k, key_head), i).value;
                value_[at] = weight_at(one.type, memory.row_of(memory.value, k, key_head), i).value;
            }
        }
    }

    // One query of one head: compared with what the kernel put out. A query that sees no key becomes 0, as in ggml.
    void compare(int64_t q, int64_t head, double scale, Result& result) {
        double largest = -INFINITY, roughness = 0;
        for (size_t k = 0; k < keys_; ++k) {
            const double bias = one_.mask == Mask::NONE ? 0 : from_f16(memory_.mask_at(q)[k]);
            weight_[k] = bias == -INFINITY ? -INFINITY : score(memory_.query_at(q, head), k, scale, roughness) + bias;
            largest = std::max(largest, weight_[k]);
        }
        double total = 0, square = 0;
        std::fill(sum_.begin(), sum_.end(), 0);
        for (size_t k = 0; k < keys_; ++k) {
            const double weight = weight_[k] == -INFINITY ? 0 : std::exp(weight_[k] - largest);
            total += weight;
            if (weight == 0) continue;
            for (size_t i = 0; i < width_; ++i) {
                const double value = value_[k * width_ + i];
                sum_[i] += weight * value;
                square += weight * value * value / static_cast<double>(width_);
            }
        }
        const double share = total > 0 ? 1 / total : 0, unit = std::sqrt(square * share) * (1 + roughness);
        const float* got = memory_.output_at(one_, q, head);
        for (size_t i = 0; i < width_; ++i) {
            result.compare(static_cast<double>(got[i]), sum_[i] * share, unit, "query, head", q, head);
        }
    }

  private:
    // Also keeps the largest size of a score: the error of a sum grows with the parts of the sum.
    double score(const float* query, size_t k, double scale, double& roughness) const {
        double sum = 0, square = 0;
        for (size_t i = 0; i < width_; ++i) {
            const double product = scale * static_cast<double>(query[i]) * key_[k * width_ + i];
            sum += product;
            square += product * product;
        }
        roughness = std::max({roughness, std::sqrt(square), std::fabs(sum) / 4});
        return sum;
    }

    const AttentionCase& one_;
    const AttentionMemory& memory_;
    const size_t width_, keys_;
    std::vector<double> key_, value_, weight_, sum_;
};

inline Attention operation(const AttentionCase& one, const AttentionMemory& memory) {
    return {one.width, one.queries, one.keys, one.heads(), one.key_heads, 1 / std::sqrt(static_cast<float>(one.width)),
            reinterpret_cast<const float*>(memory.query.data()), memory.query_stride, memory.query_head_stride, one.type,
            memory.key.data(), memory.key_stride, memory.key_head_stride,
            memory.value.data(), memory.key_stride, memory.key_head_stride,
            one.mask == Mask::NONE ? nullptr : reinterpret_cast<const uint16_t*>(memory.mask.data()), memory.mask_stride,
            reinterpret_cast<float*>(memory.output.data())};
}

// Computes one case with a kernel, and compares.
inline void check_attention(const Variant& variant, const AttentionCase& one, Results& results) {
    const AttentionMemory memory(one);
    const Attention attention = operation(one, memory);
    const Rounding rounding = attention_rounding(variant.name, attention);
    Result& result = results.of(rounding, attention_bound(rounding));
    const int64_t bytes = variant.attention_scratch(attention, one.threads);
    if (bytes < 0) return result.left();
    result.begin(one.name());
    if (variant.attention_scratch(attention, 1) < 0) result.fail("taken with these threads, but not with 1");
    fill(one, memory);
    const Guarded scratch(static_cast<size_t>(bytes), 64);
    Pool(one.threads).run(scratch.data(), [&](const Team& team) { variant.attention(attention, team); });
    if (!scratch.intact()) result.fail("wrote beside the scratch memory");
    if (!memory.output.intact()) result.fail("wrote beside the output");
    for (int64_t key_head = 0; key_head < one.key_heads; ++key_head) {
        AttentionReference reference(one, memory, key_head);
        for (int64_t q = 0; q < one.queries; ++q) {
            for (int64_t i = 0; i < one.group; ++i) {
                reference.compare(q, key_head * one.group + i, static_cast<double>(attention.scale), result);
            }
        }
    }
    result.end();
}

inline std::vector<AttentionCase> attention_cases(Type type, bool quick) {
    const std::vector<Mask> masks = {Mask::NONE, Mask::CAUSAL, Mask::PACKED, Mask::PREFIX, Mask::SCATTERED, Mask::HIDDEN};
    std::vector<AttentionCase> cases;
    for (Mask mask : masks) {
        const auto i = static_cast<int64_t>(mask);
        cases.push_back({type, 128, 40, 128, 1, 2, mask, static_cast<int>(i) + 1, static_cast<int>(i)});
        cases.push_back({type, 64, 70, 256, 2, 1, mask, 2, 0, 6});
    }
    for (int64_t group = 1; group <= 8; ++group) {
        if (quick && group != 3 && group != 8) continue;
        cases.push_back({type, 64, 33, 96, 2, group, Mask::CAUSAL, static_cast<int>(group), 1});
    }
    cases.push_back({type, 128, 0, 64, 1, 2, Mask::CAUSAL, 2});
    if (quick) return cases;
    const std::vector<int64_t> edges = {1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256, 257, 300};
    for (size_t i = 0; i < edges.size(); ++i) {
        const Mask mask = masks[i % 5];
        const int threads = static_cast<int>(i % 8) + 1, gap = static_cast<int>(i % 4);
        cases.push_back({type, 128, edges[i], 320, 1, 2, mask, threads, gap});
        cases.push_back({type, 128, 64, 64 + edges[i], 1, 2, mask, threads, gap});
        cases.push_back({type, 128, edges[i], edges[i], 1, 2, mask, threads, gap});
    }
    for (int64_t width : {32, 80, 96, 160, 192, 256}) {
        if (width % piece_of(type).numbers == 0) cases.push_back({type, width, 70, 160, 2, 2, Mask::PREFIX, 3, 1});
    }
    for (double sharp : {0.0, 0.1, 30.0, 300.0}) cases.push_back({type, 128, 70, 256, 1, 2, Mask::CAUSAL, 2, 0, sharp});
    cases.push_back({type, 128, 512, 2560, 1, 2, Mask::CAUSAL, 4});
    cases.push_back({type, 128, 300, 4096, 2, 2, Mask::PREFIX, 8});
    cases.push_back({type, 128, 1024, 1024, 1, 1, Mask::PACKED, 2});
    Random random(static_cast<uint64_t>(piece_of(type).bytes));
    for (int i = 0; i < 40; ++i) {
        const int64_t queries = random.between(1, 200);
        cases.push_back({type, 64 * random.between(1, 2), queries, queries + random.between(0, 300), random.between(1, 3),
                         random.between(1, 4), masks[static_cast<size_t>(random.between(0, 5))], static_cast<int>(random.between(1, 8)),
                         static_cast<int>(random.between(0, 5)), 0.5 + 5 * random.uniform()});
    }
    return cases;
}

}  // namespace q3e::check
