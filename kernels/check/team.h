// Threads that compute one operation together, as ggml's do.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "../operation.h"

namespace q3e::check {

class Pool {
  public:
    explicit Pool(int size) : size_(size) {}

    // Calls `work` once for each rank, each in a thread of its own.
    void run(uint8_t* scratch, const std::function<void(const Team&)>& work) {
        std::vector<std::thread> threads;
        for (int rank = 1; rank < size_; ++rank) threads.emplace_back([&, rank] { work(member(rank, scratch)); });
        work(member(0, scratch));
        for (std::thread& thread : threads) thread.join();
    }

  private:
    Team member(int rank, uint8_t* scratch) {
        return {rank, size_, scratch, this,
                [](void* pool) { static_cast<Pool*>(pool)->wait(); },
                // Like ggml's, the counter orders no other memory: a kernel must wait() between writing and reading.
                [](void* pool, int next) { static_cast<Pool*>(pool)->next_.store(next, std::memory_order_relaxed); },
                [](void* pool, int n) { return static_cast<Pool*>(pool)->take(n); }};
    }

    void wait() {
        std::unique_lock<std::mutex> lock(mutex_);
        const int64_t round = rounds_;
        if (++waiting_ == size_) {
            waiting_ = 0;
            ++rounds_;
            all_came_.notify_all();
        } else {
            all_came_.wait(lock, [&] { return rounds_ != round; });
        }
    }

    int take(int n) {
        if (size_ > 1) std::this_thread::yield();  // so that tasks change hands between the threads
        return next_.fetch_add(n, std::memory_order_relaxed);
    }

    const int size_;
    std::atomic<int> next_{1 << 20};  // what another operation left: a kernel that does not restart it computes nothing
    std::mutex mutex_;
    std::condition_variable all_came_;
    int waiting_ = 0;
    int64_t rounds_ = 0;
};

}  // namespace q3e::check
