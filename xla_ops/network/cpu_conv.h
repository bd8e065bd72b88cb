// Convolution with stride 1 on a CPU, as a plain sum: for kernels other than 3 x 3, and for few
// channels, where Winograd's transforms cost more than they save. A register holds output channels
// of one pixel, or one channel of neighboring pixels if there are only few. The order of every sum
// is independent of the width of registers. Internal linkage: one binary holds several
// instantiations.
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

// Sides of an image within its border, and of the output.
inline int64_t padded_height(const ConvShape& s) { return s.height + 2 * s.padding; }
inline int64_t padded_width(const ConvShape& s) { return s.width + 2 * s.padding; }
inline int64_t out_height(const ConvShape& s) { return padded_height(s) - s.side + 1; }
inline int64_t out_width(const ConvShape& s) { return padded_width(s) - s.side + 1; }
inline int64_t taps(const ConvShape& s) { return s.side * s.side; }

// x with a border of zeros, [H + 2 padding, W + 2 padding, I].
inline void surround(const ConvShape& s, const float* x, float* padded) {
  const int64_t row = padded_width(s) * s.inputs, inner = s.width * s.inputs;
  const int64_t border = s.padding * s.inputs;
  std::fill(padded, padded + s.padding * row, 0.0f);
  std::fill(padded + (s.padding + s.height) * row, padded + padded_height(s) * row, 0.0f);
  for (int64_t i = 0; i < s.height; ++i) {
    float* to = padded + (s.padding + i) * row;
    std::fill(to, to + border, 0.0f);
    std::memcpy(to + border, x + i * inner, inner * sizeof(float));
    std::fill(to + border + inner, to + row, 0.0f);
  }
}

// Output channels in registers. The kernel is packed [O / lanes, side, side, I, lanes], filled with
// 0.

