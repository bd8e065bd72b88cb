// Fast path of the CPU: a Gaussian advances down the image by multiplications.
//
// Lanes are columns. With X, Y relative to the Gaussian's center, its exponent in base 2 is
//   -(a X^2 - skew X Y + w Y^2),
// so a weight is V gain:
//   V = 2^-(a X^2 - skew X Y)   advances by a row with one multiplication by 2^(skew X);
//   gain = opacity 2^-(w Y^2)   is one number for all columns of a row of sample points.
// V starts from exponentials in every band of 12 pixel rows (4 for the thinnest Gaussians). Each
// row of samples within a pixel row has its own V, so that V has at most 13 factors. Gains come
// from exponentials too, 16 rows in one vector. The cut and the clipping at 1 are divided by the
// gain once per row and compared with V; the lanes are not multiplied by the gain.
//
// Bands start at the Gaussian's own first row in a block of columns. The division of an image among
// threads thus changes no bit. Gaussians whose V would overflow or underflow take
// the exact path, cpu_rows.h.
#pragma once

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "common/simd.h"
#include "rasterizer/cpu_group.h"
#include "rasterizer/gaussian.h"
#include "rasterizer/planes.h"

#define GSDD_INLINE __attribute__((always_inline))

namespace gsdd {
namespace {

// Gain, threshold and cap of each row of samples, counted from the Gaussian's first row.
template <int S>
struct Table {
  float *gain, *threshold, *cap;  // threshold = min_weight / gain, cap = 1 / gain

  static size_t column(int64_t height) { return (size_t)height * S + 2 * 16; }
  static size_t size(int64_t height) { return 3 * column(height); }

  Table(float* memory, int64_t height)
      : gain(memory), threshold(gain + column(height)), cap(threshold + column(height)) {}

  // Fills the pixel rows first..last.
  GSDD_INLINE void fill(const Group& group, int i, float min_weight, int first, int last) const {
    const Wide w = splat<Wide>(-group.w[i]), y = splat<Wide>(group.y[i]);
    const Wide opacity = splat<Wide>(group.opacity[i]);
    const Wide inverse_opacity = splat<Wide>(1.0f / group.opacity[i]);
    const Wide rounder = splat<Wide>(kRounder), step = splat<Wide>(1.0f / S);
    for (int k = first * S / 16 * 16; k < (last + 1) * S; k += 16) {
      const Wide at = fma(lane_numbers<Wide>() + splat<Wide>((float)k), step, y);
      const Wide exponent = w * at * at;
      const Wide shifted = exponent + rounder, whole = shifted - rounder;
      const Wide fraction = exponent - whole;
      store(gain + k, opacity * exp2(fraction, shifted));
      const Wide inverse = inverse_opacity * exp2(whole - exponent, rounder - whole);
      store(cap + k, inverse);
      store(threshold + k, inverse * splat<Wide>(min_weight));
    }
  }
};

struct Row {  // of samples, in a table
  const float *gain, *threshold, *cap;
  template <int S>
  Row(const Table<S>& table, int k)
      : gain(table.gain + k), threshold(table.threshold + k), cap(table.cap + k) {}
  void operator++() { ++gain, ++threshold, ++cap; }
};

// A vector of columns of a Gaussian, of which `count` are used.
template <int S, class V>
struct Columns {
  V x[S], square[S];  // X and -a X^2, by sample column within a pixel
  V down[S];          // factors that advance V to the next pixel row
  V within;           // factor to the second sample row, for the first sample column
  float skew, turn;
  int count;

  GSDD_INLINE Columns(const Group& group, int i, int skipped, int count)
      : skew(group.skew[i]), turn(group.turn[i]), count(count) {
    for (int s = 0; s < S; ++s) {
      x[s] = lane_numbers<V>() + splat<V>(group.x[i] + (float)skipped);
      if (s > 0) x[s] = x[s] + splat<V>(1.0f / S);
      square[s] = splat<V>(-group.a[i]) * x[s] * x[s];
      down[s] = exp2(splat<V>(skew) * x[s]);
    }
    if (S > 1) within = exp2(splat<V>(skew / S) * x[0]);
  }

