// Prepares eight Gaussians at once for the fast path, and applies the chain rule to their
// parameters. The loops are branch-free: the compiler vectorizes them in double precision.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>

#include "common/simd.h"
#include "rasterizer/cpu_kernel.h"
#include "rasterizer/gaussian.h"

namespace gsdd {
namespace {

constexpr int kGroup = 8;
constexpr int kBand = 12;     // pixel rows
constexpr int kThinBand = 4;  // for Gaussians too thin for kBand
constexpr int kBlock = 16;    // columns
constexpr int kBlocks = 8;    // with rows of their own; further blocks take all rows

constexpr double kMaxSize = 65536.0;  // pixels
constexpr double kMaxDet = 1e35;      // of a covariance whose ellipse fits floats
constexpr double kSlack = 0.01;       // pixels, for rounding

enum class Path : int32_t { kNone, kNotFinite, kBands, kRows };

// ln x to 1e-9 for positive, finite, normal x.
inline double fast_log(float x) {
  int32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  const int32_t exponent = (bits - 0x3f3504f3) >> 23;  // of a mantissa in [sqrt 1/2, sqrt 2)
  bits -= exponent * (1 << 23);
  float mantissa;
  std::memcpy(&mantissa, &bits, sizeof bits);
  const double z = ((double)mantissa - 1.0) / ((double)mantissa + 1.0), zz = z * z;
  const double series =
      1.0 + zz * (1.0 / 3 + zz * (1.0 / 5 + zz * (1.0 / 7 + zz * (1.0 / 9 + zz * (1.0 / 11)))));
  return 0.6931471805599453 * exponent + 2.0 * z * series;
}

struct Group {
  int count;  // further lanes repeat the last Gaussian
  float u[kGroup], v[kGroup], l11[kGroup], l21[kGroup], l22[kGroup], opacity[kGroup];
  Path path[kGroup];

  // For kBands only. A weight is opacity 2^-(a X^2 - skew X Y + w Y^2), X, Y from the center.
  float a[kGroup], skew[kGroup], w[kGroup];
  float turn[kGroup];                             // 2^(skew / S^2)
  int32_t band[kGroup];                           // rows of a band
  float slope[kGroup];                            // as in Gaussian
  int32_t left[kGroup], right[kGroup];            // the support's box, pixels
  int32_t top[kGroup], bottom[kGroup];            //
  float x[kGroup], y[kGroup];                     // X and Y of the box's first sample
  int32_t clip_top[kGroup], clip_bottom[kGroup];  // rows in which weights may exceed 1
  int32_t block_top[kBlocks][kGroup];             // rows of the support in a block of columns,
  int32_t block_bottom[kBlocks][kGroup];          // set if any Gaussian here has two

  Group(const Image& image, int64_t first, const Raster& raster)
      : count((int)std::min<int64_t>(image.count - first, kGroup)) {
    float color[kMaxChannels][kGroup];
    for (int i = 0; i < kGroup; ++i) {
      const Inputs in = image.inputs(first + std::min(i, count - 1));
      u[i] = in.mean[0];
      v[i] = in.mean[1];
      l11[i] = in.cholesky[0];
      l21[i] = in.cholesky[1];
      l22[i] = in.cholesky[2];
      opacity[i] = *in.opacity;
      for (int c = 0; c < image.channels; ++c) color[c][i] = in.color[c];
    }
    int32_t finite[kGroup];
    for (int i = 0; i < kGroup; ++i)
      finite[i] = is_finite(u[i]) & is_finite(v[i]) & is_finite(l11[i]) & is_finite(l21[i]) &
                  is_finite(l22[i]) & is_finite(opacity[i]);
    for (int c = 0; c < image.channels; ++c)
      for (int i = 0; i < kGroup; ++i) finite[i] &= is_finite(color[c][i]);
    Ellipse ellipse;
    shape(raster, finite, &ellipse);
    int blocks = 0;
    for (int i = 0; i < kGroup; ++i) blocks = std::max(blocks, (right[i] - left[i]) / kBlock + 1);
    if (blocks > 1)
      for (int j = 0; j < std::min(blocks, kBlocks); ++j) block_rows(raster, ellipse, j);
  }

