// CUDA rasterizer: asynchronous launches on a stream, without allocation or synchronization.
#pragma once

#include <cuda_runtime_api.h>

#include "rasterizer/gaussian.h"

namespace gsdd {

// B images, dense and row-major, of N Gaussians each; or ragged, of N Gaussians in all: image b
// owns those from offsets[b] to offsets[b + 1].
struct Batch {
  const float* means;      // [B, N, 2] or [N, 2]
  const float* cholesky;   // [B, N, 3] or [N, 3]
  const float* colors;     // [B, N, C] or [N, C]
  const float* opacities;  // [B, N] or [N]
  const int32_t* offsets;  // [B + 1], on the device, or null
  int64_t batch, count;
  Raster raster;

  int64_t total() const { return offsets ? count : batch * count; }
};

struct BatchGradient {  // as Batch
  float* means;
  float* cholesky;
  float* colors;
  float* opacities;
};

// Scratch memory of the kernels, in bytes per Gaussian, aligned to 16 bytes.
struct Room {
  void* boxes;
  void* records;
};
constexpr int64_t kBoxBytes = 8, kRecordBytes = 64;

cudaError_t launch_forward(const Batch& batch, const Room& room, int channels, float* images,
                           cudaStream_t stream);
cudaError_t launch_backward(const Batch& batch, const Room& room, int channels,
                            const float* d_images, const BatchGradient& gradient,
                            cudaStream_t stream);

}  // namespace gsdd
