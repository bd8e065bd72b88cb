// Work of a CUDA thread on one Gaussian: a strip of four pixel rows in one column. Starts from
// exponentials at the top and advances by multiplications, as cpu_bands.h in a band.
#pragma once

#include "rasterizer/cuda_prepared.h"

namespace gsdd {
namespace {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

struct Sampling {  // of a pixel
  int side;
  float share;     // of a sample
  double inverse;  // of `side`

  explicit Sampling(const Raster& raster)
      : side(raster.samples),
        share(1.0f / (float)(raster.samples * raster.samples)),
        inverse(1.0 / raster.samples) {}
};

// A Gaussian in shared memory.
template <int C>
struct Staged : Record {
  Box box;
  float turn;   // 2^(skew / 4)
  float least;  // weight / opacity at the edge of the support
  float cap;    // 1 / (opacity least), of a weight of 1; infinite for opacities up to 1
  float color[C];
};

// Copies `count` Gaussians into shared memory with all threads of the block; place n gets Gaussian
// index(n). The caller must synchronize the block before and after.
template <int C, class Index>
__device__ void stage(Staged<C>* staged, int count, const Batch& batch, const Prepared& prepared,
                      const Index& index) {
  constexpr int kParts = sizeof(Record) / sizeof(float4);
  for (int t = threadIdx.x; t < count * kParts; t += blockDim.x) {
    const Record* from = &prepared.records[index(t / kParts)];
    reinterpret_cast<float4*>(static_cast<Record*>(&staged[t / kParts]))[t % kParts] =
        reinterpret_cast<const float4*>(from)[t % kParts];
  }
  for (int t = threadIdx.x; t < count; t += blockDim.x) {
    const Inputs in = inputs(batch, C, index(t));
    const float opacity = *in.opacity, min_weight = (float)batch.raster.min_weight;
    Staged<C>& g = staged[t];
    g.box = prepared.boxes[index(t)];
    g.turn = exp2f(0.25f * prepared.records[index(t)].skew);
    g.least = min_weight / opacity;
    g.cap = opacity > 1.0f ? 1.0f / min_weight : INFINITY;
    for (int c = 0; c < C; ++c) g.color[c] = in.color[c];
  }
}

// Gain of a row of samples for weight / opacity, and the threshold over the gain. Outside the
// support the threshold is NaN, which compares false.
struct SampleRow {
  float gain, threshold;
};

template <int C>
__device__ SampleRow sample_row(const Staged<C>& g, int k) {  // k: of the image
  if (k < 2 * g.box.top || k >= 2 * (g.box.bottom + 1)) return {0.0f, NAN};
  const float y = g.y.to(0.5f * (float)k + 0.25f), e = g.w * y * y;
  return {exp2_fast(-e), g.least * exp2_fast(e)};
}

struct Columns {
  int first, last;
};

// Returns the columns of the support in the strip from row i down. The support is widest at the row
// nearest to its extreme points.
template <int C>
__device__ Columns columns_of(const Staged<C>& g, int i) {
  constexpr float kSlack = 0.02f;  // pixels
  if (i > g.box.bottom || i + kStrip <= g.box.top) return {0, -1};
  const float upper = g.y.to((float)i + 0.25f), lower = upper + (float)kStrip - 0.5f;
  const auto reach = [&](float at, float side) {
    at = fminf(fmaxf(fminf(fmaxf(at, upper), lower), -g.half_height), g.half_height);
    const float half = sqrtf(fmaxf(0.0f, (g.cut - g.rate * at * at) / g.a));
    return g.x.grid + g.x.rest + g.lean * at + side * half;
  };
  const int first = (int)floorf(reach(-g.peak, -1.0f) + 0.25f - kSlack);
  const int last = (int)floorf(reach(g.peak, 1.0f) - 0.25f + kSlack);
  return {first > g.box.left ? first : g.box.left, last < g.box.right ? last : g.box.right};
}

// Sample rows and columns of a strip.
struct StripRows {
  float4 gain[2], threshold[2];
  Columns columns;
  __device__ void set(int k, const SampleRow& row) {
    reinterpret_cast<float*>(gain)[k] = row.gain;
    reinterpret_cast<float*>(threshold)[k] = row.threshold;
  }
  __device__ float gain_of(int k) const { return reinterpret_cast<const float*>(gain)[k]; }
  __device__ float threshold_of(int k) const {
    return reinterpret_cast<const float*>(threshold)[k];
  }
};

struct Walk {  // V of a pixel's samples, by row and column, and factors to the pixel below
  float v[2][2], down[2];

  // Starts at the pixel whose first sample is at X = x, Y = y relative to the center.
  template <int C>
  __device__ Walk(const Staged<C>& g, float x, float y, bool inside) {
    const float next = x + 0.5f;
    down[0] = exp2_fast(g.skew * x);
    down[1] = exp2_fast(g.skew * next);
    const float within = exp2_fast(0.5f * g.skew * x);
    // Outside the columns of the support V could leave the range of a float.
    v[0][0] = inside ? exp2_fast(x * fmaf(g.skew, y, -g.a * x)) : 0.0f;
    v[0][1] = inside ? exp2_fast(next * fmaf(g.skew, y, -g.a * next)) : 0.0f;
    v[1][0] = v[0][0] * within;
    v[1][1] = v[0][1] * (within * g.turn);
  }
};

// Calls visit(t, dy, unclipped weight / opacity) for every sample of pixel (i, j) in the support.
// Offsets are in double precision, where float32 would lose digits.
template <int C, class Visit>
__device__ void for_samples(const Staged<C>& g, int i, int j, const Sampling& sampling,
                            const Visit& visit) {
  const float step = g.scale * (float)sampling.inverse;
  const double x = g.x.exact(), y = g.y.exact(), slope = (double)g.lean + (double)g.lean_rest;
  for (int r = 0; r < sampling.side; ++r) {
    const double dy = i + (r + 0.5) * sampling.inverse - y;
    const float offset = g.scale * (float)(j + 0.5 * sampling.inverse - x - slope * dy);
    const float marginal = g.rate * (float)dy * (float)dy;
    for (int s = 0; s < sampling.side; ++s) {
      const float t = fmaf((float)s, step, offset);
      const float q = fmaf(t, t, marginal);
      if (q <= g.cut) visit(t, (float)dy, exp2f(-q));
    }
  }
}

}  // namespace
}  // namespace gsdd
