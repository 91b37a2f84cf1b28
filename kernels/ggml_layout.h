// The parts of ggml that this library reads, as they are in ggml 0.25.3 (commit 0c1e570).
//
// They are copied because ggml installs only its public headers: ggml.h, and of the private ones ggml-backend-impl.h,
// ggml-cpu-impl.h and traits.h (MIT License, Copyright (c) 2023-2026 The ggml authors,
// https://github.com/ggml-org/llama.cpp). Another version may lay them out in another way, so the program opens this
// library only beside the llama.cpp of exactly this commit.
#pragma once

#include <cstddef>
#include <cstdint>

struct ggml_threadpool;

struct ggml_tensor {
    int type;
    void* buffer;
    int64_t ne[4];  // numbers in each dimension
    size_t nb[4];   // bytes from one to the next in each dimension
    int op;
    int32_t op_params[16];
    int32_t flags;
    ggml_tensor* src[10];
    ggml_tensor* view_src;
    size_t view_offs;
    void* data;
    char name[64];
    void* extra;
    char padding[8];
};
static_assert(sizeof(ggml_tensor) == 336 && offsetof(ggml_tensor, op_params) == 84 && offsetof(ggml_tensor, src) == 152 &&
              offsetof(ggml_tensor, data) == 248 && offsetof(ggml_tensor, extra) == 320);

constexpr int GGML_OP_MUL_MAT = 29, GGML_OP_FLASH_ATTN_EXT = 74;

struct ggml_compute_params {
    int ith, nth;  // this thread, and how many there are
    size_t wsize;
    void* wdata;   // scratch memory of all threads
    ggml_threadpool* threadpool;
    bool use_ref;
};

struct ggml_backend_buffer_type {
    const char* (*get_name)(ggml_backend_buffer_type*);
    void* (*alloc_buffer)(ggml_backend_buffer_type*, size_t);
    size_t (*get_alignment)(ggml_backend_buffer_type*);
    size_t (*get_max_size)(ggml_backend_buffer_type*);
    size_t (*get_alloc_size)(ggml_backend_buffer_type*, const ggml_tensor*);
    bool (*is_host)(ggml_backend_buffer_type*);
    void* device;
    void* context;
};

// A std::vector<ggml_backend_buffer_type*>, as libstdc++ and libc++ have it. The class itself would make this library need
// a C++ library, of the version of the compiler or newer, where Python is not sure to find one.
struct ggml_backend_buffer_types {
    ggml_backend_buffer_type **begin, **end, **end_of_room;
};

namespace ggml::cpu {

// Nothing here is made with `new`. The operators keep the destructors, which the virtual tables must have, from asking for
// the one of a C++ library.

class tensor_traits {
  public:
    virtual ~tensor_traits() {}
    void operator delete(void*) {}
    virtual bool work_size(int n_threads, const ggml_tensor* op, size_t& size) = 0;
    virtual bool compute_forward(ggml_compute_params* params, ggml_tensor* op) = 0;
};

class extra_buffer_type {
  public:
    virtual ~extra_buffer_type() {}
    void operator delete(void*) {}
    virtual bool supports_op(void* device, const ggml_tensor* op) = 0;
    virtual tensor_traits* get_tensor_traits(const ggml_tensor* op) = 0;
};

}  // namespace ggml::cpu