template <int T, int K>  // pixels of a row, registers of channels
inline void conv_tile(const ConvShape& s, const float* x, const float* packed, float* y,
                      int64_t left) {
  const int64_t inputs = s.inputs, outputs = s.outputs, across = s.side * inputs;
  const int64_t row = padded_width(s) * inputs, block = s.side * across * kLane;
  Register sums[T][K] = {};
  for (int64_t i = 0; i < s.side; ++i) {
    // The inputs of neighboring pixels lie one after the other, and so do their weights.
    const float* from = x + i * row;
    const float* weights = packed + i * across * kLane;
    for (int64_t n = 0; n < across; ++n) {
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

// The same for `count` <= T pixels.
template <int T, int K>
inline void conv_some(const ConvShape& s, const float* x, const float* packed, float* y,
                      int64_t left, int64_t count) {
  if (count >= T) return conv_tile<T, K>(s, x, packed, y, left);
  if constexpr (T > 1) conv_some<T - 1, K>(s, x, packed, y, left, count);
}

template <int T, int K>
inline void conv_blocks(const ConvShape& s, const float* padded, const float* packed, float* y,
                        int64_t first) {
  const int64_t row = padded_width(s) * s.inputs, width = out_width(s);
  const float* weights = packed + first * taps(s) * s.inputs * kLane;
  const int64_t o = first * kLane, left = s.outputs - o;
  for (int64_t i = 0; i < out_height(s); ++i) {
    const float* from = padded + i * row;
    float* to = y + i * width * s.outputs + o;
    for (int64_t j = 0; j < width; j += T)
      conv_some<T, K>(s, from + j * s.inputs, weights, to + j * s.outputs, left, width - j);
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

// Pixels in registers: x in planes [I, H + 2 padding, stride], the kernel packed [I, side, side,
// O].

inline int64_t plane_stride(const ConvShape& s) { return padded_width(s) + kLane; }

template <int R, int O>  // rows, output channels
inline void plane_tile(const float* planes, int64_t stride, const ConvShape& s, const float* packed,
                       float* y, int64_t count) {
  Register sums[R][O] = {};
  for (int64_t c = 0; c < s.inputs; ++c)
    for (int64_t i = 0; i < s.side; ++i)
      for (int64_t j = 0; j < s.side; ++j) {
        const float* from = planes + (c * padded_height(s) + i) * stride + j;
        const float* weights = packed + (c * taps(s) + i * s.side + j) * O;
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
      for (int o = 0; o < O; ++o) y[(r * out_width(s) + t) * O + o] = lanes[o][t];
  }
}

template <int O>
inline void conv_few(const ConvShape& s, const float* x, const float* packed, float* y,
                     float* planes) {
  const int64_t stride = plane_stride(s), height = out_height(s), width = out_width(s);
  std::fill(planes, planes + s.inputs * padded_height(s) * stride, 0.0f);
  for (int64_t i = 0; i < s.height; ++i)
    for (int64_t c = 0; c < s.inputs; ++c) {
      float* to = planes + (c * padded_height(s) + i + s.padding) * stride + s.padding;
      for (int64_t j = 0; j < s.width; ++j) to[j] = x[(i * s.width + j) * s.inputs + c];
    }
  for (int64_t j = 0; j < width; j += kLane) {
    const int64_t count = std::min<int64_t>(kLane, width - j);
    int64_t i = 0;
    for (; i + 4 <= height; i += 4)
      plane_tile<4, O>(planes + i * stride + j, stride, s, packed, y + (i * width + j) * O, count);
    for (; i < height; ++i)
      plane_tile<1, O>(planes + i * stride + j, stride, s, packed, y + (i * width + j) * O, count);
  }
}

inline size_t packed_size(const ConvShape& s) {
  return taps(s) * s.inputs * (s.outputs <= kFewOutputs ? s.outputs : blocks_of(s.outputs) * kLane);
}
inline void pack(const ConvShape& s, const float* kernel, float* packed) {
  std::fill(packed, packed + packed_size(s), 0.0f);
  for (int64_t n = 0; n < taps(s); ++n)
    for (int64_t c = 0; c < s.inputs; ++c)
      for (int64_t o = 0; o < s.outputs; ++o) {
        const int64_t few = (c * taps(s) + n) * s.outputs + o;
        const int64_t many = ((o / kLane * taps(s) + n) * s.inputs + c) * kLane + o % kLane;
        packed[s.outputs <= kFewOutputs ? few : many] = kernel[(n * s.inputs + c) * s.outputs + o];
      }
}
inline size_t conv_scratch(const ConvShape& s) {
  return s.inputs * padded_height(s) * plane_stride(s);
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

// Adds N rows of the kernel gradient [O / lanes, side, side I, lanes], kept in registers over all
// pixels.
template <int N>
inline void gradient_rows(const ConvShape& s, const float* padded, const float* g, int64_t left,
                          float* total) {
  const int64_t row = padded_width(s) * s.inputs, height = out_height(s), width = out_width(s);
  Register sums[N] = {};
  for (int64_t i = 0; i < height; ++i)
    for (int64_t j = 0; j < width; ++j) {
      const Register value = read_some(g + (i * width + j) * s.outputs, left);
      const float* from = padded + i * row + j * s.inputs;
#pragma GCC unroll 24
      for (int n = 0; n < N; ++n) sums[n] = fma(splat<Register>(from[n]), value, sums[n]);
    }
#pragma GCC unroll 24
  for (int n = 0; n < N; ++n) store(total + n * kLane, load<Register>(total + n * kLane) + sums[n]);
}

inline size_t gradient_size(const ConvShape& s) {
  return taps(s) * s.inputs * blocks_of(s.outputs) * kLane;
}
inline void conv_gradient(const ConvShape& s, const float* x, const float* g, float* total,
                          float* scratch) {
  surround(s, x, scratch);
  const int64_t row = padded_width(s) * s.inputs, across = s.side * s.inputs;
  for (int64_t block = 0; block < blocks_of(s.outputs); ++block)
    for (int64_t i = 0; i < s.side; ++i) {
      const float* cotangent = g + block * kLane;
      const int64_t left = s.outputs - block * kLane;
      for (int64_t n = 0; n < across;) {
        const float* from = scratch + i * row + n;
        float* to = total + ((block * s.side + i) * across + n) * kLane;
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
  const int64_t rows = taps(s) * s.inputs;
  for (int64_t n = 0; n < rows; ++n)
    for (int64_t o = 0; o < s.outputs; ++o)
      kernel[n * s.outputs + o] = total[(o / kLane * rows + n) * kLane + o % kLane];
}

}  // namespace
}  // namespace gsdd
