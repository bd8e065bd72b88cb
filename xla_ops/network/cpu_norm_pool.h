// norm_pool.h on a CPU. A register holds channels of one pixel, so neither the width of registers
// nor the number of threads changes a bit. Internal linkage: one binary holds several
// instantiations.
#pragma once

#include <cmath>

#include "common/simd.h"
#include "network/cpu_kernel.h"
#include "network/norm_pool.h"

namespace gsdd {
namespace {

constexpr int kLaneCount = kRegister;
typedef uint16_t Halves __attribute__((vector_size(2 * kLaneCount)));
typedef uint32_t Words __attribute__((vector_size(4 * kLaneCount)));

inline Register read(const float* p) { return load<Register>(p); }
inline Register read(const Bfloat16* p) {
  Halves halves;
  std::memcpy(&halves, p, sizeof halves);
  return {(Register::Floats)(__builtin_convertvector(halves, Words) << 16)};
}
inline void write(float* p, Register a) { store(p, a); }
inline void write(Bfloat16* p, Register a) {
  const Words bits = (Words)a.v, rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  const Halves halves = __builtin_convertvector(a.v == a.v ? rounded : Words{} + 0x7fc0, Halves);
  std::memcpy(p, &halves, sizeof halves);
}

// Reads or writes the first `count` lanes; reads 0 into the others.
template <bool kWhole, class T>
inline Register read(const T* p, int count) {
  if (kWhole) return read(p);
  alignas(64) T lanes[kLaneCount] = {};
  for (int i = 0; i < count; ++i) lanes[i] = p[i];
  return read(lanes);
}
template <bool kWhole, class T>
inline void write(T* p, Register a, int count) {
  if (kWhole) return write(p, a);
  alignas(64) T lanes[kLaneCount];
  write(lanes, a);
  for (int i = 0; i < count; ++i) p[i] = lanes[i];
}

inline Register if_positive(Register a, Register value) {  // else 0
  return {a.v > 0 ? value.v : Register::Floats{}};
}
inline Register zero() { return splat<Register>(0.0f); }
inline Register inverse_root(Register a) {
  alignas(64) float lanes[kLaneCount];
  store(lanes, a);
  for (float& lane : lanes) lane = 1 / std::sqrt(lane);
  return load<Register>(lanes);
}

// A register of channels of one image.
template <bool kWhole, class T>
struct Channels {
  const NormPoolShape& shape;
  const T* x;
  int count;  // lanes in use
  Register middle, mean, rate, scale, shift, factor;

  Channels(const NormPoolShape& shape, const NormPoolInputs<T>& in, int64_t first, int count)
      : shape(shape),
        x(in.x + first),
        count(count),
        middle(at(x, shape.height / 2 * shape.width + shape.width / 2)),
        scale(read<kWhole>(in.scale + first, count)),
        shift(read<kWhole>(in.shift + first, count)) {}

