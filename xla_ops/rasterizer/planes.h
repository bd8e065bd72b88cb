// Layout of some rows of an image during rasterization: C planes with padded rows. A Gaussian
// touches contiguous memory, and lanes may start at any pixel and end 7 pixels after the last.
#pragma once

#include <cstdint>
#include <cstring>

#include "common/simd.h"
#include "rasterizer/gaussian.h"

namespace gsdd {
namespace {

// Avoids planes a multiple of 4 KiB apart, which conflict in the store buffer.
constexpr int64_t kApart = 48;

struct Planes {
  Range rows;  // of the image
  int64_t width;
  int64_t stride, size;  // floats a row, floats a plane
  Planes(const Raster& raster, Range rows)
      : rows(rows),
        width(raster.width),
        stride((raster.width + 15) / 8 * 8),
        size(stride * (rows.last - rows.first + 1) + kApart) {}

  int64_t row(int64_t i) const { return (i - rows.first) * stride; }

  Range clip(Range range) const {
    return {range.first > rows.first ? range.first : rows.first,
            range.last < rows.last ? range.last : rows.last};
  }

  // These rows of pixels [H, W, C] = share * planes
  template <int C>
  void interleave(const float* __restrict planes, float share, float* __restrict pixels) const {
    pixels += rows.first * width * C;
    for (int64_t i = rows.first; i <= rows.last; ++i, planes += stride, pixels += width * C) {
      int64_t j = 0;
      for (; C == 3 && j + kRegister <= width; j += kRegister) {
        Register part[3];
        for (int c = 0; c < 3; ++c)
          part[c] = load<Register>(planes + c * size + j) * splat<Register>(share);
        ::interleave(&part[0], &part[1], &part[2]);
        for (int c = 0; c < 3; ++c) store(pixels + 3 * j + c * kRegister, part[c]);
      }
      for (; j < width; ++j)
        for (int c = 0; c < C; ++c) pixels[j * C + c] = share * planes[c * size + j];
    }
  }

  // planes = share * these rows of pixels [H, W, C], zero in the padding
  template <int C>
  void deinterleave(const float* __restrict pixels, float share, float* __restrict planes) const {
    pixels += rows.first * width * C;
    for (int64_t i = rows.first; i <= rows.last; ++i, planes += stride, pixels += width * C) {
      int64_t j = 0;
      for (; C == 3 && j + kRegister <= width; j += kRegister) {
        Register part[3];
        for (int c = 0; c < 3; ++c)
          part[c] = load<Register>(pixels + 3 * j + c * kRegister) * splat<Register>(share);
        ::deinterleave(&part[0], &part[1], &part[2]);
        for (int c = 0; c < 3; ++c) store(planes + c * size + j, part[c]);
      }
      for (; j < width; ++j)
        for (int c = 0; c < C; ++c) planes[c * size + j] = share * pixels[j * C + c];
      for (int c = 0; c < C; ++c) {  // 8 to 15 floats
        store(planes + c * size + width, splat<Narrow>(0.0f));
        store(planes + c * size + stride - 8, splat<Narrow>(0.0f));
      }
    }
  }
};

}  // namespace
}  // namespace gsdd
