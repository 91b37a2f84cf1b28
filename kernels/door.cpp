// Where llama.cpp calls in, and what Python calls.
//
// ggml's CPU backend asks a list of "extra buffer types" about each operation before it computes it itself
// (ggml_cpu_extra_compute_forward in ggml-cpu/traits.cpp). This file puts one more entry on that list. The entry holds
// no weights; it takes the operations that a kernel wants, and every other operation goes on in ggml.
#include <atomic>
#include <cstdlib>
#include <cstring>

#include "blocks.h"
#include "ggml_layout.h"
#include "variants.h"

using q3e::Attention;
using q3e::Product;
using q3e::Team;
using q3e::Type;
using q3e::Variant;

namespace {

struct Functions {  // of ggml, handed over by Python
    ggml_backend_buffer_types& (*extra_buffer_types)();
    void (*barrier)(ggml_threadpool*);
    void (*chunk_set)(ggml_threadpool*, int);
    int (*chunk_add)(ggml_threadpool*, int);
} ggml_functions;

// Computes every operation that it takes. Null: everything is left to ggml.
std::atomic<const Variant*> variant{nullptr};
// Computes operations of the name below and no other, so that a graph that another thread computes meanwhile is not touched.
std::atomic<const Variant*> variant_on_trial{nullptr};
constexpr char ON_TRIAL[] = "q3e on trial";

const Variant* variant_for(const ggml_tensor* op) {
    const Variant* tried = variant_on_trial.load();
    return tried != nullptr && std::strcmp(op->name, ON_TRIAL) == 0 ? tried : variant.load();
}

enum Count { PRODUCTS, ATTENTIONS, N_COUNTS };
std::atomic<int64_t> counts[N_COUNTS];

// ggml asks about operations whose tensors have no numbers too.
bool is_empty(const ggml_tensor* tensor) {
    for (const int64_t n : tensor->ne) {
        if (n == 0) return true;
    }
    return false;
}

bool is_matrix(const ggml_tensor* tensor) { return tensor->ne[2] == 1 && tensor->ne[3] == 1; }

bool is_f32(const ggml_tensor* tensor) { return tensor->type == static_cast<int>(Type::F32) && tensor->nb[0] == 4; }

// Bytes of the smallest piece of this type: of one number, or of a block of quantized ones.
size_t piece_bytes(Type type) {
    switch (type) {
        case Type::F32: return 4;
        case Type::F16: return 2;
        case Type::BF16: return 2;
        case Type::Q8_0: return sizeof(q3e::BlockQ80);
        case Type::Q4_K: return sizeof(q3e::BlockQ4K);
        case Type::Q5_K: return sizeof(q3e::BlockQ5K);
        case Type::Q6_K: return sizeof(q3e::BlockQ6K);
    }
    return 0;
}

bool is_plain(const ggml_tensor* tensor) {
    const size_t bytes = piece_bytes(static_cast<Type>(tensor->type));
    return bytes != 0 && tensor->nb[0] == bytes && tensor->extra == nullptr;
}

bool read_product(const ggml_tensor* op, Product& product) {
    const ggml_tensor *weights = op->src[0], *input = op->src[1];
    if (is_empty(op) || is_empty(weights)) return false;
    if (!is_plain(weights) || !is_f32(input) || !is_f32(op)) return false;
    if (!is_matrix(weights) || !is_matrix(input) || op->op_params[1] != 0) return false;
    product = {static_cast<Type>(weights->type), static_cast<const uint8_t*>(weights->data), weights->nb[1], weights->ne[1],
               weights->ne[0], static_cast<const float*>(input->data), input->nb[1], input->ne[1],
               static_cast<float*>(op->data), op->nb[1]};
    return true;
}

bool read_attention(const ggml_tensor* op, Attention& attention) {
    const ggml_tensor *query = op->src[0], *key = op->src[1], *value = op->src[2], *mask = op->src[3], *sinks = op->src[4];
    if (is_empty(op) || is_empty(key)) return false;
    float parameters[3];  // the scale, a slope by position, a soft limit
    std::memcpy(parameters, op->op_params, sizeof parameters);
    if (parameters[1] != 0 || parameters[2] != 0 || sinks != nullptr) return false;
    if (!is_f32(query) || !is_plain(key) || !is_plain(value) || !is_f32(op) || key->type != value->type) return false;
    if (query->ne[3] != 1 || key->ne[3] != 1 || value->ne[3] != 1) return false;
    if (key->ne[0] != query->ne[0] || value->ne[0] != query->ne[0] || key->ne[1] != value->ne[1]) return false;
    if (key->ne[2] != value->ne[2] || key->ne[2] == 0 || query->ne[2] % key->ne[2] != 0) return false;
    const size_t head_bytes = sizeof(float) * query->ne[0];
    if (op->nb[1] != head_bytes || op->nb[2] != head_bytes * query->ne[2]) return false;
    if (mask != nullptr) {
        if (mask->type != static_cast<int>(Type::F16) || mask->nb[0] != 2 || !is_matrix(mask)) return false;
        if (mask->ne[0] < key->ne[1] || mask->ne[1] < query->ne[1]) return false;
    }
    attention = {query->ne[0], query->ne[1], key->ne[1], query->ne[2], key->ne[2], parameters[0],
                 static_cast<const float*>(query->data), query->nb[1], query->nb[2], static_cast<Type>(key->type),
                 static_cast<const uint8_t*>(key->data), key->nb[1], key->nb[2],
                 static_cast<const uint8_t*>(value->data), value->nb[1], value->nb[2],
                 mask ? static_cast<const uint16_t*>(mask->data) : nullptr, mask ? mask->nb[1] : 0,
                 static_cast<float*>(op->data)};
    return true;
}

Team team_of(const ggml_compute_params* params) {
    const uintptr_t start = (reinterpret_cast<uintptr_t>(params->wdata) + 63) & ~uintptr_t{63};
    return {params->ith, params->nth, reinterpret_cast<uint8_t*>(start), params->threadpool,
            [](void* pool) { ggml_functions.barrier(static_cast<ggml_threadpool*>(pool)); },
            [](void* pool, int next) { ggml_functions.chunk_set(static_cast<ggml_threadpool*>(pool), next); },
            [](void* pool, int n) { return ggml_functions.chunk_add(static_cast<ggml_threadpool*>(pool), n); }};
}

class ProductTraits : public ggml::cpu::tensor_traits {
  public:
    bool work_size(int n_threads, const ggml_tensor* op, size_t& size) override {
        Product product;
        const Variant* kernel = variant_for(op);
        const int64_t bytes = kernel && read_product(op, product) ? kernel->product_scratch(product, n_threads) : -1;
        if (bytes < 0) return false;
        size = static_cast<size_t>(bytes) + 64;
        return true;
    }

