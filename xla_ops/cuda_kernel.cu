// Forward: a block of threads per tile of pixels; each warp takes 8 x 16 of them, each thread a
// strip. Gaussians that touch the tile are found by their boxes in float, in order, and only those
// prepared and staged in shared memory, with a table of their rows.
// Backward: a warp per Gaussian over its own support, strip by strip, summed by shuffles in a fixed
// order; no atomics anywhere, so every run gives the same bits.
#include "cuda_kernel.h"
#include "cuda_launch.h"
#include "cuda_strip.h"

namespace gsdd {
namespace {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int kStage = 32;         // Gaussians in shared memory at a time
constexpr int kColumns = 8;        // of a warp's pixels
constexpr int kRows = 4 * kStrip;  // of a warp's pixels

__device__ Inputs inputs(const Batch& batch, int channels, int64_t index) {
  return {batch.means + 2 * index, batch.cholesky + 3 * index, batch.colors + channels * index,
          batch.opacities + index};
}

struct Owned {  // an image's Gaussians
  int64_t first, count;
  bool valid;  // offsets that decrease or leave the arrays give an image of NaN
};

__device__ Owned owned(const Batch& batch, int64_t b) {
  if (!batch.offsets) return {b * batch.count, batch.count, true};
  const int64_t first = batch.offsets[b], end = batch.offsets[b + 1];
  if (first < 0 || end < first || end > batch.count) return {0, 0, false};
  return {first, end - first, true};
}

// The image that owns a Gaussian, or -1.
__device__ int64_t owner(const Batch& batch, int64_t index) {
  if (!batch.offsets) return index / batch.count;
  int64_t low = 0, high = batch.batch;  // the last b with offsets[b] <= index is in [low - 1, high]
  while (low <= high) {
    const int64_t middle = (low + high) / 2;
    if (batch.offsets[middle] <= index)
      low = middle + 1;
    else
      high = middle - 1;
  }
  if (high < 0 || high >= batch.batch) return -1;
  const Owned mine = owned(batch, high);
  return mine.valid && index >= mine.first && index < mine.first + mine.count ? high : -1;
}

// Whether a finite Gaussian may touch a tile: its box in float, with a margin for that.
__device__ bool may_touch(const Inputs& in, const Raster& raster, int top, int left, int size) {
  if (!(*in.opacity >= raster.min_weight)) return false;
  const float variance = (float)raster.variance;
  const float l1 = in.cholesky[0] + 0.5f, l2 = in.cholesky[1], l3 = in.cholesky[2] + 0.5f;
  const float cut = fminf(logf(*in.opacity) - (float)raster.log_min_weight, 90.0f);
  const float twice = 2.0f * fmaxf(cut, 0.0f) + 1e-4f;
  const float x = 0.5f * (float)raster.width * (in.mean[0] + 1.0f) - (float)left;
  const float y = 0.5f * (float)raster.height * (in.mean[1] + 1.0f) - (float)top;
  const float wide = sqrtf(twice * (l1 * l1 + variance)) * 1.0001f + 0.1f;
  const float high = sqrtf(twice * (l2 * l2 + l3 * l3 + variance)) * 1.0001f + 0.1f;
  // Negated, so that an overflow touches.
  return !(x + wide < 0.0f || x - wide > (float)size || y + high < 0.0f || y - high > (float)size);
}

// A strip's part of the table.
struct StripRows {
  float4 gain[2], threshold[2];
  Columns columns;
  __device__ void set(int k, const SampleRow& row) {
    reinterpret_cast<float*>(gain)[k] = row.gain;
    reinterpret_cast<float*>(threshold)[k] = row.threshold;
  }
  __device__ float gain_of(int k) const { return reinterpret_cast<const float*>(gain)[k]; }
  __device__ float threshold_of(int k) const {
    return reinterpret_cast<const float*>(threshold)[k];
  }
};

// Adds a Gaussian to the strip of pixels from (i, j) down.
template <int C>
__device__ void paint(const Staged<C>& g, const StripRows& rows, int i, int j,
                      float (&sum)[kStrip][C]) {
  const bool inside = j >= rows.columns.first && j <= rows.columns.last;
  if (!__any_sync(kAllLanes, inside)) return;
  Walk walk(g, g.x.to((float)j + 0.25f), g.y.to((float)i + 0.25f), inside);
#pragma unroll
  for (int r = 0; r < kStrip; ++r) {
    float weight = 0.0f;
#pragma unroll
    for (int q = 0; q < 2; ++q) {
      const float threshold = rows.threshold_of(2 * r + q), cap = g.cap * threshold;
      float total = 0.0f;
#pragma unroll
      for (int s = 0; s < 2; ++s) {
        float& v = walk.v[q][s];
        if (v >= threshold) total += fminf(v, cap);
        v *= walk.down[s];
      }
      weight = fmaf(total, rows.gain_of(2 * r + q), weight);
    }
    for (int c = 0; c < C; ++c) sum[r][c] = fmaf(weight, g.color[c], sum[r][c]);
  }
}

template <int C>
__device__ void paint_exactly(const Staged<C>& g, int samples, int i, int j,
                              float (&sum)[kStrip][C]) {
  if (j < g.left || j > g.right) return;
#pragma unroll
  for (int r = 0; r < kStrip; ++r) {
    if (i + r < g.top || i + r > g.bottom) continue;
    float weight = 0.0f;
    for_samples<C>(g, i + r, j, samples,
                   [&](float, float, float e) { weight += fminf(g.opacity * e, 1.0f); });
    for (int c = 0; c < C; ++c) sum[r][c] = fmaf(weight, g.color[c], sum[r][c]);
  }
}

template <int C, int kTile>
__global__ void __launch_bounds__(kTile* kTile / kStrip, kTile == 16 ? 6 : 2)
    forward_kernel(Batch batch, float* images, int tiles_x, int tiles) {
  constexpr int kThreads = kTile * kTile / kStrip, kWarps = kThreads / kWarp;
  constexpr int kStrips = kTile / kStrip;
  __shared__ Staged<C> staged[kStage];
  __shared__ StripRows table[kStage][kStrips];
  __shared__ int survivors[kThreads], counts[kWarps];
  const Raster& raster = batch.raster;
  const int thread = threadIdx.x, warp = thread / kWarp, lane = thread % kWarp;
  for (int64_t block = blockIdx.x; block < tiles * batch.batch; block += gridDim.x) {
    const int64_t b = block / tiles;
    const int tile = (int)(block % tiles);
    const int top = tile / tiles_x * kTile, left = tile % tiles_x * kTile;
    const int warp_top = top + warp / (kTile / kColumns) * kRows;
    const int warp_left = left + warp % (kTile / kColumns) * kColumns;
    const int i = warp_top + lane / kColumns * kStrip, j = warp_left + lane % kColumns;
    float sum[kStrip][C] = {};
    const Owned mine = owned(batch, b);
    int not_finite = !mine.valid;
    for (int64_t first = 0; first < mine.count; first += kThreads) {
      bool touches = false, finite = true;
      if (first + thread < mine.count) {
        const Inputs in = inputs(batch, C, mine.first + first + thread);
        finite = all_finite(in, C);
        touches = finite && may_touch(in, raster, top, left, kTile);
      }
      // Those that may touch the tile, in order.
      const unsigned ballot = __ballot_sync(kAllLanes, touches);
      if (lane == 0) counts[warp] = __popc(ballot);
      not_finite |= __syncthreads_or(!finite);
      int found = 0, place = __popc(ballot & ((1u << lane) - 1u));
      for (int w = 0; w < kWarps; ++w) {
        if (w < warp) place += counts[w];
        found += counts[w];
      }
      if (touches) survivors[place] = thread;
      __syncthreads();

      for (int base = 0; base < found; base += kStage) {
        const int count = min(kStage, found - base);
        if (thread < count) {
          const Inputs in = inputs(batch, C, mine.first + first + survivors[base + thread]);
          Gaussian g;
          if (prepare(in, C, raster, &g) == Kind::kVisible)
            stage<C>(g, in, raster, &staged[thread]);
          else
            staged[thread].path = kNone;
        }
        __syncthreads();
        for (int t = thread; t < count * kStrips; t += kThreads) {
          const Staged<C>& g = staged[t / kStrips];
          const int strip = t % kStrips;
          if (g.path != kByStrips) continue;
          StripRows rows;
          for (int k = 0; k < 2 * kStrip; ++k)
            rows.set(k, sample_row(g, 2 * (top + kStrip * strip) + k));
          rows.columns = columns_of(g, top + kStrip * strip);
          table[t / kStrips][strip] = rows;
        }
        __syncthreads();
        for (int n = 0; n < count; ++n) {
          const Staged<C>& g = staged[n];
          if (g.path == kNone || g.right < warp_left || g.left >= warp_left + kColumns ||
              g.bottom < warp_top || g.top >= warp_top + kRows)
            continue;  // the same for the whole warp
          if (g.path == kByStrips)
            paint<C>(g, table[n][(i - top) / kStrip], i, j, sum);
          else
            paint_exactly<C>(g, raster.samples, i, j, sum);
        }
        __syncthreads();
      }
    }
    const float share = not_finite ? NAN : 1.0f / (raster.samples * raster.samples);
#pragma unroll
    for (int r = 0; r < kStrip; ++r) {
      if (i + r >= raster.height || j >= raster.width) continue;
      float* pixel = images + ((b * raster.height + i + r) * raster.width + j) * C;
      for (int c = 0; c < C; ++c) pixel[c] = share * sum[r][c];
    }
  }
}

__device__ float warp_sum(float value) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2)
    value += __shfl_xor_sync(kAllLanes, value, distance);
  return value;
}

