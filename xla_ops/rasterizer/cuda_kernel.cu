// Launches: prepares the Gaussians, then renders images or gathers gradients.
#include <type_traits>

#include "rasterizer/cuda_backward.h"
#include "rasterizer/cuda_forward.h"
#include "rasterizer/cuda_kernel.h"

namespace gsdd {
namespace {

cudaError_t prepare(const Batch& batch, const Prepared& prepared, int channels,
                    cudaStream_t stream) {
  const int64_t blocks = (batch.total() + kPrepareThreads - 1) / kPrepareThreads;
  return launch(prepare_kernel, blocks, kPrepareThreads, stream, batch, channels, batch.total(),
                prepared);
}

// Chooses 32 x 32 tiles, or 16 x 16 tiles if there would be fewer blocks than this.
constexpr int64_t kFewBlocks = 512;

template <int C, int kTile>
cudaError_t paint_tiles(const Batch& batch, const Prepared& prepared, float* images,
                        cudaStream_t stream) {
  const int64_t tiles_x = (batch.raster.width + kTile - 1) / kTile;
  const int64_t tiles = tiles_x * ((batch.raster.height + kTile - 1) / kTile);
  return launch(forward_kernel<C, kTile>, tiles * batch.batch, kTile * kTile / kStrip, stream,
                batch, prepared, Sampling(batch.raster), images, (int)tiles_x, (int)tiles);
}

template <int C>
cudaError_t forward(const Batch& batch, const Prepared& prepared, float* images,
                    cudaStream_t stream) {
  const int64_t large = ((batch.raster.width + 31) / 32) * ((batch.raster.height + 31) / 32);
  if (large * batch.batch < kFewBlocks) return paint_tiles<C, 16>(batch, prepared, images, stream);
  return paint_tiles<C, 32>(batch, prepared, images, stream);
}

template <int C>
cudaError_t gather(const Batch& batch, const Prepared& prepared, const float* d_images,
                   const BatchGradient& gradient, cudaStream_t stream) {
  const int64_t total = batch.total();
  const int group = total < kGroup * kFewBlocks ? kGatherWarps : kGroup;
  const auto kernel = batch.raster.pass_clipped ? gather_kernel<C, true> : gather_kernel<C, false>;
  return launch(kernel, (total + group - 1) / group, kWarp * kGatherWarps, stream, batch, prepared,
                Sampling(batch.raster), total, group, d_images, gradient);
}

cudaError_t finish(const Batch& batch, const Prepared& prepared, int channels,
                   const BatchGradient& gradient, cudaStream_t stream) {
  const int64_t blocks = (batch.total() + kFinishThreads - 1) / kFinishThreads;
  return launch(finish_kernel, blocks, kFinishThreads, stream, batch, prepared, channels,
                batch.total(), gradient);
}

// Calls f with the number of channels as a constant.
template <class F>
cudaError_t by_channels(int channels, const F& f) {
  switch (channels) {
    case 1: return f(std::integral_constant<int, 1>());
    case 2: return f(std::integral_constant<int, 2>());
    case 3: return f(std::integral_constant<int, 3>());
    default: return f(std::integral_constant<int, 4>());
  }
}

}  // namespace

cudaError_t launch_forward(const Batch& batch, const Room& room, int channels, float* images,
                           cudaStream_t stream) {
  const Prepared prepared(room);
  const cudaError_t error = prepare(batch, prepared, channels, stream);
  if (error != cudaSuccess) return error;
  return by_channels(channels, [&](auto number) {
    return forward<decltype(number)::value>(batch, prepared, images, stream);
  });
}

cudaError_t launch_backward(const Batch& batch, const Room& room, int channels,
                            const float* d_images, const BatchGradient& gradient,
                            cudaStream_t stream) {
  const Prepared prepared(room);
  cudaError_t error = prepare(batch, prepared, channels, stream);
  if (error != cudaSuccess) return error;
  error = by_channels(channels, [&](auto number) {
    return gather<decltype(number)::value>(batch, prepared, d_images, gradient, stream);
  });
  if (error != cudaSuccess) return error;
  return finish(batch, prepared, channels, gradient, stream);
}

}  // namespace gsdd
