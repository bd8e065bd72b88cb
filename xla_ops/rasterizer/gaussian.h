// Math of one Gaussian, shared by the CPU and the CUDA kernels.
//
// A sample point p sees a Gaussian through sigma(p) = (p - x)^T S^-1 (p - x) / 2, S = L L^T + f I.
// Completing the square in x turns that into
//   sigma = (precision_x * (px - x - slope * dy)^2 + precision_y * dy^2) / 2,   dy = py - y,
// the conditional of x given y times the marginal of y. Unlike the three-term quadratic form it
// loses no digits on long thin Gaussians, and it gives the exact extent of every row.
//
// This code runs once per Gaussian, or per Gaussian and row, in double precision. The float32
// arithmetic per sample thus starts from offsets that are correct to the last bit.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define GSDD_FN __host__ __device__ static inline
#else
#define GSDD_FN static inline  // internal linkage: compiled once per instruction set
#endif

namespace gsdd {

constexpr double kLog2E = 1.4426950408889634;
constexpr int kMaxChannels = 4;
constexpr int kMaxSamples = 16;  // a side

// Below 2^-kMaxExponent a float32 weight underflows; only min_weight = 0 reaches this far.
constexpr double kMaxExponent = 125.0;

struct Raster {
  int64_t height, width;
  int samples;        // sample points per pixel side, S
  double variance;    // of the pre-filter: 1/12, or 0 without it
  double min_weight;  // smaller weights are exactly 0
  double log_min_weight;
  bool pass_clipped;  // gradients ignore the clipping of weights at 1
};

struct Inputs {           // parameters of one Gaussian
  const float* mean;      // [2] (u, v)
  const float* cholesky;  // [3] (l11, l21, l22) without the one half on the diagonal
  const float* color;     // [C]
  const float* opacity;   // [1]
};

struct Gaussian {
  double x, y;                      // center, pixels
  double var_x, var_y, covariance;  // S
  double slope;                     // shift of a row's center in x per unit of y: Sxy / Syy
  double precision_x;               // 1 / var(x | y) = Syy / det S
  double precision_y;               // 1 / Syy
  double cut;                       // the support is sigma <= cut = ln(opacity / min_weight)
  double half_width, half_height;   // of the support
};

enum class Kind { kEmpty, kVisible, kNotFinite };

// Tests the bits: compiler flags may let arithmetic comparisons ignore NaN.
GSDD_FN bool is_finite(float value) {
  int32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return (bits & 0x7fffffff) < 0x7f800000;
}

GSDD_FN bool all_finite(const Inputs& in, int channels) {
  bool finite = is_finite(in.mean[0]) & is_finite(in.mean[1]) & is_finite(in.cholesky[0]) &
                is_finite(in.cholesky[1]) & is_finite(in.cholesky[2]) & is_finite(*in.opacity);
  for (int c = 0; c < channels; ++c) finite = finite & is_finite(in.color[c]);
  return finite;
}

struct Covariance {
  double l1, l2, l3, syy, sxy, det;
};

GSDD_FN Covariance covariance(double l11, double l21, double l22, double variance) {
  Covariance s;
  s.l1 = l11 + 0.5;
  s.l2 = l21;
  s.l3 = l22 + 0.5;
  s.syy = s.l2 * s.l2 + s.l3 * s.l3 + variance;
  s.sxy = s.l1 * s.l2;
  // Expanded: the difference of products cancels for long thin Gaussians.
  s.det =
      s.l1 * s.l1 * s.l3 * s.l3 + variance * (s.l1 * s.l1 + s.l2 * s.l2 + s.l3 * s.l3 + variance);
  return s;
}

// (u, v) is the mean; cut = ln(opacity / min_weight).
GSDD_FN Gaussian describe(double u, double v, const Covariance& s, double cut,
                          const Raster& raster) {
  Gaussian g;
  g.x = 0.5 * raster.width * (u + 1.0);
  g.y = 0.5 * raster.height * (v + 1.0);
  g.var_x = s.l1 * s.l1 + raster.variance;
  g.var_y = s.syy;
  g.covariance = s.sxy;
  g.precision_x = s.syy / s.det;
  g.precision_y = 1.0 / s.syy;
  g.slope = s.sxy * g.precision_y;
  const double underflow = kMaxExponent / kLog2E;
  g.cut = cut < underflow ? cut : underflow;
  g.half_width = sqrt(2.0 * g.cut * g.var_x);
  g.half_height = sqrt(2.0 * g.cut * g.var_y);
  return g;
}

GSDD_FN bool visible(double opacity, const Covariance& s, const Raster& raster) {
  // A degenerate Gaussian without pre-filter covers no area.
  return opacity >= raster.min_weight && opacity >= 0.0 && s.det > 0.0;
}

GSDD_FN Kind prepare(const Inputs& in, int channels, const Raster& raster, Gaussian* g) {
  if (!all_finite(in, channels)) return Kind::kNotFinite;
  const double opacity = *in.opacity;
  const Covariance s = covariance(in.cholesky[0], in.cholesky[1], in.cholesky[2], raster.variance);
  if (!visible(opacity, s, raster)) return Kind::kEmpty;
  *g = describe(in.mean[0], in.mean[1], s, log(opacity) - raster.log_min_weight, raster);
  return Kind::kVisible;
}

// The exponent in base 2 for kernels that advance it by multiplications, with X, Y relative to the
// center: -(a X^2 - skew X Y + w Y^2).
struct Split {
  double a, skew, w;
};

GSDD_FN Split split(const Gaussian& g) {
  const double a = 0.5 * kLog2E * g.precision_x;
  return {a, 2.0 * a * g.slope, a * g.slope * g.slope + 0.5 * kLog2E * g.precision_y};
}

constexpr double kMaxSplitBits = 120.0;  // largest exponent that such kernels keep in floats
constexpr double kMaxOblique = 50.0;     // rho^2 / (1 - rho^2): digits that sums over X, Y lose

// Whether 2^-(a X^2 - skew X Y) can be advanced down `rows` pixel rows: no lane within 1.5 pixels
// of the support enters it from below 2^-kMaxSplitBits.
GSDD_FN bool can_walk(const Gaussian& g, const Split& e, int rows) {
  return fabs(e.skew) * (g.half_width + 1.5) * (rows + 1) <= kMaxSplitBits - kLog2E * g.cut;
}

// Whether the split suits a Gaussian evaluated up to `margin` pixels beyond its support.
GSDD_FN bool can_split(const Gaussian& g, const Split& e, double margin) {
  const double high = g.half_height + margin;
  return (e.w * high * high <= kMaxSplitBits) &
         (g.covariance * g.covariance * g.precision_x <= kMaxOblique * g.var_y);
}

struct Range {  // of pixels, first..last; empty if last < first
  int64_t first, last;
};

// Returns the pixels whose sample points can lie in [low, high]; may include one more at each end.
GSDD_FN Range pixel_range(double low, double high, int64_t size) {
  if (!(high >= 0.0) || !(low <= (double)size)) return {0, -1};
  const double top = (double)(size - 1);
  const double first = floor(low), last = floor(high);
  return {first < 0.0 ? 0 : (first > top ? size - 1 : (int64_t)first),
          last > top ? size - 1 : (int64_t)last};
}

// Sums over a Gaussian's sample points for its gradient. Per sample: e = exp(-sigma),
// G = dL/dcolor, g = G . color, h = opacity * e * g (0 for a clipped weight unless pass_clipped),
// dx = px - x - slope * dy.
struct Moments {
  double e;                    // sum of e g over the samples that count in h
  double x, y, xx, xy, yy;     // sums of h dx, h dy, h dx^2, h dx dy, h dy^2
  double color[kMaxChannels];  // sums of w G
};

struct Outputs {  // gradient of one Gaussian
  float* mean;
  float* cholesky;
  float* color;
  float* opacity;
};

GSDD_FN void write_constant(const Outputs& out, int channels, float value) {
  out.mean[0] = out.mean[1] = value;
  out.cholesky[0] = out.cholesky[1] = out.cholesky[2] = value;
  for (int c = 0; c < channels; ++c) out.color[c] = value;
  *out.opacity = value;
}

// Converts sums of h times 1, X, Y, X^2, X Y, Y^2, with X, Y relative to the center, to Moments:
// dx = X - slope Y. Leaves e at 0.
GSDD_FN Moments sheared(const double (&sums)[6], double slope) {
  const double x = sums[1], y = sums[2], xx = sums[3], xy = sums[4], yy = sums[5];
  Moments m;
  m.e = 0.0;
  m.x = x - slope * y;
  m.y = y;
  m.xx = xx - slope * (2.0 * xy - slope * yy);
  m.xy = xy - slope * yy;
  m.yy = yy;
  return m;
}

struct ParameterGradient {
  double mean[2], cholesky[3];
};

// Applies the chain rule from the moments to the raw parameters.
GSDD_FN ParameterGradient pull_back(const Gaussian& g, const Covariance& s, const Moments& m,
                                    const Raster& raster) {
  const double d_precision_x = -0.5 * m.xx, d_precision_y = -0.5 * m.yy;
  const double d_slope = g.precision_x * m.xy;
  const double d_det = -g.precision_x / s.det * d_precision_x;
  const double d_syy =
      d_precision_x / s.det - g.precision_y * (g.precision_y * d_precision_y + g.slope * d_slope);
  const double d_sxy = g.precision_y * d_slope;
  const double f = raster.variance;
  return {{0.5 * raster.width * g.precision_x * m.x,
           0.5 * raster.height * (g.precision_y * m.y - g.precision_x * g.slope * m.x)},
          {d_det * 2.0 * s.l1 * (s.l3 * s.l3 + f) + d_sxy * s.l2,
           2.0 * s.l2 * (d_det * f + d_syy) + d_sxy * s.l1,
           2.0 * s.l3 * (d_det * (s.l1 * s.l1 + f) + d_syy)}};
}

}  // namespace gsdd