// Sums over a Gaussian's samples: h times 1, X, Y, X^2, X Y, Y^2 (of kExact: with dx for X, as in
// Moments), and by colour.
template <int C>
struct Gathered {
  float moment[6], color[C];
};

template <int C>
__device__ Gathered<C> gather(const Staged<C>& g, const float* image, int64_t width, float share,
                              bool pass, int lane, StripRows* table) {
  Gathered<C> sums = {};
  for (int top = g.top; top <= g.bottom; top += kRows) {
    table[lane / (2 * kStrip)].set(lane % (2 * kStrip), sample_row(g, 2 * top + lane));
    if (lane < kRows / kStrip) table[lane].columns = columns_of(g, top + lane * kStrip);
    __syncwarp();
    // The strips' columns, one after the other.
    int end[kRows / kStrip], tasks = 0;
    for (int strip = 0; strip < kRows / kStrip; ++strip) {
      tasks += max(0, table[strip].columns.last + 1 - table[strip].columns.first);
      end[strip] = tasks;
    }
    for (int task = lane; task < tasks; task += kWarp) {
      int strip = 0, skipped = 0;
      for (int before = 0; before + 1 < kRows / kStrip; ++before) {
        if (task < end[before]) continue;
        strip = before + 1;
        skipped = end[before];
      }
      const int i = top + strip * kStrip, j = table[strip].columns.first + task - skipped;
      const StripRows rows = table[strip];
      const float x = g.x.to((float)j + 0.25f), y_top = g.y.to((float)i + 0.25f);
      Walk walk(g, x, y_top, true);
      const float* pixel = image + (i * width + j) * C;
      float m = 0, m_y = 0, m_yy = 0, second = 0, second_y = 0;
#pragma unroll
      for (int r = 0; r < kStrip; ++r) {
        float d_color[C] = {}, dot = 0.0f, weight = 0.0f;
        if (i + r <= g.bottom)
          for (int c = 0; c < C; ++c) d_color[c] = share * pixel[r * width * C + c];
        for (int c = 0; c < C; ++c) dot = fmaf(d_color[c], g.color[c], dot);
#pragma unroll
        for (int q = 0; q < 2; ++q) {
          const float threshold = rows.threshold_of(2 * r + q), cap = g.cap * threshold;
          const float gain = rows.gain_of(2 * r + q), y = y_top + ((float)r + 0.5f * (float)q);
          float clipped = 0.0f, e[2];
#pragma unroll
          for (int s = 0; s < 2; ++s) {
            float& v = walk.v[q][s];
            const bool seen = v >= threshold;
            if (seen) clipped += fminf(v, cap);
            e[s] = seen && (pass || v <= cap) ? v : 0.0f;
            v *= walk.down[s];
          }
          weight = fmaf(clipped, gain, weight);
          const float h_gain = dot * gain, h = h_gain * (e[0] + e[1]), h_second = h_gain * e[1];
          m += h;
          m_y = fmaf(h, y, m_y);
          m_yy = fmaf(h * y, y, m_yy);
          second += h_second;
          second_y = fmaf(h_second, y, second_y);
        }
        for (int c = 0; c < C; ++c) sums.color[c] = fmaf(weight, d_color[c], sums.color[c]);
      }
      const float m_x = fmaf(x, m, 0.5f * second), second_x = fmaf(x, second, 0.5f * second);
      sums.moment[0] += m;
      sums.moment[1] += m_x;
      sums.moment[2] += m_y;
      sums.moment[3] += fmaf(x, m_x, 0.5f * second_x);
      sums.moment[4] += fmaf(x, m_y, 0.5f * second_y);
      sums.moment[5] += m_yy;
    }
    __syncwarp();
  }
  return sums;
}

