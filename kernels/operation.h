// The two operations that cost the time, as plain numbers and pointers: what a kernel is given.
//
// Nothing here knows ggml, so a kernel can be called by a test as well as by llama.cpp (door.cpp).
#pragma once

#include <cstddef>
#include <cstdint>

namespace q3e {

// How numbers are stored. The values are those of ggml_type in ggml.h.
enum class Type : int { F32 = 0, F16 = 1, Q8_0 = 8, Q4_K = 12, Q5_K = 13, Q6_K = 14, BF16 = 30 };

// output[token][row] = sum over k of weights[row][k] * input[token][k]
struct Product {
    Type type;                // of the weights
    const uint8_t* weights;   // row `r` begins at weights + r * weight_stride
    size_t weight_stride;     // bytes
    int64_t rows;             // of the weights: columns of the output
    int64_t depth;            // numbers in a row of the weights, and in a token
    const float* input;       // token `t` begins at (char*)input + t * input_stride
    size_t input_stride;      // bytes
    int64_t tokens;
    float* output;            // token `t` begins at (char*)output + t * output_stride
    size_t output_stride;     // bytes
};

// For each query and head: softmax(scale * query . keys + mask) . values. The heads of a group share keys and values:
// head `h` reads those of key head h / (heads / key_heads).
struct Attention {
    int64_t width;                       // numbers in a head: of query, key and value alike
    int64_t queries, keys;               // tokens
    int64_t heads, key_heads;
    float scale;
    const float* query;                  // (char*)query + q * query_stride + h * query_head_stride
    size_t query_stride, query_head_stride;
    Type type;                           // of keys and values
    const uint8_t* key;                  // key + k * key_stride + h * key_head_stride
    size_t key_stride, key_head_stride;
    const uint8_t* value;                // likewise
    size_t value_stride, value_head_stride;
    const uint16_t* mask;                // float16, 0 or -inf or a bias; query `q` at (char*)mask + q * mask_stride; may be null
    size_t mask_stride;
    float* output;                       // [query][head][width], contiguous
};

// The threads that compute one operation together. Each of them calls the kernel with its own `rank`.
struct Team {
    int rank, size;
    uint8_t* scratch;                    // shared by all of them, aligned to 64 bytes, as large as the kernel asked for
    void* pool;                          // for the functions below
    void (*wait)(void* pool);            // until every thread of the team has come here
    void (*restart)(void* pool, int next);   // one thread sets the counter of tasks; then all must wait()
    int (*take)(void* pool, int n);      // adds `n` to the counter and returns what it was before
};

// A kernel for one kind of CPU. `*_scratch` answers how many bytes of scratch a team of `threads` needs, or a negative
// number when it leaves this operation to llama.cpp. The answer must depend on its arguments alone.
struct Variant {
    const char* name;
    int64_t (*product_scratch)(const Product&, int threads);
    void (*product)(const Product&, const Team&);
    int64_t (*attention_scratch)(const Attention&, int threads);
    void (*attention)(const Attention&, const Team&);
};

}  // namespace q3e
