// Memory that no kernel can overrun in silence: a page without access on each side, and a known pattern in the rest of
// the pages between.
//
// Knows nothing of kernels.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(start, bytes)
#define ASAN_UNPOISON_MEMORY_REGION(start, bytes)
#endif

namespace q3e::check {

class Guarded {
  public:
    // `bytes` of memory that end as near to the closing page as an alignment of `alignment` allows.
    explicit Guarded(size_t bytes, size_t alignment = 1) : bytes_(bytes), page_(static_cast<size_t>(sysconf(_SC_PAGESIZE))) {
        inner_ = (bytes + page_ - 1) / page_ * page_ + page_;
        void* all = mmap(nullptr, inner_ + 2 * page_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (all == MAP_FAILED) {
            std::perror("mmap");
            std::abort();
        }
        first_ = static_cast<uint8_t*>(all) + page_;
        allow(PROT_READ | PROT_WRITE);
        std::memset(first_, PATTERN, inner_);
        const uintptr_t latest = reinterpret_cast<uintptr_t>(first_ + inner_ - bytes);
        start_ = first_ + (latest / alignment * alignment - reinterpret_cast<uintptr_t>(first_));
        ASAN_POISON_MEMORY_REGION(first_, before());
        ASAN_POISON_MEMORY_REGION(start_ + bytes_, behind());
    }

    ~Guarded() {
        ASAN_UNPOISON_MEMORY_REGION(first_, inner_);
        munmap(first_ - page_, inner_ + 2 * page_);
    }

    Guarded(const Guarded&) = delete;
    Guarded& operator=(const Guarded&) = delete;

    uint8_t* data() const { return start_; }
    size_t size() const { return bytes_; }

    // From now on a write into this memory ends the program.
    void freeze() const { allow(PROT_READ); }

    // Whether nothing was written beside the memory.
    bool intact() const {
        ASAN_UNPOISON_MEMORY_REGION(first_, inner_);
        bool same = true;
        for (size_t i = 0; i < before(); ++i) same &= first_[i] == PATTERN;
        for (size_t i = 0; i < behind(); ++i) same &= start_[bytes_ + i] == PATTERN;
        return same;
    }

    // As a float or as a float16 this pattern is not a number: whoever reads it gets a wrong result.
    static constexpr uint8_t PATTERN = 0xff;

  private:
    size_t before() const { return static_cast<size_t>(start_ - first_); }
    size_t behind() const { return inner_ - bytes_ - before(); }

    void allow(int protection) const {
        if (mprotect(first_, inner_, protection) != 0) {
            std::perror("mprotect");
            std::abort();
        }
    }

    size_t bytes_, page_, inner_ = 0;
    uint8_t *first_ = nullptr, *start_ = nullptr;
};

}  // namespace q3e::check
