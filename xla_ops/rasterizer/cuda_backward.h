// Computes gradients: a warp per Gaussian, or all warps of a block for a large one, strip by strip
// over its support. Sums use shuffles in a fixed order, without atomics, so every run gives the
// same bits. The results hold the sums until a thread per Gaussian applies the chain rule in double
// precision.
#pragma once

#include "rasterizer/cuda_strip.h"

namespace gsdd {
namespace {

constexpr int kGatherWarps = 8;
constexpr int kGroup = 32;         // largest number of Gaussians per block
constexpr int kBand = 4 * kStrip;  // pixel rows in a warp's table
constexpr int kManyPixels = 4096;  // boxes this large are shared by all warps of a block

// Returns the image that owns a Gaussian, or -1.
__device__ inline int64_t owner(const Batch& batch, int64_t index) {
  if (!batch.offsets) return index / batch.count;
  int64_t low = 0, high = batch.batch;  // the last b with offsets[b] <= index is in [low - 1, high]
  while (low <= high) {
    const int64_t middle = (low + high) / 2;
    if (batch.offsets[middle] <= index)
      low = middle + 1;
    else
      high = middle - 1;
  }
  if (high < 0 || high >= batch.batch) return -1;
  const int64_t first = batch.offsets[high], end = batch.offsets[high + 1];
  return first >= 0 && index < end && end <= batch.count ? high : -1;
}

__device__ inline float warp_sum(float value) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2)
    value += __shfl_xor_sync(kAllLanes, value, distance);
  return value;
}

// Sums over a Gaussian's samples, of weight / opacity times the pixel's cotangent. `moment`: times
// the color and 1, X, Y, X^2, X Y, Y^2 (kExact: dx for X, as in Moments). `color`: per channel.
template <int C>
struct Gathered {
  float moment[6], color[C];

  __device__ float& operator[](int k) { return k < 6 ? moment[k] : color[k - 6]; }
};

// Part of a warp: the pixels of a Gaussian are dealt out to several warps in turn.
struct Part {
  int lane, number, of;

  __device__ int first() const { return lane + number * kWarp; }
  __device__ int step() const { return of * kWarp; }
};

template <int C, bool kPass>
__device__ Gathered<C> gather(const Staged<C>& g, const float* image, int64_t width,
                              const Part& part, StripRows* table) {
  Gathered<C> sums = {};
  const int stride = (int)width * C;
  for (int top = g.box.top; top <= g.box.bottom; top += kBand) {
    table[part.lane / (2 * kStrip)].set(part.lane % (2 * kStrip),
                                        sample_row(g, 2 * top + part.lane));
    if (part.lane < kBand / kStrip)
      table[part.lane].columns = columns_of(g, top + part.lane * kStrip);
    __syncwarp();
    // Concatenates the columns of the strips.
    int end[kBand / kStrip], tasks = 0;
    for (int strip = 0; strip < kBand / kStrip; ++strip) {
      tasks += max(0, table[strip].columns.last + 1 - table[strip].columns.first);
      end[strip] = tasks;
    }
    for (int task = part.first(); task < tasks; task += part.step()) {
      int strip = 0, skipped = 0;
      for (int before = 0; before + 1 < kBand / kStrip; ++before) {
        if (task < end[before]) continue;
        strip = before + 1;
        skipped = end[before];
      }
      const int i = top + strip * kStrip, j = table[strip].columns.first + task - skipped;
      const StripRows rows = table[strip];
      const float x = g.x.to((float)j + 0.25f), y_top = g.y.to((float)i + 0.25f);
      Walk walk(g, x, y_top, true);
      const float* pixel = image + (i * width + j) * C;
      float m = 0, m_y = 0, m_yy = 0, second = 0, second_y = 0;
#pragma unroll
      for (int r = 0; r < kStrip; ++r) {
        float d_color[C], dot = 0.0f, weight = 0.0f;
        for (int c = 0; c < C; ++c) {
          d_color[c] = pixel[c];
          dot = fmaf(d_color[c], g.color[c], dot);
        }
        if (i + r < g.box.bottom) pixel += stride;  // all weights below are 0
#pragma unroll
        for (int q = 0; q < 2; ++q) {
          const float threshold = rows.threshold_of(2 * r + q), cap = g.cap * threshold;
          const float gain = rows.gain_of(2 * r + q), y = y_top + ((float)r + 0.5f * (float)q);
          float clipped = 0.0f, e[2];
#pragma unroll
          for (int s = 0; s < 2; ++s) {
            float& v = walk.v[q][s];
            e[s] = v >= threshold ? v : 0.0f;
            clipped += fminf(e[s], cap);
            if (!kPass) e[s] = v <= cap ? e[s] : 0.0f;
            v *= walk.down[s];
          }
          weight = fmaf(clipped, gain, weight);
          const float h_gain = dot * gain, h = h_gain * (e[0] + e[1]), h_second = h_gain * e[1];
          m += h;
          m_y = fmaf(h, y, m_y);
          m_yy = fmaf(h * y, y, m_yy);
          second += h_second;
          second_y = fmaf(h_second, y, second_y);
        }
        for (int c = 0; c < C; ++c) sums.color[c] = fmaf(weight, d_color[c], sums.color[c]);
      }
      const float m_x = fmaf(x, m, 0.5f * second), second_x = fmaf(x, second, 0.5f * second);
      sums.moment[0] += m;
      sums.moment[1] += m_x;
      sums.moment[2] += m_y;
      sums.moment[3] += fmaf(x, m_x, 0.5f * second_x);
      sums.moment[4] += fmaf(x, m_y, 0.5f * second_y);
      sums.moment[5] += m_yy;
    }
    __syncwarp();
  }
  return sums;
}

