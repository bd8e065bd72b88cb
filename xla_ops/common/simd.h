// Vectors of 8 and 16 floats, made of the compiler's vector types. The target of the including file
// decides: AVX-512, AVX2 or the 16-byte registers of any machine.
//
// A vector wider than a register is a pair of halves. Lanes are summed eight at a time in a fixed
// order, so the width of the registers changes no bit. Internal linkage: one binary holds several
// instantiations.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

#ifdef __FMA__
#include <immintrin.h>
#endif

namespace {

#if defined(__AVX512F__)
constexpr int kRegister = 16;  // floats
#elif defined(__AVX2__)
constexpr int kRegister = 8;
#else
constexpr int kRegister = 4;
#endif

template <int L, bool kFits = (L <= kRegister)>
struct Vec {
  typedef float Floats __attribute__((vector_size(4 * L)));
  typedef int32_t Ints __attribute__((vector_size(4 * L)));
  Floats v;
};

template <int L>
struct Vec<L, false> {
  Vec<L / 2> low, high;
};

// Adding it to |x| < 2^22 rounds x to an integer, which stays in the sum's low bits.
constexpr float kRounder = 12582912.0f;  // 1.5 * 2^23

using Narrow = Vec<8>;
using Wide = Vec<16>;

// Applies f to the registers of one, two or three vectors.
template <class F, int L, class... Rest>
inline Vec<L, true> map(F f, Vec<L, true> a, Rest... rest) {
  return {f(a.v, rest.v...)};
}
template <class F, int L, class... Rest>
inline Vec<L, false> map(F f, Vec<L, false> a, Rest... rest) {
  return {map(f, a.low, rest.low...), map(f, a.high, rest.high...)};
}

#define GSDD_VEC template <int L, bool kFits, class V = Vec<L, kFits>>
GSDD_VEC inline V operator+(Vec<L, kFits> a, V b) {
  return map([](auto x, auto y) { return x + y; }, a, b);
}
GSDD_VEC inline V operator-(Vec<L, kFits> a, V b) {
  return map([](auto x, auto y) { return x - y; }, a, b);
}
GSDD_VEC inline V operator/(Vec<L, kFits> a, V b) {
  return map([](auto x, auto y) { return x / y; }, a, b);
}
GSDD_VEC inline V operator*(Vec<L, kFits> a, V b) {
  return map([](auto x, auto y) { return x * y; }, a, b);
}
// Fused on targets with FMA. Intrinsics, because automatic contraction is off: it would differ
// between instruction sets.
template <class Floats>
inline Floats fused(Floats x, Floats y, Floats z) {
#ifdef __FMA__
#ifdef __AVX512F__
  if constexpr (sizeof x == 64) return (Floats)_mm512_fmadd_ps((__m512)x, (__m512)y, (__m512)z);
#endif
  if constexpr (sizeof x == 32) return (Floats)_mm256_fmadd_ps((__m256)x, (__m256)y, (__m256)z);
#endif
  return x * y + z;
}
GSDD_VEC inline V fma(Vec<L, kFits> a, V b, V c) {
  return map([](auto x, auto y, auto z) { return fused(x, y, z); }, a, b, c);
}
GSDD_VEC inline V smaller(Vec<L, kFits> a, V b) {
  return map([](auto x, auto y) { return x < y ? x : y; }, a, b);
}
GSDD_VEC inline V larger(Vec<L, kFits> a, V b) {
  return map([](auto x, auto y) { return x > y ? x : y; }, a, b);
}
GSDD_VEC inline V if_less_equal(Vec<L, kFits> a, V b, V value) {  // else 0
  return map([](auto x, auto y, auto z) { return x <= y ? z : decltype(z){}; }, a, b, value);
}

template <class V>
struct Traits;
template <int L, bool kFits>
struct Traits<Vec<L, kFits>> {
  static constexpr int kLanes = L;
};
template <class V>
constexpr int kLanes = Traits<V>::kLanes;

template <class V>
inline V load(const float* p) {
  V a;
  std::memcpy(&a, p, sizeof a);
  return a;
}
template <class V>
inline void store(float* p, V a) {
  std::memcpy(p, &a, sizeof a);
}
template <class V>
inline V splat(float a) {
  if constexpr (kLanes<V> <= kRegister)
    return {a - typename V::Floats{}};  // not a + 0, which would lose the sign of -0
  else
    return {splat<decltype(V::low)>(a), splat<decltype(V::high)>(a)};
}
template <class V>
inline V lane_numbers() {
  alignas(64) static const float numbers[16] = {0, 1, 2,  3,  4,  5,  6,  7,
                                                8, 9, 10, 11, 12, 13, 14, 15};
  return load<V>(numbers);
}

inline float sum(Vec<4> a) { return (a.v[0] + a.v[2]) + (a.v[1] + a.v[3]); }
inline float sum(Narrow a) {
  Vec<4> half[2];
  std::memcpy(half, &a, sizeof a);
  return sum(half[0] + half[1]);
}

// Converts three registers of three-channel pixels to a register per channel and back, in two
// steps: lanes of the first two registers, then lanes of the third.
using Register = Vec<kRegister>;

#ifdef __clang__
#define GSDD_SHUFFLE(a, b, ...) {__builtin_shufflevector(a.v, b.v, __VA_ARGS__)}
#else
#define GSDD_SHUFFLE(a, b, ...) {__builtin_shuffle(a.v, b.v, Register::Ints{__VA_ARGS__})}
#endif

using AllLanes = std::make_integer_sequence<int, kRegister>;

template <int channel, int... lane>
inline Register part(Register a, Register b, Register c, std::integer_sequence<int, lane...>) {
  constexpr int L = kRegister;
  const Register two = GSDD_SHUFFLE(a, b, (3 * lane + channel < 2 * L ? 3 * lane + channel : 0)...);
  return GSDD_SHUFFLE(two, c, (3 * lane + channel < 2 * L ? lane : 3 * lane + channel - L)...);
}

template <int third, int... lane>
inline Register mix(Register a, Register b, Register c, std::integer_sequence<int, lane...>) {
  constexpr int L = kRegister, first = third * L;
  const Register two =
      GSDD_SHUFFLE(a, b, ((first + lane) % 3 == 1 ? L : 0) + (first + lane) / 3 ...);
  return GSDD_SHUFFLE(two, c, ((first + lane) % 3 == 2 ? L + (first + lane) / 3 : lane)...);
}

inline void deinterleave(Register* a, Register* b, Register* c) {
  const Register first = *a, second = *b, third = *c;
  *a = part<0>(first, second, third, AllLanes());
  *b = part<1>(first, second, third, AllLanes());
  *c = part<2>(first, second, third, AllLanes());
}

inline void interleave(Register* a, Register* b, Register* c) {
  const Register red = *a, green = *b, blue = *c;
  *a = mix<0>(red, green, blue, AllLanes());
  *b = mix<1>(red, green, blue, AllLanes());
  *c = mix<2>(red, green, blue, AllLanes());
}

// Returns 2^(f + n) for f in [-1/2, 1/2], given n + kRounder, by a degree-6 minimax polynomial. The
// error is 8e-8 for f + n in [-125, 127]; outside, the result is undefined.
template <class V>
inline V exp2(V f, V shifted_n) {
  V p = splat<V>(1.5353361813e-04f);
  p = fma(p, f, splat<V>(1.3398874445e-03f));
  p = fma(p, f, splat<V>(9.6184373583e-03f));
  p = fma(p, f, splat<V>(5.5503324710e-02f));
  p = fma(p, f, splat<V>(2.4022647914e-01f));
  p = fma(p, f, splat<V>(6.9314720286e-01f));
  p = fma(p, f, splat<V>(1.0f));
  return map(
      [](auto q, auto n) {
        typedef int32_t Ints __attribute__((vector_size(sizeof q)));
        return (decltype(q))((Ints)q + ((Ints)n << 23));
      },
      p, shifted_n);
}
template <class V>
inline V exp2(V x) {
  const V shifted = x + splat<V>(kRounder);
  return exp2(x - (shifted - splat<V>(kRounder)), shifted);
}

}  // namespace
