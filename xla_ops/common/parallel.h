// Runs tasks on XLA's own thread pool.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace gsdd {
namespace {

inline void relax() {  // pauses in a waiting loop
#ifdef GSDD_HAVE_X86
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Runs task(i, scratch) for every i in [0, count); each task must write only its own outputs.
//
// The caller runs tasks too and waits only for tasks that a thread has begun. A pool whose threads
// are all inside such calls thus cannot deadlock. The caller polls before it sleeps: the last tasks
// take microseconds, a wake-up takes tens of them. No exception may leave a thread of XLA's: if a
// task throws (out of memory), the call returns an error and skips the remaining tasks.
template <class Task>
xla::ffi::Error parallel_for(xla::ffi::ThreadPool pool, int64_t count, size_t scratch,
                             const Task& task) {
  struct State {
    std::atomic<int64_t> next{0};
    std::atomic<int64_t> finished{0};
    std::atomic<bool> failed{false};
    std::mutex mutex;
    std::condition_variable all_finished;
  };
  const auto state = std::make_shared<State>();
  const auto work = [state, count, scratch, &task] {
    std::vector<float> memory;
    int64_t done = 0;
    for (int64_t i; (i = state->next.fetch_add(1)) < count; ++done) {
      if (state->failed) continue;
      try {
        if (memory.empty()) memory.resize(scratch);
        task(i, memory.data());
      } catch (const std::exception&) {
        state->failed = true;
      }
    }
    if (done == 0) return;  // too late: `task` may be destroyed
    const std::lock_guard<std::mutex> lock(state->mutex);
    if (state->finished.fetch_add(done) + done == count) state->all_finished.notify_all();
  };
  const int64_t helpers = std::min(pool.num_threads(), count) - 1;
  try {
    for (int64_t i = 0; i < helpers; ++i) pool.Schedule(std::function<void()>(work));
  } catch (const std::bad_alloc&) {  // continue with fewer helpers
  }
  work();
  constexpr int kLooks = 2000;
  for (int i = 0; i < kLooks && state->finished != count; ++i) relax();
  if (state->finished != count) {
    std::unique_lock<std::mutex> lock(state->mutex);
    state->all_finished.wait(lock, [&] { return state->finished == count; });
  }
  if (!state->failed) return xla::ffi::Error::Success();
  return xla::ffi::Error(xla::ffi::ErrorCode::kResourceExhausted,
                         "gsdd: no memory for " + std::to_string(sizeof(float) * scratch) +
                             " bytes of scratch on every thread");
}

}  // namespace
}  // namespace gsdd