  // Moments of the group's Gaussians.
  struct Sums {
    double e[kGroup], x[kGroup], y[kGroup], xx[kGroup], xy[kGroup], yy[kGroup];
    float color[kMaxChannels][kGroup];

    void set(int i, const Moments& m, int channels) {
      e[i] = m.e;
      x[i] = m.x;
      y[i] = m.y;
      xx[i] = m.xx;
      xy[i] = m.xy;
      yy[i] = m.yy;
      for (int c = 0; c < channels; ++c) color[c][i] = (float)m.color[c];
    }
  };

  // Writes the gradients of the Gaussians from `first` on. Sums are read only of visible Gaussians.
  void pull_back(const Sums& sums, const Raster& raster, const Gradient& gradient,
                 int64_t first) const {
    float mean[2][kGroup], cholesky[3][kGroup];
    const double variance = raster.variance;
    for (int i = 0; i < kGroup; ++i) {
      const Covariance s = covariance(l11[i], l21[i], l22[i], variance);
      const Gaussian g = describe(u[i], v[i], s, 0.0, raster);
      Moments m;
      m.x = sums.x[i];
      m.y = sums.y[i];
      m.xx = sums.xx[i];
      m.xy = sums.xy[i];
      m.yy = sums.yy[i];
      const ParameterGradient d = gsdd::pull_back(g, s, m, raster);
      for (int k = 0; k < 2; ++k) mean[k][i] = (float)d.mean[k];
      for (int k = 0; k < 3; ++k) cholesky[k][i] = (float)d.cholesky[k];
    }
    for (int i = 0; i < count; ++i) {
      const Outputs out = gradient.outputs(first + i);
      if (path[i] == Path::kNone || path[i] == Path::kNotFinite) {
        write_constant(out, gradient.channels, path[i] == Path::kNone ? 0.0f : NAN);
        continue;
      }
      for (int k = 0; k < 2; ++k) out.mean[k] = mean[k][i];
      for (int k = 0; k < 3; ++k) out.cholesky[k] = cholesky[k][i];
      for (int c = 0; c < gradient.channels; ++c) out.color[c] = sums.color[c][i];
      *out.opacity = (float)sums.e[i];
    }
  }

 private:
  struct Ellipse {  // the support's edge; of `upper` and `lower` in a column X from the center
    float reach[kGroup];               // half the width
    float rise[kGroup], lean[kGroup];  // lean X +- sqrt(rise (1 - (X / reach)^2))
    float peak[kGroup];                // X of its lowest point; of its highest, -X
    float middle[kGroup];              // the center's row, pixels
  };

