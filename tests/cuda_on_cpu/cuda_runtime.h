// The part of CUDA that the kernels of xla_ops need, on the host: every thread of a block is a
// fiber, which runs until it meets a barrier or a warp's exchange. A barrier that some thread never
// meets is reported. Fibers take turns forwards or backwards, so that a missing barrier shows as a
// difference.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <vector>

#define __device__
#define __host__
#define __global__
#define __shared__ static
#define __launch_bounds__(...)
#define GSDD_CUDA_ON_CPU  // instead of common/cuda_launch.h

using std::max;
using std::min;

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess };
struct alignas(16) float4 {
  float x, y, z, w;
};
struct Index {
  int64_t x;
};
inline Index threadIdx, blockIdx, gridDim, blockDim;

namespace cuda_on_cpu {

enum class Wait { kNone, kWarp, kBlock, kDone };
constexpr int kWarp = 32;

struct Fiber {
  ucontext_t context;
  std::vector<char> stack = std::vector<char>(1 << 16);
  Wait wait = Wait::kNone;
  float value = 0;
};

inline std::vector<Fiber> fibers;
inline std::vector<float> published;  // values of the threads at their last meeting
inline ucontext_t scheduler;
inline std::function<void()> body;
inline bool backwards = false;

inline void start() {
  body();
  fibers[threadIdx.x].wait = Wait::kDone;
}

// Waits until all threads of the warp or block have come here, each with its value.
inline void meet(Wait wait, float value) {
  const int64_t me = threadIdx.x;
  fibers[me].wait = wait;
  fibers[me].value = value;
  swapcontext(&fibers[me].context, &scheduler);
}

// Lets threads first..last - 1 go on if all of them wait for the same.
inline bool release(int first, int last, Wait wait) {
  for (int t = first; t < last; ++t)
    if (fibers[t].wait != wait) return false;
  for (int t = first; t < last; ++t) {
    published[t] = fibers[t].value;
    fibers[t].wait = Wait::kNone;
  }
  return true;
}

inline void run_block(int64_t block, int64_t blocks, int threads) {
  blockIdx.x = block;
  gridDim.x = blocks;
  blockDim.x = threads;
  fibers.resize(threads);
  published.resize(threads);
  for (Fiber& fiber : fibers) {
    fiber.wait = Wait::kNone;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.data();
    fiber.context.uc_stack.ss_size = fiber.stack.size();
    fiber.context.uc_link = &scheduler;
    makecontext(&fiber.context, start, 0);
  }
  for (;;) {
    bool ran = false, done = true;
    for (int k = 0; k < threads; ++k) {
      const int t = backwards ? threads - 1 - k : k;
      if (fibers[t].wait == Wait::kNone) {
        threadIdx.x = t;
        swapcontext(&scheduler, &fibers[t].context);
        ran = true;
      }
      done = done && fibers[t].wait == Wait::kDone;
    }
    if (done) return;
    bool released = release(0, threads, Wait::kBlock);
    for (int first = 0; first < threads; first += kWarp)
      released = release(first, first + kWarp, Wait::kWarp) || released;
    if (!ran && !released) {
      std::fprintf(stderr, "block %ld: some threads never come to a barrier\n", (long)block);
      std::abort();
    }
  }
}

inline int64_t warp_start() { return threadIdx.x / kWarp * kWarp; }

}  // namespace cuda_on_cpu

inline void __syncthreads() { cuda_on_cpu::meet(cuda_on_cpu::Wait::kBlock, 0); }
inline int __syncthreads_or(int predicate) {
  cuda_on_cpu::meet(cuda_on_cpu::Wait::kBlock, predicate != 0);
  for (float value : cuda_on_cpu::published)
    if (value != 0) return 1;
  return 0;
}
inline void __syncwarp() { cuda_on_cpu::meet(cuda_on_cpu::Wait::kWarp, 0); }
inline float __shfl_xor_sync(unsigned, float value, int distance) {
  cuda_on_cpu::meet(cuda_on_cpu::Wait::kWarp, value);
  return cuda_on_cpu::published[threadIdx.x ^ distance];
}
inline unsigned __ballot_sync(unsigned, int predicate) {
  cuda_on_cpu::meet(cuda_on_cpu::Wait::kWarp, predicate != 0);
  unsigned ballot = 0;
  for (int lane = 0; lane < cuda_on_cpu::kWarp; ++lane)
    ballot |= (cuda_on_cpu::published[cuda_on_cpu::warp_start() + lane] != 0 ? 1u : 0u) << lane;
  return ballot;
}
inline bool __any_sync(unsigned lanes, int predicate) {
  return __ballot_sync(lanes, predicate) != 0;
}
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __ffs(int bits) { return __builtin_ffs(bits); }

namespace gsdd {

template <class... Parameters, class... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), int64_t blocks, int threads, cudaStream_t,
                   Arguments... arguments) {
  cuda_on_cpu::body = [=] { kernel(arguments...); };
  // Fewer blocks than asked for, so that their loops over the remaining work run, too.
  const int64_t resident = std::min<int64_t>(blocks, 7);
  for (int64_t block = 0; block < resident; ++block)
    cuda_on_cpu::run_block(block, resident, threads);
  return cudaSuccess;
}

inline float exp2_fast(float x) {  // as in hardware: denormal results are 0
  const float y = std::exp2(x);
  return y < FLT_MIN ? 0.0f : y;
}

}  // namespace gsdd
