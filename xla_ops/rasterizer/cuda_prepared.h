// Prepared Gaussians, which the kernels read in place of the parameters. One thread prepares each
// Gaussian once, so that the loops over pixels need no double precision.
#pragma once

#include "common/cuda_launch.h"
#include "rasterizer/cuda_kernel.h"

namespace gsdd {
namespace {

constexpr int kStrip = 4;             // pixel rows of a thread
constexpr double kMaxSize = 32768.0;  // pixels

enum Path { kExact, kByStrips };

__device__ inline Inputs inputs(const Batch& batch, int channels, int64_t index) {
  return {batch.means + 2 * index, batch.cholesky + 3 * index, batch.colors + channels * index,
          batch.opacities + index};
}

struct Place {  // coordinate of a center, in two floats
  float grid, rest;

  __device__ static Place of(double value) {
    const float grid = rintf((float)value * 256.0f) / 256.0f;
    return {grid, (float)(value - (double)grid)};
  }
  // Returns value - this, rounded once: for quarter pixels up to 2^16 the first difference is
  // exact.
  __device__ float to(float value) const { return (value - grid) - rest; }
  __device__ double exact() const { return (double)grid + (double)rest; }
};

// Pixels of the support. A tile of at most 2^15 pixels per side touches no empty box.
struct alignas(8) Box {
  uint16_t left, right, top, bottom;

  __device__ static Box empty() { return {0xffff, 0, 0xffff, 0}; }
  __device__ static Box not_finite() { return {0xffff, 0, 0xffff, 1}; }
  __device__ bool is_finite() const { return !(top == 0xffff && bottom == 1); }
  __device__ bool is_empty() const { return left > right; }
  __device__ bool touches(int from_row, int from_column, int rows, int columns) const {
    return right >= from_column && left < from_column + columns && bottom >= from_row &&
           top < from_row + rows;
  }
};

struct alignas(16) Record {
  Place x, y;               // center
  float a, skew, w;         // weight = opacity 2^-(a X^2 - skew X Y + w Y^2)
  float lean, lean_rest;    // dX / dY of a row's center, in two floats
  float half_height, peak;  // Y of the support's last point and of its rightmost point
  float opacity;
  float rate, cut;  // exponent base 2: q = t^2 + rate * dy^2 <= cut
  float scale;      // t = scale * dx: sqrt(precision_x / 2 * log2 e)
  int path;
};
static_assert(sizeof(Box) == kBoxBytes && sizeof(Record) == kRecordBytes, "as callers allocate");

struct Prepared {  // of all Gaussians of a batch
  Box* boxes;
  Record* records;

  explicit Prepared(const Room& room) : boxes((Box*)room.boxes), records((Record*)room.records) {}
};

GSDD_FN bool suits_strips(const Gaussian& g, const Raster& raster, const Split& exponent) {
  return raster.samples == 2 && raster.min_weight > 0.0 && raster.width < kMaxSize &&
         raster.height < kMaxSize && fabs(g.x) < kMaxSize && fabs(g.y) < kMaxSize &&
         can_walk(g, exponent, kStrip) && can_split(g, exponent, kStrip + 1.5);
}

__device__ inline Box box_of(const Gaussian& g, const Raster& raster) {
  const Range columns = pixel_range(g.x - g.half_width, g.x + g.half_width, raster.width);
  const Range rows = pixel_range(g.y - g.half_height, g.y + g.half_height, raster.height);
  if (columns.last < columns.first || rows.last < rows.first) return Box::empty();
  return {(uint16_t)columns.first, (uint16_t)columns.last, (uint16_t)rows.first,
          (uint16_t)rows.last};
}

__device__ inline Record record_of(const Gaussian& g, float opacity, const Raster& raster) {
  const Split exponent = split(g);
  Record out;
  out.x = Place::of(g.x);
  out.y = Place::of(g.y);
  out.a = (float)exponent.a;
  out.skew = (float)exponent.skew;
  out.w = (float)exponent.w;
  out.lean = (float)g.slope;
  out.lean_rest = (float)(g.slope - (double)out.lean);
  out.half_height = (float)g.half_height;
  out.peak = (float)(g.half_width * g.covariance / g.var_x);
  out.opacity = opacity;
  out.rate = (float)(0.5 * kLog2E * g.precision_y);
  out.cut = (float)(kLog2E * g.cut);
  out.scale = (float)sqrt(0.5 * kLog2E * g.precision_x);
  out.path = suits_strips(g, raster, exponent) ? kByStrips : kExact;
  return out;
}

constexpr int kPrepareThreads = 128;

__global__ void __launch_bounds__(kPrepareThreads, 4)
    prepare_kernel(Batch batch, int channels, int64_t total, Prepared to) {
  const int64_t first = (int64_t)blockIdx.x * kPrepareThreads + threadIdx.x;
  for (int64_t index = first; index < total; index += (int64_t)gridDim.x * kPrepareThreads) {
    const Inputs in = inputs(batch, channels, index);
    Gaussian g;
    Box box = Box::empty();
    Record record = {};
    const Kind kind = prepare(in, channels, batch.raster, &g);
    if (kind == Kind::kNotFinite) box = Box::not_finite();
    if (kind == Kind::kVisible) {
      box = box_of(g, batch.raster);
      record = record_of(g, *in.opacity, batch.raster);
    }
    to.boxes[index] = box;
    to.records[index] = record;
  }
}

}  // namespace
}  // namespace gsdd