template <int C, bool kPass>
__device__ Gathered<C> gather_exactly(const Staged<C>& g, const float* image, int64_t width,
                                      const Sampling& sampling, const Part& part) {
  Gathered<C> sums = {};
  const int columns = g.box.right - g.box.left + 1;
  const int64_t pixels = (int64_t)columns * (g.box.bottom - g.box.top + 1);
  const float unit = 1.0f / g.scale;
  const float cap = g.opacity > 1.0f ? 1.0f / g.opacity : INFINITY;
  for (int64_t p = part.first(); p < pixels; p += part.step()) {
    const int i = g.box.top + (int)(p / columns), j = g.box.left + (int)(p % columns);
    float d_color[C], dot = 0.0f, weight = 0.0f;
    for (int c = 0; c < C; ++c) {
      d_color[c] = image[(i * width + j) * C + c];
      dot = fmaf(d_color[c], g.color[c], dot);
    }
    for_samples<C>(g, i, j, sampling, [&](float t, float dy, float e) {
      weight += fminf(e, cap);
      if (!kPass && e > cap) return;
      const float h = dot * e, x = t * unit, hx = h * x, hy = h * dy;
      sums.moment[0] += h;
      sums.moment[1] += hx;
      sums.moment[2] += hy;
      sums.moment[3] = fmaf(hx, x, sums.moment[3]);
      sums.moment[4] = fmaf(hx, dy, sums.moment[4]);
      sums.moment[5] = fmaf(hy, dy, sums.moment[5]);
    });
    for (int c = 0; c < C; ++c) sums.color[c] = fmaf(weight, d_color[c], sums.color[c]);
  }
  return sums;
}

// Sums of a Gaussian, stored in the elements of its gradient.
struct Places {
  float *mean, *cholesky, *color, *opacity;

  __device__ Places(const BatchGradient& gradient, int channels, int64_t index)
      : mean(gradient.means + 2 * index),
        cholesky(gradient.cholesky + 3 * index),
        color(gradient.colors + channels * index),
        opacity(gradient.opacities + index) {}
  __device__ float& operator[](int k) const {  // the moments, then the colors
    return k == 0 ? *opacity : k < 3 ? mean[k - 1] : k < 6 ? cholesky[k - 3] : color[k - 6];
  }
};

__device__ inline int warps_of(const Box& box) {
  const int64_t pixels = (int64_t)(box.right - box.left + 1) * (box.bottom - box.top + 1);
  return pixels >= kManyPixels ? kGatherWarps : 1;
}

