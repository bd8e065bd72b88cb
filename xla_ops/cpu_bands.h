// The CPU's fast path: a Gaussian advances down the image by multiplications.
//
// Lanes are columns. A Gaussian's rows are taken in bands of four pixel rows; within one, the
// exponent of a column is a quadratic in the sample row k, counted from the band's first, and only
// its linear term depends on the column, and linearly: with X, Y from the Gaussian's centre, d the
// distance of sample points and Q = a (X - m Y)^2 + c Y^2 in base 2,
//   Q(X, Y + k d) = Q(X, Y) - k p (X - X_c) + k u + k^2 w,
//   p = 2 a m d,   u = 2 d (c Y - a m (X_c - m Y)),   w = d^2 (a m^2 + c).
// So V_k = 2^-(Q(X, Y) - k p (X - X_c)) goes from row to row by one multiplication and restarts
// from an exponential in every band. The weight is V_k gain_k, where
//   gain_k = opacity 2^-(k u + k^2 w)
// is one number for all columns: instead of multiplying the lanes, the cut and the clipping at 1
// are compared with V_k after dividing them by it.
//
// Bands are counted from the Gaussian's own first row, so that what is computed does not depend on
// how an image is divided among threads. Gaussians whose exponent changes by more than kMaxChange
// bits over a band, or so oblique that sums over X and Y would cancel, take cpu_rows.h instead.
#pragma once

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "gaussian.h"
#include "planes.h"
#include "simd.h"

#define GSDD_INLINE __attribute__((always_inline))

namespace gsdd {
namespace {

constexpr int kBand = 4;                 // pixel rows
constexpr double kMaxChange = 48.0;      // bits
constexpr double kMaxExponents = 120.0;  // bits that exp2 may be asked for
constexpr double kMaxOblique = 50.0;     // rho^2 / (1 - rho^2): digits that sums over X, Y lose
constexpr double kMaxSize = 65536.0;     // pixels

// The nearest integer and what is left, in double: exponents then lose nothing but the last bit.
inline void split(double exponent, float* whole, float* fraction) {
  constexpr double kDoubleRounder = 6755399441055744.0;  // 1.5 * 2^52, as kRounder
  const double n = (exponent + kDoubleRounder) - kDoubleRounder;
  *whole = (float)n;
  *fraction = (float)(exponent - n);
}

template <class V>
inline void powers(V whole, V fraction, V* up, V* down) {  // 2^(whole + fraction) and its inverse
  const V rounder = splat<V>(kRounder);
  *up = exp2(fraction, rounder + whole);
  *down = exp2(splat<V>(0.0f) - fraction, rounder - whole);
}

template <int S>
struct Bands {
  static_assert(S == 1 || S == 2, "the sample rows of a band fill at most one vector of 8");
  static constexpr int kSampleRows = kBand * S;
  static constexpr double kStep = 1.0 / S;  // d, pixels

  const Gaussian& g;
  float opacity;
  double a, c, scale;
  double skew;                // p
  float next;                 // 2^(p d): P from one sample column to the next
  float gain[8], inverse[8];  // by sample row: opacity 2^-(k^2 w) and its inverse
  float min_weight;
  double clip_height;  // no weight exceeds 1 where |Y| does not come below
  Range rows, wanted;  // of the support, and those of them to be worked on

  static bool suits(const Gaussian& g, const Raster& raster) {
    const double xy = std::fabs(g.covariance), a = 0.5 * kLog2E * g.precision_x;
    const double change = 2.0 * a * g.precision_y * kBand *
                          (g.var_x * (g.half_height + 1.0) + xy * (g.half_width + 1.0));
    // A lane is at most a pixel and a half from the support in some row of the band:
    // (sqrt(cut) + 1.5 sqrt(a))^2 <= 2 cut + 4.5 a.
    const double largest = 2.0 * kLog2E * g.cut + 4.5 * a + change;
    return raster.samples == S && raster.min_weight > 0.0 && change <= kMaxChange &&
           largest <= kMaxExponents && xy * xy * g.precision_x <= kMaxOblique * g.var_y &&
           std::fabs(g.x) < kMaxSize && std::fabs(g.y) < kMaxSize && raster.width < kMaxSize &&
           raster.height < kMaxSize;
  }

