// Products: the cases, the reference in double precision, and the comparison of one kernel with it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "guarded.h"
#include "result.h"
#include "team.h"
#include "weights.h"

namespace q3e::check {

// What the tokens hold.
enum class Tokens {
    NORMAL,
    LARGEST,  // the same size everywhere and almost everywhere the same sign: sums grow as large as they can
    SPARSE,   // a few numbers a thousand times larger than the others, some blocks and some tokens all 0
};

struct ProductCase {
    Type type;
    int64_t rows, tokens, depth;
    int threads;
    int gap;  // bytes between two rows, two tokens and two outputs, in units of what each of them may be a multiple of
    Filling weights = Filling::RANDOM;
    Tokens input = Tokens::NORMAL;

    std::string name() const {
        static const char* const weights_names[] = {"", ", largest weights"};
        static const char* const input_names[] = {"", ", largest tokens", ", sparse tokens"};
        return std::string(name_of(type)) + " " + std::to_string(rows) + " rows, " + std::to_string(tokens) + " tokens, depth " +
               std::to_string(depth) + ", " + std::to_string(threads) + " threads, gap " + std::to_string(gap) +
               weights_names[static_cast<int>(weights)] + input_names[static_cast<int>(input)];
    }
};

// Memory of a case, without a byte to spare behind the last number of any operand.
struct ProductMemory {
    size_t weight_stride, input_stride, output_stride;
    Guarded weights, input, output;

    static size_t bytes(int64_t n, size_t stride, size_t last) { return n > 0 ? static_cast<size_t>(n - 1) * stride + last : 0; }

    explicit ProductMemory(const ProductCase& one)
        : weight_stride(row_bytes(one.type, one.depth) + static_cast<size_t>(2 * one.gap)),
          input_stride(static_cast<size_t>(4 * (one.depth + one.gap))),
          output_stride(static_cast<size_t>(4 * (one.rows + one.gap))),
          weights(bytes(one.rows, weight_stride, row_bytes(one.type, one.depth)), 2),
          input(bytes(one.tokens, input_stride, static_cast<size_t>(4 * one.depth)), 4),
          output(bytes(one.tokens, output_stride, static_cast<size_t>(4 * one.rows)), 4) {}