  void shape(const Raster& raster, const int32_t* finite, Ellipse* ellipse) {
    const double width = (double)raster.width, height = (double)raster.height;
    const double variance = raster.variance, min_weight = raster.min_weight;
    const double log_min_weight = raster.log_min_weight;
    const double margin = 0.5 / raster.samples;  // from a pixel's edge to its first sample
    const bool suits =
        raster.samples <= 2 && min_weight > 0.0 && width < kMaxSize && height < kMaxSize;
    for (int i = 0; i < kGroup; ++i) {
      const Covariance s = covariance(l11[i], l21[i], l22[i], variance);
      const double log_opacity = fast_log(opacity[i]);
      const Gaussian g = describe(u[i], v[i], s, log_opacity - log_min_weight, raster);

      const Split exponent = split(g);
      const bool fast = can_walk(g, exponent, kThinBand) & can_split(g, exponent, 1.5) &
                        (fabs(g.x) < kMaxSize) & (fabs(g.y) < kMaxSize) & (s.det < kMaxDet) & suits;
      band[i] = can_walk(g, exponent, kBand) ? kBand : kThinBand;

      // Rows and columns with sample points in the box; none for a box outside the image.
      const double low_x = g.x - g.half_width + margin - kSlack;
      const double high_x = g.x + g.half_width - margin + kSlack;
      const double low_y = g.y - g.half_height + margin - kSlack;
      const double high_y = g.y + g.half_height - margin + kSlack;
      const double l = floor(low_x > 0.0 ? low_x : 0.0), t = floor(low_y > 0.0 ? low_y : 0.0);
      const double r = floor(high_x < width - 0.5 ? high_x : width - 0.5);
      const double b = floor(high_y < height - 0.5 ? high_y : height - 0.5);
      const bool inside = (l <= r) & (t <= b);

      const bool clips = opacity[i] > 1.0f;
      const float square = (float)(2.0 * g.var_y * (clips ? log_opacity : 0.0));
      const double above = 1.00001 * std::sqrt(square) + kSlack;
      const double clip_t = floor(g.y - above + margin), clip_b = floor(g.y + above - margin);

      const bool seen =
          (opacity[i] >= min_weight) & (opacity[i] >= 0.0f) & (s.det > 0.0) & (!fast | inside);
      const Path chosen = fast ? Path::kBands : Path::kRows;
      const Path taken = seen ? chosen : Path::kNone;
      path[i] = finite[i] != 0 ? taken : Path::kNotFinite;

      a[i] = (float)exponent.a;
      skew[i] = (float)exponent.skew;
      w[i] = (float)exponent.w;
      slope[i] = (float)g.slope;
      left[i] = (int32_t)l;
      right[i] = (int32_t)r;
      top[i] = (int32_t)t;
      bottom[i] = (int32_t)b;
      x[i] = (float)(l + margin - g.x);
      y[i] = (float)(t + margin - g.y);
      clip_top[i] = (int32_t)((clips & (clip_t > t)) ? clip_t : t);
      clip_bottom[i] = (int32_t)(clips ? (clip_b < b ? clip_b : b) : t - 1.0);
      ellipse->reach[i] = (float)g.half_width;
      const float inverse = 1.0f / (float)g.var_x;
      ellipse->rise[i] = (float)(2.0 * g.cut * s.det) * inverse;
      ellipse->lean[i] = (float)g.covariance * inverse;
      ellipse->peak[i] = (float)(g.half_height * g.slope);
      ellipse->middle[i] = (float)g.y;
    }
    const float area = (float)(raster.samples * raster.samples);
    store(turn, exp2(load<Narrow>(skew) * splat<Narrow>(1.0f / area)));
  }

  // Sets the rows of the j-th block of columns of every Gaussian.
  void block_rows(const Raster& raster, const Ellipse& ellipse, int j) {
    const float slack = 2.0f * (float)kSlack, margin = 0.5f / (float)raster.samples - slack;
    for (int i = 0; i < kGroup; ++i) {
      const float first = x[i] + (float)(kBlock * j) - slack;
      const float last = first + (float)kBlock + 2.0f * slack;
      const float reach = ellipse.reach[i], inverse = 1.0f / (reach + 1e-6f);
      // The edge is furthest at the column nearest to its extreme point.
      const auto edge = [&](float extreme, float side) {
        float at = extreme < first ? first : extreme;
        at = at > last ? last : at;
        at = at < -reach ? -reach : at;
        at = at > reach ? reach : at;
        const float across = at * inverse, rest = 1.0f - across * across;
        const float half = std::sqrt(ellipse.rise[i] * (rest > 0.0f ? rest : 0.0f));
        return ellipse.middle[i] + ellipse.lean[i] * at + side * half;
      };
      const int32_t t = (int32_t)std::floor(edge(-ellipse.peak[i], -1.0f) + margin);
      const int32_t b = (int32_t)std::floor(edge(ellipse.peak[i], 1.0f) - margin);
      block_top[j][i] = t > top[i] ? t : top[i];
      block_bottom[j][i] = b < bottom[i] ? b : bottom[i];
    }
  }
};

}  // namespace
}  // namespace gsdd
