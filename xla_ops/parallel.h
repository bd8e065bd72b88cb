// Work spread over XLA's own thread pool.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace gsdd {

// Runs task(i, scratch) for every i in [0, count), each with `scratch` floats of its thread's. The
// caller works too and only ever waits for tasks that a thread has already begun, so a pool whose
// threads are all inside such calls cannot deadlock. Each task writes its own outputs: the result
// does not depend on who runs it.
template <class Task>
void run_tasks(xla::ffi::ThreadPool& pool, int64_t count, size_t scratch, const Task& task) {
  struct State {
    std::atomic<int64_t> next{0};
    int64_t finished = 0;
    std::mutex mutex;
    std::condition_variable all_finished;
  };
  const auto state = std::make_shared<State>();
  const auto work = [state, count, scratch, &task] {
    std::vector<float> memory;
    int64_t done = 0;
    for (int64_t i; (i = state->next.fetch_add(1)) < count; ++done) {
      if (memory.empty()) memory.resize(scratch);
      task(i, memory.data());
    }
    if (done == 0) return;  // late: `task` may be gone already
    const std::lock_guard<std::mutex> lock(state->mutex);
    state->finished += done;
    if (state->finished == count) state->all_finished.notify_all();
  };
  const int64_t helpers = std::min<int64_t>(pool.num_threads(), count) - 1;
  for (int64_t i = 0; i < helpers; ++i) pool.Schedule(std::function<void()>(work));
  work();
  std::unique_lock<std::mutex> lock(state->mutex);
  state->all_finished.wait(lock, [&] { return state->finished == count; });
}

}  // namespace gsdd