  void set(Register new_mean, Register new_rate) {
    mean = new_mean;
    rate = new_rate;
    factor = rate * scale;
  }
  void set(const NormPoolStatistics& statistics, int64_t first) {
    set(read<kWhole>(statistics.mean + first, count), read<kWhole>(statistics.rate + first, count));
  }
  Register at(const T* array, int64_t pixel) const {
    return read<kWhole>(array + pixel * shape.channels, count);
  }
  void put(T* array, int64_t pixel, Register value) const {
    write<kWhole>(array + pixel * shape.channels, value, count);
  }
  void put(float* array, Register value) const { write<kWhole>(array, value, count); }
  Register moved(int64_t pixel) const { return at(x, pixel) - middle; }
  Register centered(int64_t pixel) const { return moved(pixel) - mean; }
  Register before_relu(Register c) const { return fma(c, factor, shift); }
  Register one_over_pixels() const {
    return splat<Register>(1.0f / (float)(shape.height * shape.width));
  }
  // Calls f(pixels of a 2 x 2 block, pooled pixel).
  template <class F>
  void for_blocks(const F& f) const {
    for (int64_t i = 0; i < shape.height; i += 2)
      for (int64_t j = 0; j < shape.width; j += 2) {
        const int64_t top = i * shape.width + j, low = top + shape.width;
        const int64_t pixels[4] = {top, top + 1, low, low + 1};
        f(pixels, i / 2 * (shape.width / 2) + j / 2);
      }
  }
};

inline Register add_up(const Register (&parts)[4]) {
  return (parts[0] + parts[1]) + (parts[2] + parts[3]);
}

struct NormPoolForward {
  template <bool kWhole, class T>
  static void run(int64_t first, int count, const NormPoolShape& shape, const NormPoolInputs<T>& in,
                  T* y, const NormPoolStatistics& statistics) {
    Channels<kWhole, T> image(shape, in, first, count);
    Register sums[4] = {}, squares[4] = {};
    for (int64_t p = 0; p < shape.height * shape.width; p += 4)
      for (int k = 0; k < 4; ++k) {
        const Register d = image.moved(p + k);
        sums[k] = sums[k] + d;
        squares[k] = fma(d, d, squares[k]);
      }
    const Register part = image.one_over_pixels(), mean = add_up(sums) * part;
    const Register variance = add_up(squares) * part - mean * mean;
    image.set(mean, inverse_root(variance + splat<Register>(shape.epsilon)));
    image.put(statistics.mean + first, image.mean);
    image.put(statistics.rate + first, image.rate);
    const Register quarter = splat<Register>(0.25f);
    image.for_blocks([&](const int64_t (&pixels)[4], int64_t pooled) {
      Register values[4];
      for (int k = 0; k < 4; ++k)  // this order keeps NaN
        values[k] = larger(zero(), image.before_relu(image.centered(pixels[k])));
      image.put(y + first, pooled, add_up(values) * quarter);
    });
  }
};

struct NormPoolBackward {
  template <bool kWhole, class T>
  static void run(int64_t first, int count, const NormPoolShape& shape, const NormPoolInputs<T>& in,
                  const NormPoolStatistics& statistics, const T* g, T* dx, float* d_scale,
                  float* d_shift) {
    Channels<kWhole, T> image(shape, in, first, count);
    image.set(statistics, first);
    const Register quarter = splat<Register>(0.25f), part = image.one_over_pixels();
    Register u_sums[4] = {}, uc_sums[4] = {};
    image.for_blocks([&](const int64_t (&pixels)[4], int64_t pooled) {
      const Register u_all = image.at(g + first, pooled) * quarter;
      for (int k = 0; k < 4; ++k) {
        const Register c = image.centered(pixels[k]);
        const Register u = if_positive(image.before_relu(c), u_all);
        u_sums[k] = u_sums[k] + u;
        uc_sums[k] = fma(u, c, uc_sums[k]);
      }
    });
    const Register u_sum = add_up(u_sums);
    const NormPoolGradient<Register> d(u_sum, add_up(uc_sums), image.rate, image.factor, part);
    image.put(d_shift + first, u_sum);
    image.put(d_scale + first, d.d_scale);
    image.for_blocks([&](const int64_t (&pixels)[4], int64_t pooled) {
      const Register u_all = image.at(g + first, pooled) * quarter * image.factor;
      for (int k = 0; k < 4; ++k) {
        const Register c = image.centered(pixels[k]);
        const Register u = if_positive(image.before_relu(c), u_all);
        image.put(dx + first, pixels[k], u - fma(c, d.slope, d.constant));
      }
    });
  }
};

struct NormPoolSecond {
  template <bool kWhole, class T>
  static void run(int64_t first, int count, const NormPoolShape& shape, const NormPoolInputs<T>& in,
                  const NormPoolStatistics& statistics, const T* g, const T* a,
                  const float* a_scale, const float* a_shift, T* dx, float* d_scale, T* dg) {
    Channels<kWhole, T> image(shape, in, first, count);
    image.set(statistics, first);
    const Register quarter = splat<Register>(0.25f), part = image.one_over_pixels();
    NormPoolSums<Register> sums = {zero(), zero(), zero(), zero(), zero()};
    image.for_blocks([&](const int64_t (&pixels)[4], int64_t pooled) {
      const Register u_all = image.at(g + first, pooled) * quarter;
      // Sums the block first: fewer roundings and shorter chains.
      NormPoolSums<Register> block = {zero(), zero(), zero(), zero(), zero()};
      for (int k = 0; k < 4; ++k) {
        const Register c = image.centered(pixels[k]), w = image.at(a + first, pixels[k]);
        const Register u = if_positive(image.before_relu(c), u_all);
        block.u = block.u + u;
        block.uc = fma(u, c, block.uc);
        block.a = block.a + w;
        block.ac = fma(w, c, block.ac);
        block.au = fma(w, u, block.au);
      }
      sums.u = sums.u + block.u;
      sums.uc = sums.uc + block.uc;
      sums.a = sums.a + block.a;
      sums.ac = sums.ac + block.ac;
      sums.au = sums.au + block.au;
    });
    const Register pixel_count = splat<Register>((float)(shape.height * shape.width));
    const NormPoolSecondGradient<Register> d(
        sums, image.rate, image.factor, read<kWhole>(a_scale + first, count),
        read<kWhole>(a_shift + first, count), part, pixel_count);
    image.put(d_scale + first, d.d_scale);
    image.for_blocks([&](const int64_t (&pixels)[4], int64_t pooled) {
      const Register u_all = image.at(g + first, pooled) * quarter;
      Register vs[4];
      for (int k = 0; k < 4; ++k) {
        const Register c = image.centered(pixels[k]), w = image.at(a + first, pixels[k]);
        const Register before = image.before_relu(c), u = if_positive(before, u_all);
        vs[k] = if_positive(before, fma(image.factor, w, fma(d.v_slope, c, d.v_constant)));
        image.put(dx + first, pixels[k],
                  d.x_u * u - fma(d.x_a, w, fma(d.x_slope, c, d.x_constant)));
      }
      image.put(dg + first, pooled, add_up(vs) * quarter);
    });
  }
};

// Runs all channels, a register at a time.
template <class Pass, class... Arguments>
void all_channels(const NormPoolShape& shape, const Arguments&... arguments) {
  int64_t first = 0;
  for (; first + kLaneCount <= shape.channels; first += kLaneCount)
    Pass::template run<true>(first, kLaneCount, shape, arguments...);
  if (first < shape.channels)
    Pass::template run<false>(first, (int)(shape.channels - first), shape, arguments...);
}

template <class T>
constexpr NormPoolKernel<T> kNormPool = {
    [](const NormPoolShape& shape, const NormPoolInputs<T>& in, T* y,
       const NormPoolStatistics& statistics) {
      all_channels<NormPoolForward>(shape, in, y, statistics);
    },
    [](const NormPoolShape& shape, const NormPoolInputs<T>& in,
       const NormPoolStatistics& statistics, const T* g, T* dx, float* d_scale, float* d_shift) {
      all_channels<NormPoolBackward>(shape, in, statistics, g, dx, d_scale, d_shift);
    },
    [](const NormPoolShape& shape, const NormPoolInputs<T>& in,
       const NormPoolStatistics& statistics, const T* g, const T* a, const float* a_scale,
       const float* a_shift, T* dx, float* d_scale, T* dg) {
      all_channels<NormPoolSecond>(shape, in, statistics, g, a, a_scale, a_shift, dx, d_scale, dg);
    }};

}  // namespace
}  // namespace gsdd