template <int C>
__device__ Gathered<C> gather_exactly(const Staged<C>& g, const float* image, int64_t width,
                                      float share, bool pass, int samples, int lane) {
  Gathered<C> sums = {};
  const int columns = g.right - g.left + 1;
  const int64_t pixels = (int64_t)columns * (g.bottom - g.top + 1);
  const float a = g.opacity, unit = (float)(1.0 / g.scale);
  for (int64_t p = lane; p < pixels; p += kWarp) {
    const int i = g.top + (int)(p / columns), j = g.left + (int)(p % columns);
    float d_color[C], dot = 0.0f, weight = 0.0f;
    for (int c = 0; c < C; ++c) {
      d_color[c] = share * image[(i * width + j) * C + c];
      dot = fmaf(d_color[c], g.color[c], dot);
    }
    for_samples<C>(g, i, j, samples, [&](float t, float dy, float e) {
      const float w = a * e;
      weight += fminf(w, 1.0f);
      if (w > 1.0f && !pass) return;
      const float h = dot * w, x = t * unit, hx = h * x, hy = h * dy;
      sums.moment[0] += h;
      sums.moment[1] += hx;
      sums.moment[2] += hy;
      sums.moment[3] = fmaf(hx, x, sums.moment[3]);
      sums.moment[4] = fmaf(hx, dy, sums.moment[4]);
      sums.moment[5] = fmaf(hy, dy, sums.moment[5]);
    });
    for (int c = 0; c < C; ++c) sums.color[c] = fmaf(weight, d_color[c], sums.color[c]);
  }
  return sums;
}

