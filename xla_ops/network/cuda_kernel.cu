// A thread block computes 16 channels of one image: 16 adjacent threads read neighboring channels
// of a pixel, and 32 such rows of threads share the 2 x 2 blocks. Images of at most 32 x 32 pixels
// stay in registers and are read once; larger ones are read again for the results. Sums have a
// fixed order, without atomics: bits depend only on the image.
#include <cuda_runtime.h>

#include <type_traits>

#include "common/cuda_launch.h"
#include "network/bfloat16.h"
#include "network/cuda_kernel.h"
#include "network/norm_pool.h"

namespace gsdd {
namespace {

constexpr int kLanes = 16, kRows = 32, kThreads = kLanes * kRows;
constexpr int kWarps = kThreads / 32;

// Sums `values` over the rows of threads, per lane; every thread gets the sums.
template <int N>
__device__ inline void sum_rows(float (&values)[N]) {
  __shared__ float parts[N][kWarps][kLanes];
  __shared__ float totals[N][kLanes];
  const int thread = threadIdx.x, lane = thread % kLanes, warp = thread / 32;
#pragma unroll
  for (int n = 0; n < N; ++n) {
    const float both = values[n] + __shfl_xor_sync(0xffffffffu, values[n], kLanes);
    if (thread % 32 < kLanes) parts[n][warp][lane] = both;
  }
  __syncthreads();
  if (thread < N * kLanes) {
    float total = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) total += parts[thread / kLanes][w][lane];
    totals[thread / kLanes][lane] = total;
  }
  __syncthreads();
#pragma unroll
  for (int n = 0; n < N; ++n) values[n] = totals[n][lane];
}

// One thread's part of 16 channels of an image. kKept: number of 2 x 2 blocks in registers, enough
// for all of its blocks; 0: keeps none, for any number of blocks.
template <class T, int kKept>
struct Slice {
  int64_t image;
  int channels, width, blocks, channel, row;
  bool active;  // the last slice may have fewer channels
  const T* x;
  float middle, scale, shift, part, pixels;
  float mean, rate, factor;

  __device__ Slice(const NormPoolBatch& batch, int64_t slice) {
    const int slices = (batch.channels + kLanes - 1) / kLanes;
    image = slice / slices;
    channels = batch.channels;
    width = batch.width;
    blocks = batch.height / 2 * (batch.width / 2);
    channel = (int)(slice % slices) * kLanes + (int)threadIdx.x % kLanes;
    row = (int)threadIdx.x / kLanes;
    active = channel < channels;
    if (!active) channel = channels - 1;
    x = all_of((const T*)batch.x);
    middle = widen(x[(batch.height / 2 * width + width / 2) * channels]);
    const int64_t of_row = image / batch.images_per_row * channels + channel;
    scale = batch.scale[of_row];
    shift = batch.shift[of_row];
    pixels = (float)(batch.height * batch.width);
    part = 1.0f / pixels;
  }
  __device__ void set(float new_mean, float new_rate) {
    mean = new_mean;
    rate = new_rate;
    factor = rate * scale;
  }
  __device__ int64_t number() const { return image * channels + channel; }
  template <class A>
  __device__ A* all_of(A* array) const {  // of [B, H, W, C]
    return array + image * 4 * blocks * channels + channel;
  }
  template <class A>
  __device__ A* pooled_of(A* array) const {  // of [B, H/2, W/2, C]
    return array + image * blocks * channels + channel;
  }
  __device__ int offset(int block, int pixel) const {
    const int i = block / (width / 2) * 2 + pixel / 2, j = block % (width / 2) * 2 + pixel % 2;
    return (i * width + j) * channels;
  }
  // Calls f(index in registers, block) for this thread's blocks.
  template <class F>
  __device__ void for_blocks(const F& f) const {
    if constexpr (kKept == 0) {
      for (int block = row; block < blocks; block += kRows) f(0, block);
    } else {
#pragma unroll
      for (int k = 0; k < kKept; ++k)
        if (row + k * kRows < blocks) f(k, row + k * kRows);
    }
  }
  __device__ float before_relu(float c) const { return fmaf(c, factor, shift); }
};

// Pixels of this thread's blocks.
template <class T, int kKept>
struct Pixels {
  float kept[kKept == 0 ? 1 : kKept][4];