    bool compute_forward(ggml_compute_params* params, ggml_tensor* op) override {
        Product product;
        read_product(op, product);
        variant_for(op)->product(product, team_of(params));
        if (params->ith == 0) ++counts[PRODUCTS];
        return true;
    }
} product_traits;

class AttentionTraits : public ggml::cpu::tensor_traits {
  public:
    bool work_size(int n_threads, const ggml_tensor* op, size_t& size) override {
        Attention attention;
        const Variant* kernel = variant_for(op);
        const int64_t bytes = kernel && read_attention(op, attention) ? kernel->attention_scratch(attention, n_threads) : -1;
        if (bytes < 0) return false;
        size = static_cast<size_t>(bytes) + 64;
        return true;
    }

    bool compute_forward(ggml_compute_params* params, ggml_tensor* op) override {
        Attention attention;
        read_attention(op, attention);
        variant_for(op)->attention(attention, team_of(params));
        if (params->ith == 0) ++counts[ATTENTIONS];
        return true;
    }
} attention_traits;

// ggml asks this once for the size of the scratch memory and once from each thread that computes; the answers must
// agree. A kernel's own answer may not depend on the number of threads, which is not known here.
class Entry : public ggml::cpu::extra_buffer_type {
  public:
    bool supports_op(void*, const ggml_tensor*) override { return false; }  // it never holds weights

