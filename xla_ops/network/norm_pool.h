// Fused instance norm, ReLU and 2 x 2 average pooling, with its first two derivatives.
//
// For one image and channel, with N pixels, means <.> over pixels, r = 1 / sqrt(variance +
// epsilon):
//   h = r (x - <x>),  y = pool(max(scale h + shift, 0)).
// For a cotangent g of y, let u = g / 4 of the pixel's block if scale h + shift > 0, else 0. Then
//   d_shift = N <u>,  d_scale = N <u h>,  dx = r scale (u - <u> - h <u h>).
// For cotangents a of dx, a_scale of d_scale and a_shift of d_shift, let
//   t = <a u> - <a><u> - <a h><u h>,  e = r scale (-<a h> u - <u h> a) + a_scale u.
// Then the gradient is
//   of u: v = r scale (a - <a> - h <a h>) + a_scale h + a_shift,
//   of g: a quarter of the sum of v over its block's pixels with scale h + shift > 0,
//   of scale: N r t,  of x: r (e - <e> - h <e h>) - r^2 scale t h.
// (The derivative through the variance is exact: <h^2> is not approximated by 1.)
//
// This file has the formulas after the sums, for CPU registers and GPU floats (V). c = x - <x>.
#pragma once

#include "network/bfloat16.h"

namespace gsdd {

// dx = u r scale - (slope c + constant), from the sums of u and of u c over the pixels; `part` is
// 1 / N.
template <class V>
struct NormPoolGradient {
  V d_scale, constant, slope;

  GSDD_BOTH NormPoolGradient(V u_sum, V uc_sum, V rate, V factor, V part) {
    d_scale = uc_sum * rate;
    constant = factor * u_sum * part;
    slope = factor * rate * d_scale * part;
  }
};

// Sums over the pixels for the second derivative.
template <class V>
struct NormPoolSums {
  V u, uc, a, ac, au;
};

// dx = x_u u - (x_a a + x_slope c + x_constant), v = r scale a + v_slope c + v_constant.
template <class V>
struct NormPoolSecondGradient {
  V d_scale, x_u, x_a, x_slope, x_constant, v_slope, v_constant;

  GSDD_BOTH NormPoolSecondGradient(const NormPoolSums<V>& sums, V rate, V factor, V a_scale,
                                   V a_shift, V part, V pixels) {
    const V u0 = sums.u * part, u1 = sums.uc * part * rate;
    const V a0 = sums.a * part, a1 = sums.ac * part * rate;
    const V t = sums.au * part - a0 * u0 - a1 * u1;
    d_scale = pixels * rate * t;
    v_slope = rate * (a_scale - factor * a1);
    v_constant = a_shift - factor * a0;
    // e = e_u u - e_a a, and <e>, <e h>
    const V e_u = a_scale - factor * a1, e_a = factor * u1;
    const V e0 = e_u * u0 - e_a * a0, e1 = e_u * u1 - e_a * a1;
    x_u = rate * e_u;
    x_a = rate * e_a;
    x_constant = rate * e0;
    x_slope = rate * rate * (e1 + factor * t);
  }
};

}  // namespace gsdd