  __device__ void read(const Slice<T, kKept>& slice, const T* array, int k, int block) {
#pragma unroll
    for (int p = 0; p < 4; ++p) kept[k][p] = widen(array[slice.offset(block, p)]);
  }
  __device__ void read_again(const Slice<T, kKept>& slice, const T* array, int k, int block) {
    if (kKept == 0) read(slice, array, k, block);
  }
};

__host__ __device__ inline int64_t slices_of(const NormPoolBatch& batch) {
  return batch.images * ((batch.channels + kLanes - 1) / kLanes);
}

template <class T, int kKept>
__global__ void __launch_bounds__(kThreads, 2) forward_kernel(NormPoolBatch batch, T* y) {
  for (int64_t n = blockIdx.x; n < slices_of(batch); n += gridDim.x) {
    Slice<T, kKept> slice(batch, n);
    Pixels<T, kKept> x;
    float sums[2] = {0, 0};
    slice.for_blocks([&](int k, int block) {
      x.read(slice, slice.x, k, block);
      for (int p = 0; p < 4; ++p) {
        const float d = x.kept[k][p] - slice.middle;
        sums[0] += d;
        sums[1] = fmaf(d, d, sums[1]);
      }
    });
    sum_rows(sums);
    const float mean = sums[0] * slice.part;
    const float variance = sums[1] * slice.part - mean * mean;
    slice.set(mean, 1.0f / sqrtf(variance + batch.epsilon));
    if (!slice.active) continue;
    if (slice.row == 0) {
      batch.mean[slice.number()] = slice.mean;
      batch.rate[slice.number()] = slice.rate;
    }
    T* const to = slice.pooled_of(y);
    slice.for_blocks([&](int k, int block) {
      x.read_again(slice, slice.x, k, block);
      float sum = 0;
      for (int p = 0; p < 4; ++p) {
        const float h = slice.before_relu(x.kept[k][p] - slice.middle - slice.mean);
        sum += h < 0 ? 0 : h;  // a NaN stays one
      }
      narrow(0.25f * sum, to + block * slice.channels);
    });
  }
}

template <class T, int kKept>
__global__ void __launch_bounds__(kThreads, kKept == 8 ? 1 : 2)
    gradient_kernel(NormPoolBatch batch, const T* g, T* dx, float* d_scale, float* d_shift) {
  for (int64_t n = blockIdx.x; n < slices_of(batch); n += gridDim.x) {
    Slice<T, kKept> slice(batch, n);
    slice.set(batch.mean[slice.number()], batch.rate[slice.number()]);
    const T* const from = slice.pooled_of(g);
    Pixels<T, kKept> x;
    float sums[2] = {0, 0};
    slice.for_blocks([&](int k, int block) {
      x.read(slice, slice.x, k, block);
      const float u_all = 0.25f * widen(from[block * slice.channels]);
      for (int p = 0; p < 4; ++p) {
        const float c = x.kept[k][p] - slice.middle - slice.mean;
        const float u = slice.before_relu(c) > 0 ? u_all : 0;
        sums[0] += u;
        sums[1] = fmaf(u, c, sums[1]);
      }
    });
    sum_rows(sums);
    if (!slice.active) continue;
    const NormPoolGradient<float> d(sums[0], sums[1], slice.rate, slice.factor, slice.part);
    if (slice.row == 0) {
      d_scale[slice.number()] = d.d_scale;
      d_shift[slice.number()] = sums[0];
    }
    T* const to = slice.all_of(dx);
    slice.for_blocks([&](int k, int block) {
      x.read_again(slice, slice.x, k, block);
      const float u_all = 0.25f * slice.factor * widen(from[block * slice.channels]);
      for (int p = 0; p < 4; ++p) {
        const float c = x.kept[k][p] - slice.middle - slice.mean;
        const float u = slice.before_relu(c) > 0 ? u_all : 0;
        narrow(u - fmaf(c, d.slope, d.constant), to + slice.offset(block, p));
      }
    });
  }
}

template <class T, int kKept>
__global__ void __launch_bounds__(kThreads, 2)
    second_kernel(NormPoolBatch batch, const T* g, NormPoolCotangents cotangents, T* dx,
                  float* d_scale, T* dg) {
  for (int64_t n = blockIdx.x; n < slices_of(batch); n += gridDim.x) {
    Slice<T, kKept> slice(batch, n);
    slice.set(batch.mean[slice.number()], batch.rate[slice.number()]);
    const T* const from = slice.pooled_of(g);
    const T* const a_from = slice.all_of((const T*)cotangents.a);
    Pixels<T, kKept> x, a;
    float sums[5] = {0, 0, 0, 0, 0};
    slice.for_blocks([&](int k, int block) {
      x.read(slice, slice.x, k, block);
      a.read(slice, a_from, k, block);
      const float u_all = 0.25f * widen(from[block * slice.channels]);
      for (int p = 0; p < 4; ++p) {
        const float c = x.kept[k][p] - slice.middle - slice.mean, w = a.kept[k][p];
        const float u = slice.before_relu(c) > 0 ? u_all : 0;
        sums[0] += u;
        sums[1] = fmaf(u, c, sums[1]);
        sums[2] += w;
        sums[3] = fmaf(w, c, sums[3]);
        sums[4] = fmaf(w, u, sums[4]);
      }
    });
    sum_rows(sums);
    if (!slice.active) continue;
    const NormPoolSecondGradient<float> d({sums[0], sums[1], sums[2], sums[3], sums[4]}, slice.rate,
                                          slice.factor, cotangents.a_scale[slice.number()],
                                          cotangents.a_shift[slice.number()], slice.part,
                                          slice.pixels);
    if (slice.row == 0) d_scale[slice.number()] = d.d_scale;
    T* const to = slice.all_of(dx);
    T* const g_to = slice.pooled_of(dg);
    slice.for_blocks([&](int k, int block) {
      x.read_again(slice, slice.x, k, block);
      a.read_again(slice, a_from, k, block);
      const float u_all = 0.25f * widen(from[block * slice.channels]);
      float sum = 0;
      for (int p = 0; p < 4; ++p) {
        const float c = x.kept[k][p] - slice.middle - slice.mean, w = a.kept[k][p];
        const bool passes = slice.before_relu(c) > 0;
        if (passes) sum += fmaf(slice.factor, w, fmaf(d.v_slope, c, d.v_constant));
        narrow(d.x_u * (passes ? u_all : 0) - fmaf(d.x_a, w, fmaf(d.x_slope, c, d.x_constant)),
               to + slice.offset(block, p));
      }
      narrow(0.25f * sum, g_to + block * slice.channels);
    });
  }
}

// Calls f(a T, blocks kept in registers), at most kMost of them.
template <class T, int kMost, class F>
cudaError_t by_size(const NormPoolBatch& batch, const F& f) {
  const int64_t blocks = (int64_t)batch.height / 2 * (batch.width / 2);
  if (blocks <= 2 * kRows) return f(T{}, std::integral_constant<int, 2>());
  if constexpr (kMost == 8)
    if (blocks <= 8 * kRows) return f(T{}, std::integral_constant<int, 8>());
  return f(T{}, std::integral_constant<int, 0>());
}
template <int kMost, class F>
cudaError_t by_type_and_size(const NormPoolBatch& batch, const F& f) {
  return batch.narrow ? by_size<Bfloat16, kMost>(batch, f) : by_size<float, kMost>(batch, f);
}

}  // namespace

