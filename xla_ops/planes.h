// How some rows of an image are kept while they are worked on: C planes with padded rows, so that a
// Gaussian touches contiguous memory and 16 lanes may start at any pixel.
#pragma once

#include <cstdint>
#include <cstring>

#include "gaussian.h"

namespace gsdd {
namespace {

struct Planes {
  Range rows;  // of the image
  int64_t width;
  int64_t stride, size;  // floats a row, floats a plane
  Planes(const Raster& raster, Range rows)
      : rows(rows),
        width(raster.width),
        stride((raster.width + 31) / 16 * 16),
        size(stride * (rows.last - rows.first + 1)) {}

  int64_t row(int64_t i) const { return (i - rows.first) * stride; }

  Range clip(Range range) const {
    return {range.first > rows.first ? range.first : rows.first,
            range.last < rows.last ? range.last : rows.last};
  }

  // These rows of pixels [H, W, C] = share * planes
  template <int C>
  void interleave(const float* planes, float share, float* pixels) const {
    pixels += rows.first * width * C;
    for (int64_t i = rows.first; i <= rows.last; ++i, planes += stride, pixels += width * C)
      for (int64_t j = 0; j < width; ++j)
        for (int c = 0; c < C; ++c) pixels[j * C + c] = share * planes[c * size + j];
  }

  // planes = share * these rows of pixels [H, W, C], zero in the padding
  template <int C>
  void deinterleave(const float* pixels, float share, float* planes) const {
    pixels += rows.first * width * C;
    for (int64_t i = rows.first; i <= rows.last; ++i, planes += stride, pixels += width * C) {
      for (int64_t j = 0; j < width; ++j)
        for (int c = 0; c < C; ++c) planes[c * size + j] = share * pixels[j * C + c];
      for (int c = 0; c < C; ++c)
        std::memset(planes + c * size + width, 0, sizeof(float) * (stride - width));
    }
  }
};

}  // namespace
}  // namespace gsdd