  Bands(const Gaussian& gaussian, float alpha, const Raster& raster, const Planes& planes)
      : g(gaussian),
        opacity(alpha),
        a(0.5 * kLog2E * g.precision_x),
        c(0.5 * kLog2E * g.precision_y),
        scale(std::sqrt(a)),
        skew(2.0 * a * g.slope * kStep),
        min_weight((float)raster.min_weight),
        clip_height(-1.0),
        rows(pixel_range(g.y - g.half_height, g.y + g.half_height, raster.height)),
        wanted(planes.clip(rows)) {
    if (opacity > 1.0f)
      clip_height = std::sqrt(2.0 * g.var_y * (g.cut + raster.log_min_weight)) + kStep;
    const double w = kStep * kStep * (a * g.slope * g.slope + c);
    // k = 0 needs no power: its lane computes 2^(p d).
    float whole[8], fraction[8], up[8], down[8];
    for (int k = 0; k < 8; ++k) split(k == 0 ? skew * kStep : w * k * k, whole + k, fraction + k);
    Narrow both[2];
    powers(load<Narrow>(whole), load<Narrow>(fraction), both, both + 1);
    store(up, both[0]);
    store(down, both[1]);
    next = up[0];
    up[0] = down[0] = 1.0f;
    const float inverse_opacity = 1.0f / opacity;
    for (int i = 0; i < 8; ++i) gain[i] = opacity * down[i];
    for (int i = 0; i < 8; ++i) inverse[i] = inverse_opacity * up[i];
  }
};

// Eight bands of a Gaussian, from row `top` on; the lanes of what is computed here are bands.
struct Plan {
  float first[8], last[8];  // columns; last < first where there is nothing to do
  float t[8];               // sqrt(a) (X - m Y) of the first sample of the first column and row
  float constant[8];        // c Y^2 of the first row
  float x[8], y[8];         // X of the first sample of the first column, Y of the first row
  float from_c[8];          // columns from that of X_c to the first
  struct {                  // by band
    float gain[8], threshold[8], cap[8];  // cap = 1 / gain, threshold = min_weight / gain
  } sample_row[8];

  template <int S>
  Plan(const Bands<S>& b, int64_t top, const Raster& raster) {
    constexpr int kSampleRows = Bands<S>::kSampleRows;
    constexpr double d = Bands<S>::kStep;
    const auto all = [](double value) { return splat<Narrow>((float)value); };
    const Narrow zero = all(0.0);

    double row[8];
    for (int i = 0; i < 8; ++i) row[i] = (double)(top + kBand * i) + 0.5 * d - b.g.y;
    for (int i = 0; i < 8; ++i) y[i] = (float)row[i];

    // The columns: the ellipse is widest where a band comes nearest to its extreme point.
    const Narrow height = all(b.g.half_height);
    const Narrow peak = all(b.g.half_width * b.g.covariance / b.g.var_x);
    const Narrow upper = load<Narrow>(y), lower = upper + all((kSampleRows - 1) * d);
    const auto reach = [&](Narrow at, float side, double slack) {
      at = smaller(larger(smaller(larger(at, upper), lower), zero - height), height);
      const Narrow left = larger(all(b.g.cut * kLog2E) - all(b.c) * at * at, zero);
      const Narrow half = square_root(left * all(1.0 / b.a));
      return round_down(all(b.g.x + slack) + all(b.g.slope) * at + splat<Narrow>(side) * half);
    };
    const double slack = 0.02;  // of a pixel, for rounding
    store(first, larger(reach(zero - peak, -1.0f, -slack), zero));
    store(last, smaller(reach(peak, 1.0f, slack), all((double)(raster.width - 1))));

    float whole[8], fraction[8];
    for (int i = 0; i < 8; ++i) {
      const double x_first = (double)first[i] + 0.5 * d - b.g.x;
      const double half = std::floor(0.5 * ((double)last[i] - (double)first[i]));
      const double across = x_first - b.g.slope * row[i];
      x[i] = (float)x_first;
      from_c[i] = (float)-half;
      t[i] = (float)(b.scale * across);
      constant[i] = (float)(b.c * row[i] * row[i]);
      split(2.0 * d * (b.c * row[i] - b.a * b.g.slope * (across + half)), whole + i, fraction + i);
    }
    // up[k] = 2^(k u)
    Narrow up[kSampleRows], down[kSampleRows];
    powers(load<Narrow>(whole), load<Narrow>(fraction), up + 1, down + 1);
    up[0] = down[0] = all(1.0);
    for (int k = 2; k < kSampleRows; ++k) {
      up[k] = up[k / 2] * up[k - k / 2];
      down[k] = down[k / 2] * down[k - k / 2];
    }
    for (int k = 0; k < kSampleRows; ++k) {
      const Narrow inverse = splat<Narrow>(b.inverse[k]) * up[k];
      store(sample_row[k].gain, splat<Narrow>(b.gain[k]) * down[k]);
      store(sample_row[k].cap, inverse);
      store(sample_row[k].threshold, inverse * splat<Narrow>(b.min_weight));
    }
  }
};

// One band of a plan.
struct Band {
  const Plan& plan;
  int i;
  int begin, end;  // of its pixel rows, those that are wanted
};

// The numbers of one sample row of a band, and of those after it.
struct Scalars {
  const float* at;
  float gain() const { return at[0]; }
  float threshold() const { return at[8]; }
  float cap() const { return at[16]; }
  void operator++() { at += 24; }
};

// V_0 of S sample columns, the first of them `skipped` pixels right of the band's first, and the
// factors P that take it one row down.
template <int S, class V>
struct Columns {
  V v[S], factor[S];