    const uint8_t* row(int64_t i) const { return weights.data() + static_cast<size_t>(i) * weight_stride; }
    float* token(int64_t i) const { return reinterpret_cast<float*>(input.data() + static_cast<size_t>(i) * input_stride); }
    float* result(int64_t i) const { return reinterpret_cast<float*>(output.data() + static_cast<size_t>(i) * output_stride); }
};

inline void fill_token(const ProductCase& one, int64_t t, float* token, Random& random) {
    const bool zero = one.input == Tokens::SPARSE && t % 5 == 3;
    for (int64_t k = 0; k < one.depth; ++k) {
        double number = random.normal();
        if (one.input == Tokens::LARGEST) number = (t % 2 ? -2.5 : 2.5) * (random.between(0, 63) == 0 ? -1 : 1);
        if (one.input == Tokens::SPARSE && random.between(0, 199) == 0) number *= 1000;
        if (zero || (one.input == Tokens::SPARSE && k / 256 % 3 == 1)) number = 0;
        token[k] = static_cast<float>(number);
    }
}

inline void fill(const ProductCase& one, const ProductMemory& memory) {
    Random random(static_cast<uint64_t>(one.rows * 1000003 + one.tokens * 1009 + one.depth));
    for (int64_t i = 0; i < one.rows; ++i) fill_row(one.type, const_cast<uint8_t*>(memory.row(i)), one.depth, random, one.weights);
    for (int64_t i = 0; i < one.tokens; ++i) fill_token(one, i, memory.token(i), random);
    memory.weights.freeze();
    memory.input.freeze();
}

// A token as the kernel multiplies it. In each group 127 stands for the largest number, as ggml has it; quotients and
// products are rounded to float, because the codes depend on them.
inline void round_token(const float* token, int64_t depth, Rounding rounding, int64_t group, double* rounded) {
    for (int64_t begin = 0; begin < depth; begin += group) {
        float largest = 0;
        for (int64_t k = begin; k < begin + group; ++k) largest = std::max(largest, std::fabs(token[k]));
        const float factor = largest > 0 ? 127.0f / largest : 0, scale = largest > 0 ? 1.0f / factor : 0;
        for (int64_t k = begin; k < begin + group; ++k) {
            const float code = std::nearbyint(token[k] * factor);
            rounded[k] = rounding == Rounding::BYTES      ? static_cast<double>(scale) * static_cast<double>(code)
                         : rounding == Rounding::BFLOAT16 ? from_bf16(to_bf16(static_cast<double>(token[k])))
                                                          : static_cast<double>(token[k]);
        }
    }
}

// The weights in double precision, all rows of one k together, so that the loops over rows are fast.
class ProductReference {
  public:
    ProductReference(const ProductCase& one, const ProductMemory& memory, Rounding rounding)
        : one_(one), memory_(memory), rounding_(rounding), rows_(static_cast<size_t>(one.rows)),
          values_(rows_ * static_cast<size_t>(one.depth)), sizes_(values_.size()), token_(static_cast<size_t>(one.depth)),
          sums_(rows_), squares_(rows_), size_sums_(rows_) {
        for (size_t i = 0; i < rows_; ++i) {
            for (size_t k = 0; k < token_.size(); ++k) {
                const Weight weight = weight_at(one.type, memory.row(static_cast<int64_t>(i)), static_cast<int64_t>(k));
                values_[k * rows_ + i] = rounding == Rounding::BFLOAT16 ? from_bf16(to_bf16(weight.value)) : weight.value;
                sizes_[k * rows_ + i] = weight.size;
            }
        }
    }

    // The products of one token with all rows: compared with what the kernel put out. The unit of an error is how large
    // a sum is on the way: that of numbers with random signs is as the root of the sum of their squares, and that of
    // numbers with one sign, the sum itself.
    void compare(int64_t t, Result& result) {
        const int64_t group = one_.type == Type::Q8_0 ? 32 : is_quantized(one_.type) ? 256 : 1;
        round_token(memory_.token(t), one_.depth, rounding_, group, token_.data());
        for (auto* sums : {&sums_, &squares_, &size_sums_}) std::fill(sums->begin(), sums->end(), 0);
        for (size_t k = 0; k < token_.size(); ++k) {
            const double number = token_[k];
            for (size_t i = 0; i < rows_; ++i) {
                const double size = sizes_[k * rows_ + i] * number;
                sums_[i] += values_[k * rows_ + i] * number;
                squares_[i] += size * size;
                size_sums_[i] += size;
            }
        }
        const float* got = memory_.result(t);
        for (size_t i = 0; i < rows_; ++i) {
            const double unit = std::sqrt(squares_[i]) + std::fabs(size_sums_[i]);
            result.compare(static_cast<double>(got[i]), sums_[i], unit, "token, row", t, static_cast<int64_t>(i));
        }
    }