    ggml::cpu::tensor_traits* get_tensor_traits(const ggml_tensor* op) override {
        const Variant* kernel = variant_for(op);
        if (kernel == nullptr) return nullptr;
        if (op->op == GGML_OP_MUL_MAT) {
            Product product;
            if (read_product(op, product) && kernel->product_scratch(product, 1) >= 0) return &product_traits;
        } else if (op->op == GGML_OP_FLASH_ATTN_EXT) {
            Attention attention;
            if (read_attention(op, attention) && kernel->attention_scratch(attention, 1) >= 0) return &attention_traits;
        }
        return nullptr;
    }
} entry;

ggml_backend_buffer_type buffer_type = {
    [](ggml_backend_buffer_type*) { return "q3e kernels"; },
    [](ggml_backend_buffer_type*, size_t) -> void* { return nullptr; },
    [](ggml_backend_buffer_type*) -> size_t { return 64; },
    nullptr,
    nullptr,
    nullptr,
    nullptr,
    &entry,
};

const q3e::Candidate* candidate(const char* name) {
    for (const q3e::Candidate& one : q3e::candidates) {
        if (std::strcmp(one.variant->name, name) == 0) return &one;
    }
    return nullptr;
}

int put(const char* name, std::atomic<const Variant*>& place) {
    const q3e::Candidate* found = name ? candidate(name) : nullptr;
    if (name && (!found || found->why_not())) return -1;
    place = found ? found->variant : nullptr;
    return 0;
}

void append(ggml_backend_buffer_types& list, ggml_backend_buffer_type* one) {
    if (list.end == list.end_of_room) {
        const size_t n = list.end - list.begin;
        // From malloc, as `new` has it, because ggml deletes it at the end. What was there before is left where it is: it
        // is a few bytes, and a thread may be reading them.
        auto larger = static_cast<ggml_backend_buffer_type**>(std::malloc((2 * n + 4) * sizeof one));
        if (larger == nullptr) return;
        if (n != 0) std::memcpy(larger, list.begin, n * sizeof one);
        list = {larger, larger + n, larger + 2 * n + 4};
    }
    *list.end++ = one;
}

}  // namespace

#define API extern "C" __attribute__((visibility("default")))

// The version of this interface; Python opens no other.
API int q3e_interface() { return 2; }

// Name of the variant at this place, the fastest first; null behind the last.
API const char* q3e_variant(int place) {
    const int n = sizeof q3e::candidates / sizeof q3e::candidates[0];
    return place >= 0 && place < n ? q3e::candidates[place].variant->name : nullptr;
}

// Why a variant cannot run on this machine; null when it can.
API const char* q3e_why_not(const char* name) {
    const q3e::Candidate* found = candidate(name);
    return found ? found->why_not() : "there is no such variant";
}

// Put the entry on ggml's list, once in a process. The addresses are those of ggml_backend_cpu_get_extra_buffer_types,
// ggml_barrier, ggml_threadpool_chunk_set and ggml_threadpool_chunk_add.
API void q3e_open(void* extra_buffer_types, void* barrier, void* chunk_set, void* chunk_add) {
    ggml_functions = {
        reinterpret_cast<decltype(ggml_functions.extra_buffer_types)>(extra_buffer_types),
        reinterpret_cast<decltype(ggml_functions.barrier)>(barrier),
        reinterpret_cast<decltype(ggml_functions.chunk_set)>(chunk_set),
        reinterpret_cast<decltype(ggml_functions.chunk_add)>(chunk_add),
    };
    ggml_backend_buffer_types& list = ggml_functions.extra_buffer_types();
    for (ggml_backend_buffer_type** one = list.begin; one != list.end; ++one) {
        if (*one == &buffer_type) return;
    }
    append(list, &buffer_type);
}

// Let this variant compute from now on; null leaves everything to ggml. No graph may be computed meanwhile. Returns 0,
// or -1 when this machine cannot run it.
API int q3e_use(const char* name) { return put(name, variant); }

// Let this variant compute the operations that ON_TRIAL names; null ends the trial. Returns as q3e_use.
API int q3e_try(const char* name) { return put(name, variant_on_trial); }

// How many operations were computed here since the start: products, attentions.
API void q3e_counts(int64_t* taken) {
    taken[0] = counts[PRODUCTS];
    taken[1] = counts[ATTENTIONS];
}