  GSDD_INLINE Columns(const Bands<S>& b, const Band& band, float skipped) {
    const Plan& plan = band.plan;
    const int i = band.i;
    const V zero = splat<V>(0.0f), lane = lane_numbers<V>() + splat<V>(skipped);
    factor[0] = exp2((lane + splat<V>(plan.from_c[i])) * splat<V>((float)b.skew));
    if (S == 2) factor[S - 1] = factor[0] * splat<V>(b.next);
    const V scale = splat<V>((float)b.scale), count = splat<V>(plan.last[i] - plan.first[i]);
    for (int s = 0; s < S; ++s) {
      const V t = fma(lane, scale, splat<V>(plan.t[i] + s * (float)(b.scale / S)));
      const V q = fma(t, t, splat<V>(plan.constant[i]));
      v[s] = if_less_equal(lane, count, exp2(zero - q));
    }
  }
};

// Calls row(scalars) for every wanted pixel row of a band, which takes S sample rows and advances
// v.
template <int S, class V, class Row>
GSDD_INLINE inline void walk(const Band& band, Columns<S, V>* columns, const Row& row) {
  for (int r = 0; r < band.begin; ++r)
    for (int q = 0; q < S; ++q)
      for (int s = 0; s < S; ++s) columns->v[s] = columns->v[s] * columns->factor[s];
  Scalars scalars = {band.plan.sample_row[band.begin * S].gain + band.i};
  for (int rows = band.end - band.begin; rows > 0; --rows) row(scalars);
}

// Calls block(band, first wanted row, columns skipped, a vector of the lanes to use, whether
// weights exceed 1) for what covers the support. A wide block computes what two narrow ones would,
// to the bit.
template <int S, class Block>
inline void for_each_block(const Bands<S>& b, const Raster& raster, const Block& block) {
  for (int64_t top = b.rows.first; top <= b.wanted.last; top += 8 * kBand) {
    if (top + 8 * kBand <= b.wanted.first) continue;
    const Plan plan(b, top, raster);
    for (int i = 0; i < 8 && top + i * kBand <= b.wanted.last; ++i) {
      const int64_t begin = b.wanted.first - (top + i * kBand);
      const int64_t end = b.wanted.last + 1 - (top + i * kBand);
      if (begin >= kBand) continue;
      const Band band{plan, i, begin > 0 ? (int)begin : 0, end < kBand ? (int)end : kBand};
      const int last = (int)(plan.last[i] - plan.first[i]);
      const auto blocks = [&](auto clip) {
        int j = 0;
        if constexpr (kRegister >= 16)
          for (; last - j >= 8; j += 16) block(band, top + i * kBand + band.begin, j, Wide(), clip);
        for (; j <= last; j += 8) block(band, top + i * kBand + band.begin, j, Narrow(), clip);
      };
      if (plan.y[i] <= b.clip_height && plan.y[i] + kBand >= -b.clip_height)
        blocks(std::true_type());
      else
        blocks(std::false_type());
    }
  }
}

template <int S, int C>
void paint_bands(const Bands<S>& b, const float* color, const Raster& raster, const Planes& planes,
                 float* pixels) {
  // In locals, because a store to the pixels could change anything else.
  const int64_t stride = planes.stride, size = planes.size;
  float tint[C];
  std::copy_n(color, C, tint);
  for_each_block(
      b, raster,
      [&](const Band& band, int64_t row, int skipped, auto lanes, auto clip) GSDD_INLINE {
        using V = decltype(lanes);
        constexpr bool kClip = decltype(clip)::value;
        Columns<S, V> columns(b, band, (float)skipped);
        float* start = pixels + planes.row(row) + (int64_t)band.plan.first[band.i] + skipped;
        walk(band, &columns, [&](Scalars& k) GSDD_INLINE {
          V weight = splat<V>(0.0f);
          for (int q = 0; q < S; ++q, ++k) {
            const V threshold = splat<V>(k.threshold()), cap = splat<V>(k.cap());
            V total;
            for (int s = 0; s < S; ++s) {
              V& v = columns.v[s];
              const V e = if_less_equal(threshold, v, kClip ? smaller(v, cap) : v);
              total = s == 0 ? e : total + e;
              v = v * columns.factor[s];
            }
            weight = fma(total, splat<V>(k.gain()), weight);
          }
          float* p = start;
          for (int c = 0; c < C; ++c, p += size)
            store(p, fma(weight, splat<V>(tint[c]), load<V>(p)));
          start += stride;
        });
      });
}

inline void add(Narrow* total, Narrow part) { *total = *total + part; }
inline void add(Narrow* total, Vec<16> part) {
  Narrow half[2];
  std::memcpy(half, &part, sizeof part);
  *total = (*total + half[0]) + half[1];
}

template <int S, int C>
Moments gather_bands(const Bands<S>& b, const float* color, const Raster& raster,
                     const Planes& planes, const float* d_pixels) {
  constexpr float d = (float)Bands<S>::kStep;
  const int64_t stride = planes.stride, size = planes.size;
  Narrow moment[6] = {}, moment_color[C] = {};  // of h times 1, X, Y, X^2, X Y, Y^2

  for_each_block(
      b, raster,
      [&](const Band& band, int64_t row, int skipped, auto lanes, auto clip) GSDD_INLINE {
        using V = decltype(lanes);
        constexpr bool kClip = decltype(clip)::value;
        Columns<S, V> columns(b, band, (float)skipped);
        const float* start =
            d_pixels + planes.row(row) + (int64_t)band.plan.first[band.i] + skipped;
        // Sums over the rows, of both sample columns and of the second alone; then sums of the
        // partial sums, which is how moments in k come without a multiplication.
        const V none = splat<V>(0.0f);
        V all = none, all_1 = none, all_2 = none, second = none, second_1 = none, sum_color[C];
        for (int c = 0; c < C; ++c) sum_color[c] = none;
        walk(band, &columns, [&](Scalars& k) GSDD_INLINE {
          V d_color[C], g, weight = none;
          for (int c = 0; c < C; ++c) {
            d_color[c] = load<V>(start + c * size);
            g = c == 0 ? d_color[c] * splat<V>(color[c]) : fma(d_color[c], splat<V>(color[c]), g);
          }
          for (int q = 0; q < S; ++q, ++k) {
            const V threshold = splat<V>(k.threshold()), cap = splat<V>(k.cap());
            V e[S], total, clipped;
            for (int s = 0; s < S; ++s) {
              V& v = columns.v[s];
              e[s] = if_less_equal(threshold, v, v);
              if (kClip) {
                clipped = s == 0 ? smaller(e[s], cap) : clipped + smaller(e[s], cap);
                e[s] = if_less_equal(v, cap, e[s]);
              }
              total = s == 0 ? e[s] : total + e[s];
              v = v * columns.factor[s];
            }
            const V gain = splat<V>(k.gain()), g_gain = g * gain;
            weight = fma(kClip ? clipped : total, gain, weight);
            all = all + total * g_gain;
            all_1 = all_1 + all;
            all_2 = all_2 + all_1;
            if (S == 2) {
              second = second + e[S - 1] * g_gain;
              second_1 = second_1 + second;
            }
          }
          for (int c = 0; c < C; ++c) sum_color[c] = fma(weight, d_color[c], sum_color[c]);
          start += stride;
        });
        // A row counts as often in all_1 as it is rows from `end`, and the triangular number of
        // that in all_2.
        const V step = splat<V>(d), end = splat<V>(band.plan.y[band.i] + (float)band.end);
        const V all_y = end * all - step * all_1, second_y = end * second - step * second_1;
        const V rest = all_2 + all_2 - all_1;  // of squares
        const V all_yy = end * (all_y - step * all_1) + step * step * rest;
        // Each lane is a column, with an X of its own.
        const V x = (lane_numbers<V>() + splat<V>((float)skipped)) + splat<V>(band.plan.x[band.i]);
        const V all_x = fma(second, step, x * all), second_x = fma(second, step, x * second);
        add(&moment[0], all);
        add(&moment[1], all_x);
        add(&moment[2], all_y);
        add(&moment[3], fma(second_x, step, x * all_x));
        add(&moment[4], fma(second_y, step, x * all_y));
        add(&moment[5], all_yy);
        for (int c = 0; c < C; ++c) add(&moment_color[c], sum_color[c]);
      });

  double total[6];
  for (int i = 0; i < 6; ++i) total[i] = sum(moment[i]);
  // From X to X - m Y.
  const double slope = b.g.slope, x = total[1], y = total[2];
  const double xx = total[3], xy = total[4], yy = total[5];
  Moments moments;
  moments.e = total[0] / b.opacity;
  moments.x = x - slope * y;
  moments.y = y;
  moments.xx = xx - slope * (2.0 * xy - slope * yy);
  moments.xy = xy - slope * yy;
  moments.yy = yy;
  for (int c = 0; c < C; ++c) moments.color[c] = sum(moment_color[c]);
  return moments;
}

}  // namespace
}  // namespace gsdd