  private:
    const ProductCase& one_;
    const ProductMemory& memory_;
    const Rounding rounding_;
    const size_t rows_;
    std::vector<double> values_, sizes_, token_, sums_, squares_, size_sums_;
};

inline Product operation(const ProductCase& one, const ProductMemory& memory) {
    return {one.type, memory.weights.data(), memory.weight_stride, one.rows, one.depth,
            reinterpret_cast<const float*>(memory.input.data()), memory.input_stride, one.tokens,
            reinterpret_cast<float*>(memory.output.data()), memory.output_stride};
}

// Whether nothing was written between two outputs.
inline bool gaps_intact(const ProductCase& one, const ProductMemory& memory) {
    for (int64_t t = 0; t + 1 < one.tokens; ++t) {
        const auto* gap = reinterpret_cast<const uint8_t*>(memory.result(t) + one.rows);
        for (int i = 0; i < 4 * one.gap; ++i) {
            if (gap[i] != Guarded::PATTERN) return false;
        }
    }
    return true;
}

// Computes one case with a kernel, and compares.
inline void check_product(const Variant& variant, const ProductCase& one, Results& results) {
    const ProductMemory memory(one);
    const Product product = operation(one, memory);
    const Rounding rounding = product_rounding(variant.name, product);
    Result& result = results.of(rounding, product_bound(rounding));
    const int64_t bytes = variant.product_scratch(product, one.threads);
    if (bytes < 0) return result.left();
    result.begin(one.name());
    if (variant.product_scratch(product, 1) < 0) result.fail("taken with these threads, but not with 1");
    fill(one, memory);
    const Guarded scratch(static_cast<size_t>(bytes), 64);
    Pool(one.threads).run(scratch.data(), [&](const Team& team) { variant.product(product, team); });
    if (!scratch.intact()) result.fail("wrote beside the scratch memory");
    if (!memory.output.intact()) result.fail("wrote beside the output");
    if (!gaps_intact(one, memory)) result.fail("wrote between two outputs");
    ProductReference reference(one, memory, rounding);
    for (int64_t t = 0; t < one.tokens; ++t) reference.compare(t, result);
    result.end();
}

// Every edge of every shape on its own, with the others at some other edge, and then random ones.
inline std::vector<ProductCase> product_cases(Type type, bool quick) {
    const int64_t piece = piece_of(type).numbers, step = piece == 1 ? 32 : SUPER;
    std::vector<ProductCase> cases;
    const std::vector<int64_t> edges = quick ? std::vector<int64_t>{1, 5, 16, 31, 33, 65}
                                             : std::vector<int64_t>{1,  2,  3,  4,  5,  6,  7,  8,  9,  11, 12, 13,  15,  16,  17,  18, 23,
                                                                    24, 25, 31, 32, 33, 47, 48, 49, 63, 64, 65, 127, 128, 129, 191, 193, 257};
    for (size_t i = 0; i < edges.size(); ++i) {
        const int threads = static_cast<int>(i % 8) + 1, gap = static_cast<int>(i % 4);
        cases.push_back({type, edges[i], 17 + static_cast<int64_t>(i % 3), 2 * step, threads, gap});
        cases.push_back({type, 33 + static_cast<int64_t>(i % 2), edges[i], step, threads, gap});
    }
    for (int64_t blocks : quick ? std::vector<int64_t>{3, 5} : std::vector<int64_t>{1, 2, 3, 4, 5, 7, 8, 9, 12, 16, 17, 38}) {
        cases.push_back({type, 40, 19, blocks * step, 2, 1});
        cases.push_back({type, 64, 32, blocks * 256, 1, 0});
    }
    for (int64_t depth : {1, 2, 7, 31, 32, 33, 96, 100, 288, 800}) {
        if (depth % piece == 0) cases.push_back({type, 18, 20, depth, 1, 1});
    }
    for (Filling filling : {Filling::RANDOM, Filling::LARGEST}) {
        for (Tokens tokens : {Tokens::LARGEST, Tokens::SPARSE}) cases.push_back({type, 37, 21, 768, 3, 2, filling, tokens});
    }
    cases.push_back({type, 0, 20, step, 2, 0});
    cases.push_back({type, 20, 0, step, 2, 0});
    if (quick) return cases;
    cases.push_back({type, 300, 100, 1024, 8, 0});
    cases.push_back({type, 600, 40, 512, 8, 0});
    cases.push_back({type, 96, 4096, 512, 2, 0});
    Random random(static_cast<uint64_t>(piece));
    for (int i = 0; i < 60; ++i) {
        cases.push_back({type, random.between(1, 200), random.between(1, 300), step * random.between(1, 6),
                         static_cast<int>(random.between(1, 8)), static_cast<int>(random.between(0, 9)),
                         random.between(0, 3) ? Filling::RANDOM : Filling::LARGEST, static_cast<Tokens>(random.between(0, 2))});
    }
    return cases;
}

}  // namespace q3e::check
