// CPU kernels of the networks, for one image. cpu_kernel.cc is compiled once per instruction set;
// cpu.cc chooses a table at run time.
#pragma once

#include <cstddef>
#include <cstdint>

#include "network/bfloat16.h"

namespace gsdd {

// Instance norm, ReLU and 2 x 2 average pooling; the formulas are in norm_pool.h. Arrays of one
// image: x, dx, a and da are [H, W, C], y, g and dg [H/2, W/2, C], the others [C].
struct NormPoolShape {
  int64_t height, width, channels;  // both sides even
  float epsilon;
};

struct NormPoolStatistics {
  float* mean;  // minus the middle pixel's value
  float* rate;  // 1 / sqrt(variance + epsilon)
};

template <class T>
struct NormPoolInputs {
  const T* x;
  const float* scale;
  const float* shift;
};

template <class T>
struct NormPoolKernel {
  void (*forward)(const NormPoolShape& shape, const NormPoolInputs<T>& in, T* y,
                  const NormPoolStatistics& statistics);
  void (*backward)(const NormPoolShape& shape, const NormPoolInputs<T>& in,
                   const NormPoolStatistics& statistics, const T* g, T* dx, float* d_scale,
                   float* d_shift);
  // Differentiates <a, dx> + <a_scale, d_scale> + <a_shift, d_shift>.
  void (*second)(const NormPoolShape& shape, const NormPoolInputs<T>& in,
                 const NormPoolStatistics& statistics, const T* g, const T* a, const float* a_scale,
                 const float* a_shift, T* dx, float* d_scale, T* dg);
};

// Convolution with stride 1: x [H, W, I] -> y [H + 2 padding - side + 1, W + ..., O].
struct ConvShape {
  int64_t height, width, inputs, outputs;
  int64_t side, padding;  // of the kernel; pixels of zeros around x
};

struct NetworkKernel {
  const char* name;
  NormPoolKernel<float> norm_pool;
  NormPoolKernel<Bfloat16> norm_pool_bfloat16;

  // Floats of the kernel [side, side, I, O] packed for `conv`, and the packing.
  size_t (*packed_size)(const ConvShape& shape);
  void (*pack)(const ConvShape& shape, const float* kernel, float* packed);
  size_t (*conv_scratch)(const ConvShape& shape);
  void (*conv)(const ConvShape& shape, const float* x, const float* packed, float* y,
               float* scratch);
  // Adds the image's term to the kernel gradient, packed in `gradient_size` floats.
  size_t (*gradient_size)(const ConvShape& shape);
  void (*conv_gradient)(const ConvShape& shape, const float* x, const float* g, float* total,
                        float* scratch);
  void (*unpack_gradient)(const ConvShape& shape, const float* total, float* kernel);
};

extern const NetworkKernel kNetworkAvx512, kNetworkAvx2, kNetworkGeneric;

}  // namespace gsdd