// A block takes `group` Gaussians.
template <int C, bool kPass>
__global__ void __launch_bounds__(kWarp* kGatherWarps, C == 4 ? 2 : 3)
    gather_kernel(Batch batch, Prepared prepared, Sampling sampling, int64_t total, int group,
                  const float* d_images, BatchGradient gradient) {
  __shared__ Staged<C> staged[kGroup];
  __shared__ Gathered<C> gathered[kGroup][kGatherWarps];
  __shared__ int64_t image[kGroup];  // owner of each; -1: nothing to gather
  __shared__ StripRows table[kGatherWarps][kBand / kStrip];
  const Raster& raster = batch.raster;
  const int thread = threadIdx.x, warp = thread / kWarp, lane = thread % kWarp;
  for (int64_t base = (int64_t)blockIdx.x * group; base < total;
       base += (int64_t)gridDim.x * group) {
    const int count = (int)min((int64_t)group, total - base);
    stage<C>(staged, count, batch, prepared, [&](int n) { return base + n; });
    float nothing = 0.0f;  // the sums of a Gaussian that is not gathered
    if (thread < count) {
      const Box box = prepared.boxes[base + thread];
      const int64_t b = owner(batch, base + thread);
      if (b >= 0 && !box.is_finite()) nothing = NAN;
      image[thread] = box.is_empty() ? -1 : b;
    }
    __syncthreads();
    for (int n = 0; n < count; ++n) {
      const Staged<C>& g = staged[n];
      if (image[n] < 0) continue;
      const int warps = warps_of(g.box);
      if (warps == 1 && n % kGatherWarps != warp) continue;
      const Part part = {lane, warps == 1 ? 0 : warp, warps};
      const float* d_image = d_images + image[n] * raster.height * raster.width * C;
      Gathered<C> sums = g.path == kByStrips
                             ? gather<C, kPass>(g, d_image, raster.width, part, table[warp])
                             : gather_exactly<C, kPass>(g, d_image, raster.width, sampling, part);
      for (int k = 0; k < 6 + C; ++k) sums[k] = warp_sum(sums[k]);
      if (lane == 0) gathered[n][part.number] = sums;
    }
    __syncthreads();
    if (thread < count) {
      const Places to(gradient, C, base + thread);
      const int warps = image[thread] < 0 ? 0 : warps_of(staged[thread].box);
      for (int k = 0; k < 6 + C; ++k) {
        float sum = nothing;
        for (int w = 0; w < warps; ++w) sum += gathered[thread][w][k];
        to[k] = sampling.share * sum;
      }
    }
    __syncthreads();
  }
}

constexpr int kFinishThreads = 128;

// Applies the chain rule from the sums of each Gaussian to its parameters. The sums of an invisible
// Gaussian are its gradient already.
__global__ void __launch_bounds__(kFinishThreads, 4)
    finish_kernel(Batch batch, Prepared prepared, int channels, int64_t total,
                  BatchGradient gradient) {
  const Raster& raster = batch.raster;
  const int64_t first = (int64_t)blockIdx.x * kFinishThreads + threadIdx.x;
  for (int64_t index = first; index < total; index += (int64_t)gridDim.x * kFinishThreads) {
    if (prepared.boxes[index].is_empty()) continue;
    const Inputs in = inputs(batch, channels, index);
    const Covariance s =
        covariance(in.cholesky[0], in.cholesky[1], in.cholesky[2], raster.variance);
    const Gaussian g = describe(in.mean[0], in.mean[1], s, 0.0, raster);
    const Places at(gradient, channels, index);
    const double opacity = *in.opacity;
    double sums[6];
    for (int k = 0; k < 6; ++k) sums[k] = opacity * at[k];  // at[0] is the opacity's gradient
    const double slope = prepared.records[index].path == kByStrips ? g.slope : 0.0;
    const ParameterGradient d = pull_back(g, s, sheared(sums, slope), raster);
    for (int k = 0; k < 2; ++k) at.mean[k] = (float)d.mean[k];
    for (int k = 0; k < 3; ++k) at.cholesky[k] = (float)d.cholesky[k];
    for (int c = 0; c < channels; ++c) at.color[c] *= *in.opacity;
  }
}

}  // namespace
}  // namespace gsdd
