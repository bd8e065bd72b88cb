// Sixteen float32 lanes, in AVX-512, AVX2 or plain C++, whichever this file is compiled for.
//
// The logical width is 16 everywhere and sums are folded in one fixed order, so AVX-512 and AVX2
// give the same bits. Internal linkage throughout: one binary holds several of these.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

namespace {

constexpr int kLanes = 16;

#if defined(__AVX512F__)

struct Vec {
  __m512 v;
};
using Mask = __mmask16;

inline Vec splat(float a) { return {_mm512_set1_ps(a)}; }
inline Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline void store(float* p, Vec a) { _mm512_storeu_ps(p, a.v); }
inline Vec operator+(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Vec operator-(Vec a, Vec b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline Vec operator*(Vec a, Vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline Vec smaller(Vec a, Vec b) { return {_mm512_min_ps(a.v, b.v)}; }
inline Mask less_equal(Vec a, Vec b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_LE_OQ); }
inline Vec keep(Mask m, Vec a) { return {_mm512_maskz_mov_ps(m, a.v)}; }
inline Vec round_nearest(Vec a) {
  return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
inline Vec scale_by_power(Vec a, Vec n) {  // a * 2^n, n integral in [-126, 127]
  const __m512i exponent = _mm512_add_epi32(_mm512_cvtps_epi32(n.v), _mm512_set1_epi32(127));
  return {_mm512_mul_ps(a.v, _mm512_castsi512_ps(_mm512_slli_epi32(exponent, 23)))};
}
inline __m256 fold(Vec a) {
  const __m256 high =
      _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(a.v), 1));
  return _mm256_add_ps(_mm512_castps512_ps256(a.v), high);
}

#elif defined(__AVX2__)

struct Vec {
  __m256 lo, hi;
};
using Mask = Vec;

inline Vec splat(float a) { return {_mm256_set1_ps(a), _mm256_set1_ps(a)}; }
inline Vec load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline void store(float* p, Vec a) {
  _mm256_storeu_ps(p, a.lo);
  _mm256_storeu_ps(p + 8, a.hi);
}
inline Vec operator+(Vec a, Vec b) {
  return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)};
}
inline Vec operator-(Vec a, Vec b) {
  return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)};
}
inline Vec operator*(Vec a, Vec b) {
  return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
}
inline Vec fma(Vec a, Vec b, Vec c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
inline Vec smaller(Vec a, Vec b) {
  return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)};
}
inline Mask less_equal(Vec a, Vec b) {
  return {_mm256_cmp_ps(a.lo, b.lo, _CMP_LE_OQ), _mm256_cmp_ps(a.hi, b.hi, _CMP_LE_OQ)};
}
inline Vec keep(Mask m, Vec a) {
  return {_mm256_and_ps(m.lo, a.lo), _mm256_and_ps(m.hi, a.hi)};
}
inline Vec round_nearest(Vec a) {
  constexpr int mode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(a.lo, mode), _mm256_round_ps(a.hi, mode)};
}
inline __m256 power(__m256 n) {
  const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
  return _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23));
}
inline Vec scale_by_power(Vec a, Vec n) {
  return {_mm256_mul_ps(a.lo, power(n.lo)), _mm256_mul_ps(a.hi, power(n.hi))};
}
inline __m256 fold(Vec a) { return _mm256_add_ps(a.lo, a.hi); }

#else

struct Vec {
  float v[kLanes];
};
struct Mask {
  bool v[kLanes];
};

template <class F>
inline Vec each(F f) {
  Vec out;
  for (int i = 0; i < kLanes; ++i) out.v[i] = f(i);
  return out;
}
inline Vec splat(float a) {
  return each([=](int) { return a; });
}
inline Vec load(const float* p) {
  return each([=](int i) { return p[i]; });
}
inline void store(float* p, const Vec& a) { std::memcpy(p, a.v, sizeof a.v); }
inline Vec operator+(const Vec& a, const Vec& b) {
  return each([&](int i) { return a.v[i] + b.v[i]; });
}
inline Vec operator-(const Vec& a, const Vec& b) {
  return each([&](int i) { return a.v[i] - b.v[i]; });
}
inline Vec operator*(const Vec& a, const Vec& b) {
  return each([&](int i) { return a.v[i] * b.v[i]; });
}
inline Vec fma(const Vec& a, const Vec& b, const Vec& c) {  // fused where the target has it
  return each([&](int i) { return a.v[i] * b.v[i] + c.v[i]; });
}
inline Vec smaller(const Vec& a, const Vec& b) {
  return each([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
}
inline Mask less_equal(const Vec& a, const Vec& b) {
  Mask m;
  for (int i = 0; i < kLanes; ++i) m.v[i] = a.v[i] <= b.v[i];
  return m;
}
inline Vec keep(const Mask& m, const Vec& a) {
  return each([&](int i) { return m.v[i] ? a.v[i] : 0.0f; });
}
inline Vec round_nearest(const Vec& a) {  // |a| < 2^22: adding 1.5 * 2^23 drops the fraction
  return each([&](int i) { return (a.v[i] + 12582912.0f) - 12582912.0f; });
}
inline Vec scale_by_power(const Vec& a, const Vec& n) {
  return each([&](int i) {
    const int32_t bits = ((int32_t)n.v[i] + 127) << 23;
    float power;
    std::memcpy(&power, &bits, sizeof power);
    return a.v[i] * power;
  });
}

#endif

#if defined(__AVX512F__) || defined(__AVX2__)
inline float sum(Vec a) {
  const __m256 eight = fold(a);
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}
#else
inline float sum(const Vec& a) {
  Vec t = a;
  for (int half = kLanes / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) t.v[i] += t.v[i + half];
  return t.v[0];
}
#endif

inline Vec lane_numbers() {
  static const float numbers[kLanes] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return load(numbers);
}

// 2^-q for q in [0, 126], to 1 ulp: a degree-5 minimax polynomial on [-1/2, 1/2].
inline Vec exp2_minus(Vec q) {
  const Vec n = round_nearest(splat(0.0f) - q);
  const Vec f = (splat(0.0f) - q) - n;
  Vec p = splat(1.3264727247e-03f);
  p = fma(p, f, splat(9.6715126882e-03f));
  p = fma(p, f, splat(5.5507337436e-02f));
  p = fma(p, f, splat(2.4022242085e-01f));
  p = fma(p, f, splat(6.9314697760e-01f));
  p = fma(p, f, splat(1.0f));
  return scale_by_power(p, n);
}

}  // namespace
