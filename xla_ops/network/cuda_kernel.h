// norm_pool.h on CUDA: asynchronous launches on a stream, without allocation or synchronization.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace gsdd {

// Images [B, H, W, C] in float32, or bfloat16 if `narrow`; a row [C] of scale and shift for every
// `images_per_row` images; statistics [B, C].
struct NormPoolBatch {
  const void* x;
  const float* scale;
  const float* shift;
  float* mean;
  float* rate;
  int64_t images, images_per_row;
  int height, width, channels;
  bool narrow;
  float epsilon;
};

struct NormPoolCotangents {  // of the gradient's results
  const void* a;
  const float* a_scale;
  const float* a_shift;
};

cudaError_t launch_norm_pool(const NormPoolBatch& batch, void* y, cudaStream_t stream);
cudaError_t launch_norm_pool_gradient(const NormPoolBatch& batch, const void* g, void* dx,
                                      float* d_scale, float* d_shift, cudaStream_t stream);
cudaError_t launch_norm_pool_second(const NormPoolBatch& batch, const void* g,
                                    const NormPoolCotangents& cotangents, void* dx, float* d_scale,
                                    void* dg, cudaStream_t stream);

}  // namespace gsdd
