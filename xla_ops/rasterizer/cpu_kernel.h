// CPU rasterizer of one image. cpu_kernel.cc is compiled once per instruction set; cpu.cc chooses a
// table at run time.
#pragma once

#include <cstddef>
#include <cstdint>

#include "rasterizer/gaussian.h"

namespace gsdd {

struct Image {             // one image's arrays, dense and row-major
  const float* means;      // [N, 2]
  const float* cholesky;   // [N, 3]
  const float* colors;     // [N, C]
  const float* opacities;  // [N]
  int64_t count;           // N
  int channels;            // C

  Inputs inputs(int64_t n) const {
    return {means + 2 * n, cholesky + 3 * n, colors + channels * n, opacities + n};
  }
};

struct Gradient {  // as Image
  float* means;
  float* cholesky;
  float* colors;
  float* opacities;
  int channels;

  Outputs outputs(int64_t n) const {
    return {means + 2 * n, cholesky + 3 * n, colors + channels * n, opacities + n};
  }
  Gradient from(int64_t n) const {
    return {means + 2 * n, cholesky + 3 * n, colors + channels * n, opacities + n, channels};
  }
  void clear(int64_t first, int64_t count) const {
    for (int64_t n = first; n < first + count; ++n) write_constant(outputs(n), channels, 0.0f);
  }
};

struct CpuKernel {
  const char* name;
  // Returns the floats of scratch memory for `rows` rows.
  size_t (*scratch)(const Raster& raster, int64_t rows, int channels);
  // Writes all pixels [H, W, C] of `rows`. The division of an image into rows changes no bit.
  void (*forward)(const Image& image, const Raster& raster, Range rows, float* pixels,
                  float* scratch);
  // Writes the gradient of every parameter from d_pixels [H, W, C].
  void (*backward)(const Image& image, const Raster& raster, const float* d_pixels,
                   const Gradient& gradient, float* scratch);
};

extern const CpuKernel kCpuAvx512, kCpuAvx2, kCpuGeneric;

}  // namespace gsdd
