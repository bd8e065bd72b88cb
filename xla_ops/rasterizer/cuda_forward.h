// Renders images: a block per tile, a warp per 8 x 16 pixels, a thread per strip. A block finds the
// Gaussians that touch its tile by their boxes, in order. It stages them in shared memory with a
// table of their rows. A warp adds those that reach its pixels.
#pragma once

#include "rasterizer/cuda_strip.h"

namespace gsdd {
namespace {

constexpr int kStage = kWarp;      // Gaussians in shared memory at a time: one per lane
constexpr int kColumns = 8;        // of a warp's pixels
constexpr int kRows = 4 * kStrip;  // of a warp's pixels

struct Owned {  // Gaussians of an image
  int64_t first, count;
  bool valid;  // false for offsets that decrease or exceed the arrays: the image is NaN
};

__device__ inline Owned owned(const Batch& batch, int64_t b) {
  if (!batch.offsets) return {b * batch.count, batch.count, true};
  const int64_t first = batch.offsets[b], end = batch.offsets[b + 1];
  if (first < 0 || end < first || end > batch.count) return {0, 0, false};
  return {first, end - first, true};
}

// Adds a Gaussian to the strip of pixels from (i, j) down.
template <int C>
__device__ void paint(const Staged<C>& g, const StripRows& rows, int i, int j,
                      float (&sum)[kStrip][C]) {
  const bool inside = j >= rows.columns.first && j <= rows.columns.last;
  Walk walk(g, g.x.to((float)j + 0.25f), g.y.to((float)i + 0.25f), inside);
  float color[C];
  for (int c = 0; c < C; ++c) color[c] = g.opacity * g.color[c];
#pragma unroll
  for (int r = 0; r < kStrip; ++r) {
    float weight = 0.0f;
#pragma unroll
    for (int q = 0; q < 2; ++q) {
      const float threshold = rows.threshold_of(2 * r + q), cap = g.cap * threshold;
      float total = 0.0f;
#pragma unroll
      for (int s = 0; s < 2; ++s) {
        float& v = walk.v[q][s];
        if (v >= threshold) total += fminf(v, cap);
        v *= walk.down[s];
      }
      weight = fmaf(total, rows.gain_of(2 * r + q), weight);
    }
    for (int c = 0; c < C; ++c) sum[r][c] = fmaf(weight, color[c], sum[r][c]);
  }
}

template <int C>
__device__ void paint_exactly(const Staged<C>& g, const Sampling& sampling, int i, int j,
                              float (&sum)[kStrip][C]) {
  if (j < g.box.left || j > g.box.right) return;
#pragma unroll
  for (int r = 0; r < kStrip; ++r) {
    if (i + r < g.box.top || i + r > g.box.bottom) continue;
    float weight = 0.0f;
    for_samples<C>(g, i + r, j, sampling,
                   [&](float, float, float e) { weight += fminf(g.opacity * e, 1.0f); });
    for (int c = 0; c < C; ++c) sum[r][c] = fmaf(weight, g.color[c], sum[r][c]);
  }
}

// Whether a Gaussian reaches a warp's pixels; `table` holds their strips.
template <int C>
__device__ bool reaches(const Staged<C>& g, const StripRows* table, int top, int left) {
  if (!g.box.touches(top, left, kRows, kColumns)) return false;
  if (g.path == kExact) return true;
  bool found = false;
#pragma unroll
  for (int strip = 0; strip < kRows / kStrip; ++strip)
    found |= table[strip].columns.last >= left && table[strip].columns.first < left + kColumns;
  return found;
}

template <int C, int kTile>
__global__ void __launch_bounds__(kTile* kTile / kStrip, kTile == 16 ? 12 : 3)
    forward_kernel(Batch batch, Prepared prepared, Sampling sampling, float* images, int tiles_x,
                   int tiles) {
  constexpr int kThreads = kTile * kTile / kStrip, kWarps = kThreads / kWarp;
  constexpr int kStrips = kTile / kStrip;
  __shared__ Staged<C> staged[kStage];
  __shared__ StripRows table[kStage][kStrips];
  __shared__ int survivors[kThreads], counts[kWarps];
  const Raster& raster = batch.raster;
  const int thread = threadIdx.x, warp = thread / kWarp, lane = thread % kWarp;
  for (int64_t block = blockIdx.x; block < tiles * batch.batch; block += gridDim.x) {
    const int64_t b = block / tiles;
    const int tile = (int)(block % tiles);
    const int top = tile / tiles_x * kTile, left = tile % tiles_x * kTile;
    const int warp_top = top + warp / (kTile / kColumns) * kRows;
    const int warp_left = left + warp % (kTile / kColumns) * kColumns;
    const int warp_strip = (warp_top - top) / kStrip, strip = warp_strip + lane / kColumns;
    const int i = top + strip * kStrip, j = warp_left + lane % kColumns;
    float sum[kStrip][C] = {};
    const Owned mine = owned(batch, b);
    int not_finite = !mine.valid;
    for (int64_t first = 0; first < mine.count; first += kThreads) {
      Box box = Box::empty();
      if (first + thread < mine.count) box = prepared.boxes[mine.first + first + thread];
      // Compacts the Gaussians that touch the tile, in order.
      const bool touches = box.touches(top, left, kTile, kTile);
      const unsigned ballot = __ballot_sync(kAllLanes, touches);
      if (lane == 0) counts[warp] = __popc(ballot);
      not_finite |= __syncthreads_or(!box.is_finite());
      int found = 0, place = __popc(ballot & ((1u << lane) - 1u));
      for (int w = 0; w < kWarps; ++w) {
        if (w < warp) place += counts[w];
        found += counts[w];
      }
      if (touches) survivors[place] = thread;
      __syncthreads();

      for (int base = 0; base < found; base += kStage) {
        const int count = min(kStage, found - base);
        stage<C>(staged, count, batch, prepared,
                 [&](int n) { return mine.first + first + survivors[base + n]; });
        __syncthreads();
        for (int t = thread; t < count * kStrips; t += kThreads) {
          const Staged<C>& g = staged[t / kStrips];
          const int row = top + t % kStrips * kStrip;
          if (g.path != kByStrips) continue;
          StripRows rows;
          for (int k = 0; k < 2 * kStrip; ++k) rows.set(k, sample_row(g, 2 * row + k));
          rows.columns = columns_of(g, row);
          table[t / kStrips][t % kStrips] = rows;
        }
        __syncthreads();
        const bool here =
            lane < count && reaches<C>(staged[lane], &table[lane][warp_strip], warp_top, warp_left);
        for (unsigned left_over = __ballot_sync(kAllLanes, here); left_over != 0;
             left_over &= left_over - 1) {
          const int n = __ffs((int)left_over) - 1;
          if (staged[n].path == kByStrips)
            paint<C>(staged[n], table[n][strip], i, j, sum);
          else
            paint_exactly<C>(staged[n], sampling, i, j, sum);
        }
        __syncthreads();
      }
    }
    const float share = not_finite ? NAN : sampling.share;
#pragma unroll
    for (int r = 0; r < kStrip; ++r) {
      if (i + r >= raster.height || j >= raster.width) continue;
      float* pixel = images + ((b * raster.height + i + r) * raster.width + j) * C;
      for (int c = 0; c < C; ++c) pixel[c] = share * sum[r][c];
    }
  }
}

}  // namespace
}  // namespace gsdd