cudaError_t launch_norm_pool(const NormPoolBatch& batch, void* y, cudaStream_t stream) {
  return by_type_and_size<8>(batch, [&](auto type, auto kept) {
    using T = decltype(type);
    return launch(forward_kernel<T, decltype(kept)::value>, slices_of(batch), kThreads, stream,
                  batch, (T*)y);
  });
}

cudaError_t launch_norm_pool_gradient(const NormPoolBatch& batch, const void* g, void* dx,
                                      float* d_scale, float* d_shift, cudaStream_t stream) {
  return by_type_and_size<8>(batch, [&](auto type, auto kept) {
    using T = decltype(type);
    return launch(gradient_kernel<T, decltype(kept)::value>, slices_of(batch), kThreads, stream,
                  batch, (const T*)g, (T*)dx, d_scale, d_shift);
  });
}

cudaError_t launch_norm_pool_second(const NormPoolBatch& batch, const void* g,
                                    const NormPoolCotangents& cotangents, void* dx, float* d_scale,
                                    void* dg, cudaStream_t stream) {
  return by_type_and_size<2>(batch, [&](auto type, auto kept) {
    using T = decltype(type);
    return launch(second_kernel<T, decltype(kept)::value>, slices_of(batch), kThreads, stream,
                  batch, (const T*)g, cotangents, (T*)dx, d_scale, (T*)dg);
  });
}

}  // namespace gsdd
