// Launches a kernel. tests/cuda_on_cpu replaces both functions to run the threads of a block one
// after the other on the host.
#pragma once

#include <cuda_runtime.h>

#ifndef GSDD_CUDA_ON_CPU

namespace gsdd {

template <class... Parameters, class... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), int64_t blocks, int threads, cudaStream_t stream,
                   Arguments... arguments) {
  constexpr int64_t kMaxBlocks = 2147483647;  // kernels loop over the remaining work
  if (blocks == 0) return cudaSuccess;
  kernel<<<(unsigned)(blocks < kMaxBlocks ? blocks : kMaxBlocks), threads, 0, stream>>>(
      arguments...);
  return cudaGetLastError();
}

__device__ inline float exp2_fast(float x) {  // to 2 ulp; 0 below 2^-126
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace gsdd

#endif
