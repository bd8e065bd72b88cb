// What a CUDA thread does with one Gaussian: it walks down a strip of four pixel rows in one
// column, as cpu_bands.h does with a band, by multiplications from exponentials at its top.
#pragma once

#include "cuda_launch.h"
#include "gaussian.h"

namespace gsdd {
namespace {

constexpr int kStrip = 4;             // pixel rows
constexpr double kMaxSize = 32768.0;  // pixels

enum Path { kNone, kByStrips, kExact };

struct Place {  // of a centre on one axis, in two floats
  float grid, rest;

  __device__ static Place of(double value) {
    const float grid = rintf((float)value * 256.0f) / 256.0f;
    return {grid, (float)(value - (double)grid)};
  }
  // value - this, rounded once: the first difference is exact, for quarters of a pixel to 2^16.
  __device__ float to(float value) const { return (value - grid) - rest; }
};

// A Gaussian in shared memory.
template <int C>
struct Staged {
  int path;
  int left, right, top, bottom;   // of the support, pixels
  Place x, y;                     // centre
  float a, skew, w;               // weight = opacity 2^-(a X^2 - skew X Y + w Y^2)
  float turn;                     // 2^(skew / 4)
  float lean, half_height, peak;  // the support: dX / dY of a row's centre, Y of its last point,
                                  // Y of its rightmost point
  float opacity, least;           // least = min_weight / opacity
  float cap;                      // over `least`: what the weight 1 is, if the opacity exceeds 1
  float color[C];
  double exact_x, exact_y, slope, scale;  // of kExact: scale = sqrt(precision_x / 2 * log2 e)
  float rate, cut;                        // exponent base 2: q = t^2 + rate * dy^2 <= cut
};

GSDD_FN bool suits_strips(const Gaussian& g, const Raster& raster, const Split& exponent) {
  return raster.samples == 2 && raster.min_weight > 0.0 && raster.width < kMaxSize &&
         raster.height < kMaxSize && fabs(g.x) < kMaxSize && fabs(g.y) < kMaxSize &&
         can_walk(g, exponent, kStrip) && can_split(g, exponent, kStrip + 1.5);
}

template <int C>
__device__ void stage(const Gaussian& g, const Inputs& in, const Raster& raster, Staged<C>* out) {
  const Split exponent = split(g);
  out->a = (float)exponent.a;
  out->skew = (float)exponent.skew;
  out->w = (float)exponent.w;
  out->turn = exp2f((float)(0.25 * exponent.skew));
  const Range columns = pixel_range(g.x - g.half_width, g.x + g.half_width, raster.width);
  const Range rows = pixel_range(g.y - g.half_height, g.y + g.half_height, raster.height);
  const bool empty = columns.last < columns.first || rows.last < rows.first;
  out->path = empty ? kNone : suits_strips(g, raster, exponent) ? kByStrips : kExact;
  out->left = (int)columns.first;
  out->right = (int)columns.last;
  out->top = (int)rows.first;
  out->bottom = (int)rows.last;
  out->x = Place::of(g.x);
  out->y = Place::of(g.y);
  out->lean = (float)g.slope;
  out->half_height = (float)g.half_height;
  out->peak = (float)(g.half_width * g.covariance / g.var_x);
  out->opacity = *in.opacity;
  out->least = (float)(raster.min_weight / *in.opacity);
  out->cap = *in.opacity > 1.0f ? (float)(1.0 / raster.min_weight) : INFINITY;
  for (int c = 0; c < C; ++c) out->color[c] = in.color[c];
  out->exact_x = g.x;
  out->exact_y = g.y;
  out->slope = g.slope;
  out->scale = sqrt(0.5 * kLog2E * g.precision_x);
  out->rate = (float)(0.5 * kLog2E * g.precision_y);
  out->cut = (float)(kLog2E * g.cut);
}

// A row of samples: what weights are multiplied by and compared with after dividing by it. The
// threshold of a row outside the support compares false with everything.
struct SampleRow {
  float gain, threshold;
};

template <int C>
__device__ SampleRow sample_row(const Staged<C>& g, int k) {  // k: of the image
  if (k < 2 * g.top || k >= 2 * (g.bottom + 1)) return {0.0f, NAN};
  const float y = g.y.to(0.5f * (float)k + 0.25f), e = g.w * y * y;
  return {g.opacity * exp2_fast(-e), g.least * exp2_fast(e)};
}

struct Columns {
  int first, last;
};

// The columns that the support reaches in the strip of pixels from row i down. A strip reaches
// furthest where its rows come nearest to the support's extreme points.
template <int C>
__device__ Columns columns_of(const Staged<C>& g, int i) {
  constexpr float kSlack = 0.02f;  // pixels
  if (i > g.bottom || i + kStrip <= g.top) return {0, -1};
  const float upper = g.y.to((float)i + 0.25f), lower = upper + (float)kStrip - 0.5f;
  const auto reach = [&](float at, float side) {
    at = fminf(fmaxf(fminf(fmaxf(at, upper), lower), -g.half_height), g.half_height);
    const float half = sqrtf(fmaxf(0.0f, (g.cut - g.rate * at * at) / g.a));
    return g.x.grid + g.x.rest + g.lean * at + side * half;
  };
  const int first = (int)floorf(reach(-g.peak, -1.0f) + 0.25f - kSlack);
  const int last = (int)floorf(reach(g.peak, 1.0f) - 0.25f + kSlack);
  return {first > g.left ? first : g.left, last < g.right ? last : g.right};
}

struct Walk {  // V of the samples of a pixel, by row and column, and what takes it a pixel down
  float v[2][2], down[2];

  // From the pixel whose first sample is at X = x, Y = y from the centre.
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

// Calls visit(t, dy, weight before clipping / opacity) for every sample of pixel (i, j) in the
// support. The sample's offset is taken in double precision: it is where the digits are.
template <int C, class Visit>
__device__ void for_samples(const Staged<C>& g, int i, int j, int samples, const Visit& visit) {
  const double inverse = 1.0 / samples;
  const float step = (float)(g.scale * inverse);
  for (int r = 0; r < samples; ++r) {
    const double dy = i + (r + 0.5) * inverse - g.exact_y;
    const float offset = (float)((j + 0.5 * inverse - g.exact_x - g.slope * dy) * g.scale);
    const float marginal = g.rate * (float)dy * (float)dy;
    for (int s = 0; s < samples; ++s) {
      const float t = fmaf((float)s, step, offset);
      const float q = fmaf(t, t, marginal);
      if (q <= g.cut) visit(t, (float)dy, exp2f(-q));
    }
  }
}

}  // namespace
}  // namespace gsdd