constexpr int kGatherWarps = 8;

// A block takes `group` Gaussians: a thread prepares each, the warps gather them in turn, and a
// thread takes each back to its parameters.
template <int C>
__global__ void __launch_bounds__(kWarp* kGatherWarps)
    backward_kernel(Batch batch, int64_t total, int group, const float* d_images,
                    BatchGradient gradient) {
  __shared__ Staged<C> staged[kStage];
  __shared__ Gathered<C> gathered[kStage];
  __shared__ int64_t image[kStage];  // that owns each
  __shared__ StripRows table[kGatherWarps][kRows / kStrip];
  const Raster& raster = batch.raster;
  const int thread = threadIdx.x, warp = thread / kWarp, lane = thread % kWarp;
  const float share = 1.0f / (raster.samples * raster.samples);
  const bool pass = raster.pass_clipped;
  for (int64_t base = (int64_t)blockIdx.x * group; base < total;
       base += (int64_t)gridDim.x * group) {
    const int count = (int)min((int64_t)group, total - base);
    Kind kind = Kind::kEmpty;
    if (thread < count) {
      const int64_t b = owner(batch, base + thread);
      const Inputs in = inputs(batch, C, base + thread);
      Gaussian g;
      if (b >= 0) kind = prepare(in, C, raster, &g);
      staged[thread].path = kNone;
      image[thread] = 0;
      if (kind == Kind::kVisible) {
        stage<C>(g, in, raster, &staged[thread]);
        image[thread] = b;
      }
    }
    __syncthreads();
    for (int n = warp; n < count; n += kGatherWarps) {
      const Staged<C>& g = staged[n];
      const float* d_image = d_images + image[n] * raster.height * raster.width * C;
      Gathered<C> sums = {};
      if (g.path == kByStrips)
        sums = gather<C>(g, d_image, raster.width, share, pass, lane, table[warp]);
      else if (g.path == kExact)
        sums = gather_exactly<C>(g, d_image, raster.width, share, pass, raster.samples, lane);
      for (int k = 0; k < 6; ++k) sums.moment[k] = warp_sum(sums.moment[k]);
      for (int c = 0; c < C; ++c) sums.color[c] = warp_sum(sums.color[c]);
      if (lane == 0) gathered[n] = sums;
    }
    __syncthreads();
    if (thread < count) {
      const int64_t index = base + thread;
      const Outputs out = {gradient.means + 2 * index, gradient.cholesky + 3 * index,
                           gradient.colors + C * index, gradient.opacities + index};
      if (kind != Kind::kVisible) {
        write_constant(out, C, kind == Kind::kNotFinite ? NAN : 0.0f);
      } else {
        const Inputs in = inputs(batch, C, index);
        const Covariance s =
            covariance(in.cholesky[0], in.cholesky[1], in.cholesky[2], raster.variance);
        const Gaussian g = describe(in.mean[0], in.mean[1], s, 0.0, raster);
        double sums[6];
        for (int k = 0; k < 6; ++k) sums[k] = gathered[thread].moment[k];
        const double slope = staged[thread].path == kByStrips ? g.slope : 0.0;
        const ParameterGradient d = pull_back(g, s, sheared(sums, slope, *in.opacity), raster);
        for (int k = 0; k < 2; ++k) out.mean[k] = (float)d.mean[k];
        for (int k = 0; k < 3; ++k) out.cholesky[k] = (float)d.cholesky[k];
        for (int c = 0; c < C; ++c) out.color[c] = gathered[thread].color[c];
        *out.opacity = (float)(sums[0] / *in.opacity);
      }
    }  // no barrier: until the next one a thread touches only what is its own
  }
}

