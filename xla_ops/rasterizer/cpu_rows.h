// Exact path of the CPU: each sample row has its own center in double precision, and each sample an
// exponential. Takes any Gaussian, however thin, and any number of sample points.
#pragma once

#include "common/simd.h"
#include "rasterizer/gaussian.h"
#include "rasterizer/planes.h"

namespace gsdd {
namespace {

// One row of sample points, relative to one Gaussian.
struct SampleRow {
  float offset;    // (x of the first sample of pixel 0 - center of the row) * scale
  float constant;  // the row's part of the exponent, base 2
  float dy;
};

// Rows of one Gaussian. The exponent in base 2 is q = t^2 + constant with
// t = scale * (px - center of the row), scale = sqrt(precision_x / 2 * log2 e).
struct Rows {
  const Gaussian& g;
  double scale;
  int samples;
  float opacity, step, subsample, cut;
  Range rows;

  Rows(const Gaussian& gaussian, float alpha, const Raster& raster, const Planes& planes)
      : g(gaussian),
        scale(std::sqrt(0.5 * kLog2E * gaussian.precision_x)),
        samples(raster.samples),
        opacity(alpha),
        step((float)scale),
        subsample((float)(scale / raster.samples)),
        cut((float)(gaussian.cut * kLog2E)),
        rows(planes.clip(pixel_range(g.y - g.half_height, g.y + g.half_height, raster.height))) {}

  // Fills sample_rows with the rows of pixel row i in the support. Returns the range of pixels,
  // empty if there are none; offsets are relative to its first pixel.
  Range start_row(int64_t i, int64_t width, SampleRow* sample_rows, int* count) const {
    const double inverse = 1.0 / samples;
    double low = 1e300, high = -1e300;
    *count = 0;
    double centers[kMaxSamples];
    for (int r = 0; r < samples; ++r) {
      const double dy = (double)i + (r + 0.5) * inverse - g.y;
      const double marginal = 0.5 * g.precision_y * dy * dy;
      const double left = g.cut - marginal;
      if (left < 0.0) continue;
      const double half = std::sqrt(2.0 * left / g.precision_x);
      const double center = g.x + g.slope * dy;
      if (center - half < low) low = center - half;
      if (center + half > high) high = center + half;
      centers[*count] = center;
      sample_rows[*count].constant = (float)(marginal * kLog2E);
      sample_rows[*count].dy = (float)dy;
      ++*count;
    }
    const Range range = pixel_range(low, high, width);
    for (int r = 0; r < *count; ++r)
      sample_rows[r].offset = (float)(((double)range.first + 0.5 * inverse - centers[r]) * scale);
    return range;
  }
};

// Calls block(i, j, lane, sample_rows, count) for 8 columns of row i from j on; lane numbers pixels
// from the first of the row.
template <class Block>
inline void for_each_block(const Rows& rows, const Raster& raster, const Block& block) {
  for (int64_t i = rows.rows.first; i <= rows.rows.last; ++i) {
    SampleRow sample_rows[kMaxSamples];
    int count;
    const Range columns = rows.start_row(i, raster.width, sample_rows, &count);
    for (int64_t j = columns.first; j <= columns.last; j += 8)
      block(i, j, lane_numbers<Narrow>() + splat<Narrow>((float)(j - columns.first)), sample_rows,
            count);
  }
}

template <int C>
void paint_rows(const Rows& rows, const float* color, const Raster& raster, const Planes& planes,
                float* pixels) {
  const bool clip = rows.opacity > 1.0f;
  const Narrow cut = splat<Narrow>(rows.cut), alpha = splat<Narrow>(rows.opacity);
  const Narrow one = splat<Narrow>(1.0f), zero = splat<Narrow>(0.0f),
               step = splat<Narrow>(rows.step);
  for_each_block(
      rows, raster, [&](int64_t i, int64_t j, Narrow lane, const SampleRow* r, int count) {
        Narrow weight = zero;
        for (; count > 0; --count, ++r) {
          for (int s = 0; s < rows.samples; ++s) {
            const Narrow t = fma(lane, step, splat<Narrow>(r->offset + s * rows.subsample));
            const Narrow q = fma(t, t, splat<Narrow>(r->constant));
            const Narrow w = alpha * exp2(zero - q);
            weight = weight + if_less_equal(q, cut, clip ? smaller(w, one) : w);
          }
        }
        float* p = pixels + planes.row(i) + j;
        for (int c = 0; c < C; ++c, p += planes.size)
          store(p, fma(weight, splat<Narrow>(color[c]), load<Narrow>(p)));
      });
}

template <int C, bool kPass>
Moments gather_rows(const Rows& rows, const float* color, const Raster& raster,
                    const Planes& planes, const float* d_pixels) {
  const bool clip = rows.opacity > 1.0f;
  const Narrow cut = splat<Narrow>(rows.cut), alpha = splat<Narrow>(rows.opacity);
  const Narrow one = splat<Narrow>(1.0f), zero = splat<Narrow>(0.0f),
               step = splat<Narrow>(rows.step);
  Narrow m = zero, m_t = zero, m_y = zero, m_tt = zero, m_ty = zero, m_yy = zero, m_color[C];
  for (int c = 0; c < C; ++c) m_color[c] = zero;
  for_each_block(
      rows, raster, [&](int64_t i, int64_t j, Narrow lane, const SampleRow* r, int count) {
        const float* p = d_pixels + planes.row(i) + j;
        Narrow d_color[C], g = zero, weight = zero;
        for (int c = 0; c < C; ++c) {
          d_color[c] = load<Narrow>(p + c * planes.size);
          g = fma(d_color[c], splat<Narrow>(color[c]), g);
        }
        for (; count > 0; --count, ++r) {
          Narrow h = zero, h_t = zero, h_tt = zero;
          for (int s = 0; s < rows.samples; ++s) {
            const Narrow t = fma(lane, step, splat<Narrow>(r->offset + s * rows.subsample));
            const Narrow q = fma(t, t, splat<Narrow>(r->constant));
            Narrow e = if_less_equal(q, cut, exp2(zero - q));
            if (clip) {
              weight = weight + smaller(alpha * e, one);
              if (!kPass) e = if_less_equal(alpha * e, one, e);
            }
            const Narrow et = e * t;
            h = h + e;
            h_t = h_t + et;
            h_tt = fma(et, t, h_tt);
          }
          if (!clip) weight = weight + h;
          const Narrow dy = splat<Narrow>(r->dy), p_0 = g * h, p_t = g * h_t, p_y = p_0 * dy;
          m = m + p_0;
          m_t = m_t + p_t;
          m_y = m_y + p_y;
          m_tt = fma(g, h_tt, m_tt);
          m_ty = fma(p_t, dy, m_ty);
          m_yy = fma(p_y, dy, m_yy);
        }
        for (int c = 0; c < C; ++c) m_color[c] = fma(weight, d_color[c], m_color[c]);
      });
  const double unit = 1.0 / rows.scale, a = rows.opacity;
  Moments moments;
  moments.e = sum(m);
  moments.x = a * unit * sum(m_t);
  moments.y = a * sum(m_y);
  moments.xx = a * unit * unit * sum(m_tt);
  moments.xy = a * unit * sum(m_ty);
  moments.yy = a * sum(m_yy);
  for (int c = 0; c < C; ++c) moments.color[c] = (clip ? 1.0 : a) * sum(m_color[c]);
  return moments;
}

}  // namespace
}  // namespace gsdd