  // Sets V of the pixel row whose first samples are at Y = y, by row and column of samples.
  GSDD_INLINE void start(float y, V (*v)[S]) const {
    const V lane = lane_numbers<V>(), last = splat<V>((float)(count - 1));
    for (int s = 0; s < S; ++s) {
      const V exponent = fma(x[s], splat<V>(skew * y), square[s]);
      v[0][s] = if_less_equal(lane, last, exp2(larger(exponent, splat<V>(-124.0f))));
    }
    if constexpr (S > 1) {
      v[1][0] = v[0][0] * within;
      v[1][1] = v[0][1] * (within * splat<V>(turn));
    }
  }
};

// Calls block(lanes, columns skipped, columns used, first row, last row) for blocks that cover the
// support. A wide block gives the same bits as two narrow ones.
template <class Block>
GSDD_INLINE inline void for_each_block(const Group& group, int i, const Block& block) {
  const int columns = group.right[i] - group.left[i] + 1;
  for (int j = 0; j * kBlock < columns; ++j) {
    const bool known = columns > kBlock && j < kBlocks;
    const int top = known ? group.block_top[j][i] : group.top[i];
    const int bottom = known ? group.block_bottom[j][i] : group.bottom[i];
    const int skipped = j * kBlock, count = std::min(columns - skipped, kBlock);
    if (kRegister >= 16 && count > 8) {
      block(Wide(), skipped, count, top, bottom);
    } else {
      block(Narrow(), skipped, std::min(count, 8), top, bottom);
      if (count > 8) block(Narrow(), skipped + 8, count - 8, top, bottom);
    }
  }
}

// Calls walk(rows, whether weights may exceed 1) for the rows first..last, in order.
template <class Walk>
GSDD_INLINE inline void for_each_part(const Group& group, int i, int first, int last,
                                      const Walk& walk) {
  const int clip = std::min(std::max(group.clip_top[i], first), last + 1);
  const int clip_end = std::min(std::max(group.clip_bottom[i] + 1, clip), last + 1);
  const int ends[3] = {clip, clip_end, last + 1};
  for (int part = 0; part < 3; ++part) {
    const int rows = ends[part] - first;
    first = ends[part];
    if (part == 1)
      walk(rows, std::true_type());
    else
      walk(rows, std::false_type());
  }
}

// Adds Gaussian i to the planes.
template <int S, int C>
void paint_bands(const Group& group, int i, const float* color, const Table<S>& table,
                 const Raster& raster, const Planes& planes, float* pixels) {
  // Locals, because a store to the pixels may alias anything else.
  const int64_t stride = planes.stride, size = planes.size;
  const int group_top = group.top[i], left = group.left[i], height = group.band[i];
  const int first = std::max(group_top, (int)planes.rows.first);
  const int last = std::min(group.bottom[i], (int)planes.rows.last);
  if (last < first) return;
  float tint[C];
  std::copy_n(color, C, tint);
  table.fill(group, i, (float)raster.min_weight, first - group_top, last - group_top);

  for_each_block(
      group, i, [&](auto lanes, int skipped, int count, int top, int bottom) GSDD_INLINE {
        using V = decltype(lanes);
        const Columns<S, V> columns(group, i, skipped, count);
        for (int band = top; band <= bottom; band += height) {
          const int begin = std::max(band, first);
          const int end = std::min(std::min(band + height - 1, bottom), last);
          if (end < begin) continue;
          V v[S][S];
          columns.start(group.y[i] + (float)(band - group_top), v);
          for (int row = band; row < begin; ++row)
            for (int q = 0; q < S; ++q)
              for (int s = 0; s < S; ++s) v[q][s] = v[q][s] * columns.down[s];
          Row row(table, (begin - group_top) * S);
          float* start = pixels + planes.row(begin) + left + skipped;
          for_each_part(group, i, begin, end, [&](int rows, auto clip) GSDD_INLINE {
            for (; rows > 0; --rows, start += stride) {
              V weight = splat<V>(0.0f);
              for (int q = 0; q < S; ++q, ++row) {
                const V threshold = splat<V>(*row.threshold), cap = splat<V>(*row.cap);
                V total;
                for (int s = 0; s < S; ++s) {
                  V& value = v[q][s];
                  const V e = if_less_equal(threshold, value, clip ? smaller(value, cap) : value);
                  total = s == 0 ? e : total + e;
                  value = value * columns.down[s];
                }
                weight = fma(total, splat<V>(*row.gain), weight);
              }
              float* p = start;
              for (int c = 0; c < C; ++c, p += size)
                store(p, fma(weight, splat<V>(tint[c]), load<V>(p)));
            }
          });
        }
      });
}

inline void add(Narrow* total, Narrow part) { *total = *total + part; }
inline void add(Narrow* total, Vec<16> part) {
  Narrow half[2];
  std::memcpy(half, &part, sizeof part);
  *total = (*total + half[0]) + half[1];
}

// Returns the moments of Gaussian i; kPass: ignores the clipping.
template <int S, int C, bool kPass>
Moments gather_bands(const Group& group, int i, const float* color, const Table<S>& table,
                     const Raster& raster, const Planes& planes, const float* d_pixels) {
  const int64_t stride = planes.stride, size = planes.size;
  const int group_top = group.top[i], left = group.left[i], height = group.band[i];
  float tint[C];
  std::copy_n(color, C, tint);
  table.fill(group, i, (float)raster.min_weight, 0, group.bottom[i] - group_top);
  Narrow moment[6] = {}, moment_color[C] = {};  // of h times 1, X, Y, X^2, X Y, Y^2

  for_each_block(
      group, i, [&](auto lanes, int skipped, int count, int top, int bottom) GSDD_INLINE {
        using V = decltype(lanes);
        const Columns<S, V> columns(group, i, skipped, count);
        const V none = splat<V>(0.0f), step = splat<V>(1.0f / S);
        // Sums of h, h Y, h Y^2 over all samples, and over the second sample columns only.
        V m = none, m_y = none, m_yy = none, m_second = none, m_second_y = none, m_color[C];
        for (int c = 0; c < C; ++c) m_color[c] = none;

        for (int band = top; band <= bottom; band += height) {
          const int last = std::min(band + height - 1, bottom);
          const float y = group.y[i] + (float)(band - group_top);
          V v[S][S];
          columns.start(y, v);
          Row row(table, (band - group_top) * S);
          const float* start = d_pixels + planes.row(band) + left + skipped;
          // Sums over the rows, and sums of the partial sums, which give moments in Y without
          // multiplications.
          V all = none, all_1 = none, all_2 = none, second = none, second_1 = none;
          for_each_part(group, i, band, last, [&](int rows, auto clip) GSDD_INLINE {
            for (; rows > 0; --rows, start += stride) {
              V d_color[C], g, weight = none;
              for (int c = 0; c < C; ++c) {
                d_color[c] = load<V>(start + c * size);
                g = c == 0 ? d_color[c] * splat<V>(tint[c]) : fma(d_color[c], splat<V>(tint[c]), g);
              }
              for (int q = 0; q < S; ++q, ++row) {
                const V threshold = splat<V>(*row.threshold), cap = splat<V>(*row.cap);
                V e[S], total, clipped;
                for (int s = 0; s < S; ++s) {
                  V& value = v[q][s];
                  e[s] = if_less_equal(threshold, value, value);
                  if (clip) {
                    clipped = s == 0 ? smaller(e[s], cap) : clipped + smaller(e[s], cap);
                    if (!kPass) e[s] = if_less_equal(value, cap, e[s]);
                  }
                  total = s == 0 ? e[s] : total + e[s];
                  value = value * columns.down[s];
                }
                const V gain = splat<V>(*row.gain), h = g * gain;
                weight = fma(clip ? clipped : total, gain, weight);
                all = fma(total, h, all);
                all_1 = all_1 + all;
                all_2 = all_2 + all_1;
                if (S > 1) {
                  second = fma(e[S - 1], h, second);
                  second_1 = second_1 + second;
                }
              }
              for (int c = 0; c < C; ++c) m_color[c] = fma(weight, d_color[c], m_color[c]);
            }
          });
          // A row k rows before `end` counts k times in all_1 and k (k + 1) / 2 times in all_2.
          const V end = splat<V>(y + (float)(last + 1 - band)), squares = all_2 + all_2 - all_1;
          const V all_y = end * all - step * all_1;
          m = m + all;
          m_y = m_y + all_y;
          m_yy = m_yy + (end * (all_y - step * all_1) + step * step * squares);
          m_second = m_second + second;
          m_second_y = m_second_y + (end * second - step * second_1);
        }
        // Each lane is a column with its own X.
        const V x = columns.x[0], m_x = fma(m_second, step, x * m);
        const V m_second_x = fma(m_second, step, x * m_second);
        add(&moment[0], m);
        add(&moment[1], m_x);
        add(&moment[2], m_y);
        add(&moment[3], fma(m_second_x, step, x * m_x));
        add(&moment[4], fma(m_second_y, step, x * m_y));
        add(&moment[5], m_yy);
        for (int c = 0; c < C; ++c) add(&moment_color[c], m_color[c]);
      });

  double total[6];
  for (int k = 0; k < 6; ++k) total[k] = sum(moment[k]);
  Moments moments = sheared(total, group.slope[i]);
  moments.e = total[0] / group.opacity[i];
  for (int c = 0; c < C; ++c) moments.color[c] = sum(moment_color[c]);
  return moments;
}

}  // namespace
}  // namespace gsdd
