// 3 x 3 convolution with stride 1 and padding 1 on a CPU, as a plain sum: for few channels, where
// Winograd's transforms cost more than they save. A register holds output channels of one pixel,
// or one channel of neighboring pixels if there are only few. The order of every sum is
// independent of the width of registers. Internal linkage: one binary holds several instantiations.
#pragma once

#include <algorithm>

#include "common/simd.h"
#include "network/cpu_kernel.h"

namespace gsdd {
namespace {

constexpr int kLane = kRegister;
constexpr int64_t kFewOutputs = 4;                // these and less go by pixels
constexpr bool kManyRegisters = kRegister == 16;  // 32 of them, else 16

inline int64_t blocks_of(int64_t channels) { return (channels + kLane - 1) / kLane; }

inline Register read_some(const float* p, int64_t count) {
  if (count >= kLane) return load<Register>(p);
  alignas(64) float lanes[kLane] = {};
  for (int64_t i = 0; i < count; ++i) lanes[i] = p[i];
  return load<Register>(lanes);
}
inline void write_some(float* p, Register a, int64_t count) {
  if (count >= kLane) return store(p, a);
  alignas(64) float lanes[kLane];
  store(lanes, a);
  for (int64_t i = 0; i < count; ++i) p[i] = lanes[i];
}

// x with a border of zeros, [H + 2, W + 2, I].
inline void surround(const ConvShape& s, const float* x, float* padded) {
  const int64_t row = (s.width + 2) * s.inputs, inner = s.width * s.inputs;
  std::fill(padded, padded + row, 0.0f);
  std::fill(padded + (s.height + 1) * row, padded + (s.height + 2) * row, 0.0f);
  for (int64_t i = 0; i < s.height; ++i) {
    float* to = padded + (i + 1) * row;
    std::fill(to, to + s.inputs, 0.0f);
    std::memcpy(to + s.inputs, x + i * inner, inner * sizeof(float));
    std::fill(to + s.inputs + inner, to + row, 0.0f);
  }
}

// Output channels in registers. The kernel is packed [O / lanes, 3, 3, I, lanes], filled with 0.

template <int T, int K>  // pixels of a row, registers of channels
inline void conv_tile(const float* x, int64_t row, int64_t inputs, const float* packed,
                      int64_t block, float* y, int64_t outputs, int64_t left) {
  Register sums[T][K] = {};
  for (int i = 0; i < 3; ++i) {
    // The inputs of three neighboring pixels lie one after the other, and so do their weights.
    const float* from = x + i * row;
    const float* weights = packed + i * 3 * inputs * kLane;
    for (int64_t n = 0; n < 3 * inputs; ++n) {
      Register w[K];
#pragma GCC unroll 8
      for (int k = 0; k < K; ++k) w[k] = load<Register>(weights + k * block + n * kLane);
#pragma GCC unroll 16
      for (int t = 0; t < T; ++t) {
        const Register value = splat<Register>(from[t * inputs + n]);
#pragma GCC unroll 8
        for (int k = 0; k < K; ++k) sums[t][k] = fma(value, w[k], sums[t][k]);
      }
    }
  }
#pragma GCC unroll 16
  for (int t = 0; t < T; ++t)
#pragma GCC unroll 8
    for (int k = 0; k < K; ++k)
      write_some(y + t * outputs + k * kLane, sums[t][k], left - k * kLane);
}

template <int T, int K>
inline void conv_blocks(const ConvShape& s, const float* padded, const float* packed, float* y,
                        int64_t first) {
  const int64_t row = (s.width + 2) * s.inputs, block = 9 * s.inputs * kLane;
  const float* weights = packed + first * block;
  const int64_t o = first * kLane, left = s.outputs - o;
  for (int64_t i = 0; i < s.height; ++i) {
    const float* from = padded + i * row;
    float* to = y + i * s.width * s.outputs + o;
    int64_t j = 0;
    for (; j + T <= s.width; j += T)
      conv_tile<T, K>(from + j * s.inputs, row, s.inputs, weights, block, to + j * s.outputs,
                      s.outputs, left);
    for (; j + 4 <= s.width; j += 4)
      conv_tile<4, K>(from + j * s.inputs, row, s.inputs, weights, block, to + j * s.outputs,
                      s.outputs, left);
    for (; j < s.width; ++j)
      conv_tile<1, K>(from + j * s.inputs, row, s.inputs, weights, block, to + j * s.outputs,
                      s.outputs, left);
  }
}

inline void conv_many(const ConvShape& s, const float* x, const float* packed, float* y,
                      float* scratch) {
  surround(s, x, scratch);
  const int64_t blocks = blocks_of(s.outputs);
  int64_t first = 0;
  for (; first + 2 <= blocks; first += 2)
    conv_blocks<kManyRegisters ? 8 : 4, 2>(s, scratch, packed, y, first);
  if (first < blocks) conv_blocks<kManyRegisters ? 16 : 8, 1>(s, scratch, packed, y, first);
}

// Pixels in registers: x in planes [I, H + 2, stride], the kernel packed [I, 3, 3, O].

inline int64_t plane_stride(const ConvShape& s) { return s.width + 2 + kLane; }

template <int R, int O>  // rows, output channels
inline void plane_tile(const float* planes, int64_t stride, const ConvShape& s, const float* packed,
                       float* y, int64_t count) {
  Register sums[R][O] = {};
  for (int64_t c = 0; c < s.inputs; ++c)
    for (int i = 0; i < 3; ++i)
      for (int j = 0; j < 3; ++j) {
        const float* from = planes + (c * (s.height + 2) + i) * stride + j;
        const float* weights = packed + (c * 9 + i * 3 + j) * O;
#pragma GCC unroll 8
        for (int o = 0; o < O; ++o) {
          const Register w = splat<Register>(weights[o]);
#pragma GCC unroll 8
          for (int r = 0; r < R; ++r)
            sums[r][o] = fma(w, load<Register>(from + r * stride), sums[r][o]);
        }
      }
  for (int r = 0; r < R; ++r) {
    alignas(64) float lanes[O][kLane];
    for (int o = 0; o < O; ++o) store(lanes[o], sums[r][o]);
    for (int64_t t = 0; t < count; ++t)
      for (int o = 0; o < O; ++o) y[(r * s.width + t) * O + o] = lanes[o][t];
  }
}

template <int O>
inline void conv_few(const ConvShape& s, const float* x, const float* packed, float* y,
                     float* planes) {
  const int64_t stride = plane_stride(s);
  std::fill(planes, planes + s.inputs * (s.height + 2) * stride, 0.0f);
  for (int64_t i = 0; i < s.height; ++i)
    for (int64_t c = 0; c < s.inputs; ++c) {
      float* to = planes + (c * (s.height + 2) + i + 1) * stride + 1;
      for (int64_t j = 0; j < s.width; ++j) to[j] = x[(i * s.width + j) * s.inputs + c];
    }
  for (int64_t j = 0; j < s.width; j += kLane) {
    const int64_t count = std::min<int64_t>(kLane, s.width - j);
    int64_t i = 0;
    for (; i + 4 <= s.height; i += 4)
      plane_tile<4, O>(planes + i * stride + j, stride, s, packed, y + (i * s.width + j) * O,
                       count);
    for (; i < s.height; ++i)
      plane_tile<1, O>(planes + i * stride + j, stride, s, packed, y + (i * s.width + j) * O,
                       count);
  }
}

inline size_t packed_size(const ConvShape& s) {
  return 9 * s.inputs * (s.outputs <= kFewOutputs ? s.outputs : blocks_of(s.outputs) * kLane);
}
inline void pack(const ConvShape& s, const float* kernel, float* packed) {
  std::fill(packed, packed + packed_size(s), 0.0f);
  for (int64_t n = 0; n < 9; ++n)
    for (int64_t c = 0; c < s.inputs; ++c)
      for (int64_t o = 0; o < s.outputs; ++o) {
        const int64_t few = (c * 9 + n) * s.outputs + o;
        const int64_t many = ((o / kLane * 9 + n) * s.inputs + c) * kLane + o % kLane;
        packed[s.outputs <= kFewOutputs ? few : many] = kernel[(n * s.inputs + c) * s.outputs + o];
      }
}
inline size_t conv_scratch(const ConvShape& s) {
  return s.inputs * (s.height + 2) * plane_stride(s);
}
inline void conv(const ConvShape& s, const float* x, const float* packed, float* y,
                 float* scratch) {
  switch (s.outputs) {
    case 1: return conv_few<1>(s, x, packed, y, scratch);
    case 2: return conv_few<2>(s, x, packed, y, scratch);
    case 3: return conv_few<3>(s, x, packed, y, scratch);
    case 4: return conv_few<4>(s, x, packed, y, scratch);
    default: return conv_many(s, x, packed, y, scratch);
  }
}

// Adds N rows of the kernel gradient [O / lanes, 3, 3 I, lanes], kept in registers over all pixels.
template <int N>
inline void gradient_rows(const ConvShape& s, const float* padded, const float* g, int64_t left,
                          float* total) {
  const int64_t row = (s.width + 2) * s.inputs;
  Register sums[N] = {};
  for (int64_t i = 0; i < s.height; ++i)
    for (int64_t j = 0; j < s.width; ++j) {
      const Register value = read_some(g + (i * s.width + j) * s.outputs, left);
      const float* from = padded + i * row + j * s.inputs;
#pragma GCC unroll 24
      for (int n = 0; n < N; ++n) sums[n] = fma(splat<Register>(from[n]), value, sums[n]);
    }
#pragma GCC unroll 24
  for (int n = 0; n < N; ++n) store(total + n * kLane, load<Register>(total + n * kLane) + sums[n]);
}

inline size_t gradient_size(const ConvShape& s) {
  return 9 * s.inputs * blocks_of(s.outputs) * kLane;
}
inline void conv_gradient(const ConvShape& s, const float* x, const float* g, float* total,
                          float* scratch) {
  surround(s, x, scratch);
  const int64_t row = (s.width + 2) * s.inputs, across = 3 * s.inputs;
  for (int64_t block = 0; block < blocks_of(s.outputs); ++block)
    for (int i = 0; i < 3; ++i) {
      const float* cotangent = g + block * kLane;
      const int64_t left = s.outputs - block * kLane;
      for (int64_t n = 0; n < across;) {
        const float* from = scratch + i * row + n;
        float* to = total + ((block * 3 + i) * across + n) * kLane;
        const int64_t missing = across - n;
        constexpr int kMost = kManyRegisters ? 24 : 12;
        if (missing >= kMost) {
          gradient_rows<kMost>(s, from, cotangent, left, to);
          n += kMost;
        } else if (missing >= 9) {
          gradient_rows<9>(s, from, cotangent, left, to);
          n += 9;
        } else if (missing >= 3) {
          gradient_rows<3>(s, from, cotangent, left, to);
          n += 3;
        } else {
          gradient_rows<1>(s, from, cotangent, left, to);
          n += 1;
        }
      }
    }
}
inline void unpack_gradient(const ConvShape& s, const float* total, float* kernel) {
  const int64_t rows = 9 * s.inputs;
  for (int64_t n = 0; n < rows; ++n)
    for (int64_t o = 0; o < s.outputs; ++o)
      kernel[n * s.outputs + o] = total[(o / kLane * rows + n) * kLane + o % kLane];
}

}  // namespace
}  // namespace gsdd
