// The CUDA rasterizer: asynchronous launches on a stream, nothing allocated, nothing synchronised.
#pragma once

#include <cuda_runtime_api.h>

#include "gaussian.h"

namespace gsdd {

struct Batch {  // B images of N Gaussians, dense and row-major
  const float* means;      // [B, N, 2]
  const float* cholesky;   // [B, N, 3]
  const float* colors;     // [B, N, C]
  const float* opacities;  // [B, N]
  int64_t batch, count;
  Raster raster;
};

struct BatchGradient {  // as Batch
  float* means;
  float* cholesky;
  float* colors;
  float* opacities;
};

cudaError_t launch_forward(const Batch& batch, int channels, float* images, cudaStream_t stream);
cudaError_t launch_backward(const Batch& batch, int channels, const float* d_images,
                            const BatchGradient& gradient, cudaStream_t stream);

}  // namespace gsdd