// Tiles of a whole small image, or smaller ones where there would be too few blocks.
constexpr int64_t kFewBlocks = 512;

template <int C, int kTile>
cudaError_t forward(const Batch& batch, float* images, cudaStream_t stream) {
  const int64_t tiles_x = (batch.raster.width + kTile - 1) / kTile;
  const int64_t tiles = tiles_x * ((batch.raster.height + kTile - 1) / kTile);
  return launch(forward_kernel<C, kTile>, tiles * batch.batch, kTile * kTile / kStrip, stream,
                batch, images, (int)tiles_x, (int)tiles);
}

template <int C>
cudaError_t forward(const Batch& batch, float* images, cudaStream_t stream) {
  const int64_t large = ((batch.raster.width + 31) / 32) * ((batch.raster.height + 31) / 32);
  if (large * batch.batch < kFewBlocks) return forward<C, 16>(batch, images, stream);
  return forward<C, 32>(batch, images, stream);
}

template <int C>
cudaError_t backward(const Batch& batch, const float* d_images, const BatchGradient& gradient,
                     cudaStream_t stream) {
  const int64_t total = batch.total();
  const int group = total < kStage * kFewBlocks ? kGatherWarps : kStage;
  return launch(backward_kernel<C>, (total + group - 1) / group, kWarp * kGatherWarps, stream,
                batch, total, group, d_images, gradient);
}

}  // namespace

cudaError_t launch_forward(const Batch& batch, int channels, float* images, cudaStream_t stream) {
  switch (channels) {
    case 1: return forward<1>(batch, images, stream);
    case 2: return forward<2>(batch, images, stream);
    case 3: return forward<3>(batch, images, stream);
    default: return forward<4>(batch, images, stream);
  }
}

cudaError_t launch_backward(const Batch& batch, int channels, const float* d_images,
                            const BatchGradient& gradient, cudaStream_t stream) {
  switch (channels) {
    case 1: return backward<1>(batch, d_images, gradient, stream);
    case 2: return backward<2>(batch, d_images, gradient, stream);
    case 3: return backward<3>(batch, d_images, gradient, stream);
    default: return backward<4>(batch, d_images, gradient, stream);
  }
}

}  // namespace gsdd
