// Forward: a block of 16 x 16 threads per tile of pixels, Gaussians staged in shared memory.
// Backward: a warp per Gaussian over its own support, summed by shuffles in a fixed order; no
// atomics anywhere, so every run gives the same bits.
#include "cuda_kernel.h"

namespace gsdd {
namespace {

constexpr int kTile = 16;
constexpr int kStage = 128;  // Gaussians in shared memory at a time
constexpr int kWarp = 32;
constexpr int kWarpsPerBlock = 4;
constexpr int64_t kMaxBlocks = 2147483647;

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

template <int C>
struct Staged {
  double x, y, slope, scale;  // scale = sqrt(precision_x / 2 * log2 e)
  float rate, cut, opacity;   // exponent base 2: q = t^2 + rate * dy^2 <= cut
  float color[C];
  int left, right, top, bottom;  // pixels of the bounding box
};

template <int C>
__device__ void stage(const Gaussian& g, const Inputs& in, const Raster& raster, Staged<C>* out) {
  out->x = g.x;
  out->y = g.y;
  out->slope = g.slope;
  out->scale = sqrt(0.5 * kLog2E * g.precision_x);
  out->rate = (float)(0.5 * kLog2E * g.precision_y);
  out->cut = (float)(kLog2E * g.cut);
  out->opacity = *in.opacity;
  for (int c = 0; c < C; ++c) out->color[c] = in.color[c];
  const Range columns = pixel_range(g.x - g.half_width, g.x + g.half_width, raster.width);
  const Range rows = pixel_range(g.y - g.half_height, g.y + g.half_height, raster.height);
  out->left = (int)columns.first;
  out->right = (int)columns.last;
  out->top = (int)rows.first;
  out->bottom = (int)rows.last;
}

// Calls visit(t, dy, weight before clipping / opacity) for every sample of pixel (i, j) in the
// support. The sample's offset is taken in double precision: it is where the digits are.
template <int C, class Visit>
__device__ void for_samples(const Staged<C>& g, int i, int j, int samples, const Visit& visit) {
  const double inverse = 1.0 / samples;
  const float step = (float)(g.scale * inverse);
  for (int r = 0; r < samples; ++r) {
    const double dy = i + (r + 0.5) * inverse - g.y;
    const float offset = (float)((j + 0.5 * inverse - g.x - g.slope * dy) * g.scale);
    const float marginal = g.rate * (float)dy * (float)dy;
    for (int s = 0; s < samples; ++s) {
      const float t = fmaf((float)s, step, offset);
      const float q = fmaf(t, t, marginal);
      if (q <= g.cut) visit(t, (float)dy, exp2f(-q));
    }
  }
}

template <int C>
__global__ void __launch_bounds__(kTile* kTile, 2)
    forward_kernel(Batch batch, float* images, int64_t tiles_x, int64_t tiles) {
  __shared__ Staged<C> staged[kStage];
  const Raster& raster = batch.raster;
  const int thread = threadIdx.y * kTile + threadIdx.x;
  for (int64_t block = blockIdx.x; block < tiles * batch.batch; block += gridDim.x) {
    const int64_t b = block / tiles, tile = block % tiles;
    const int top = (int)(tile / tiles_x) * kTile, left = (int)(tile % tiles_x) * kTile;
    const int i = top + threadIdx.y, j = left + threadIdx.x;
    float sum[C] = {};
    const Owned mine = owned(batch, b);
    int not_finite = !mine.valid;
    for (int64_t first = 0; first < mine.count; first += kStage) {
      const int count = (int)min((int64_t)kStage, mine.count - first);
      int mine_not_finite = 0;
      if (thread < count) {
        const Inputs in = inputs(batch, C, mine.first + first + thread);
        Gaussian g;
        const Kind kind = prepare(in, C, raster, &g);
        mine_not_finite = kind == Kind::kNotFinite;
        staged[thread].right = -1;  // an empty box
        staged[thread].left = 0;
        if (kind == Kind::kVisible) stage<C>(g, in, raster, &staged[thread]);
      }
      not_finite |= __syncthreads_or(mine_not_finite);
      for (int n = 0; n < count; ++n) {
        const Staged<C>& g = staged[n];
        if (j < g.left || j > g.right || i < g.top || i > g.bottom) continue;
        float weight = 0.0f;
        for_samples<C>(g, i, j, raster.samples,
                       [&](float, float, float e) { weight += fminf(g.opacity * e, 1.0f); });
        for (int c = 0; c < C; ++c) sum[c] = fmaf(weight, g.color[c], sum[c]);
      }
      __syncthreads();
    }
    if (i < raster.height && j < raster.width) {
      const float share = not_finite ? NAN : 1.0f / (raster.samples * raster.samples);
      float* pixel = images + ((b * raster.height + i) * raster.width + j) * C;
      for (int c = 0; c < C; ++c) pixel[c] = share * sum[c];
    }
  }
}

__device__ float warp_sum(float value) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2)
    value += __shfl_xor_sync(0xffffffffu, value, distance);
  return value;
}

template <int C>
__global__ void __launch_bounds__(kWarp* kWarpsPerBlock)
    backward_kernel(Batch batch, int64_t total, const float* d_images, BatchGradient gradient) {
  const Raster& raster = batch.raster;
  const int lane = threadIdx.x % kWarp;
  const float share = 1.0f / (raster.samples * raster.samples);
  const int64_t warps = (int64_t)gridDim.x * kWarpsPerBlock;
  for (int64_t index = (int64_t)blockIdx.x * kWarpsPerBlock + threadIdx.x / kWarp; index < total;
       index += warps) {
    const Inputs in = inputs(batch, C, index);
    const Outputs out = {gradient.means + 2 * index, gradient.cholesky + 3 * index,
                         gradient.colors + C * index, gradient.opacities + index};
    const int64_t b = owner(batch, index);
    Gaussian g;
    const Kind kind = b < 0 ? Kind::kEmpty : prepare(in, C, raster, &g);
    if (kind != Kind::kVisible) {  // the same for the whole warp
      if (lane == 0) write_constant(out, C, kind == Kind::kNotFinite ? NAN : 0.0f);
      continue;
    }
    Staged<C> staged;
    stage<C>(g, in, raster, &staged);
    const int width = staged.right - staged.left + 1, height = staged.bottom - staged.top + 1;
    const float* image = d_images + b * raster.height * raster.width * C;
    float m_0 = 0, m_t = 0, m_y = 0, m_tt = 0, m_ty = 0, m_yy = 0, m_color[C] = {};
    const int64_t pixels = width > 0 && height > 0 ? (int64_t)width * height : 0;
    for (int64_t p = lane; p < pixels; p += kWarp) {
      const int i = staged.top + (int)(p / width), j = staged.left + (int)(p % width);
      float d_color[C], g_dot = 0, weight = 0;
      for (int c = 0; c < C; ++c) {
        d_color[c] = share * image[((int64_t)i * raster.width + j) * C + c];
        g_dot = fmaf(d_color[c], staged.color[c], g_dot);
      }
      for_samples<C>(staged, i, j, raster.samples, [&](float t, float dy, float e) {
        const float w = staged.opacity * e;
        weight += fminf(w, 1.0f);
        if (w > 1.0f) return;
        const float h = g_dot * e, ht = h * t, hy = h * dy;
        m_0 += h;
        m_t += ht;
        m_y += hy;
        m_tt = fmaf(ht, t, m_tt);
        m_ty = fmaf(ht, dy, m_ty);
        m_yy = fmaf(hy, dy, m_yy);
      });
      for (int c = 0; c < C; ++c) m_color[c] = fmaf(weight, d_color[c], m_color[c]);
    }
    const double a = staged.opacity, unit = 1.0 / staged.scale;
    Moments m;
    m.e = warp_sum(m_0);
    m.x = a * unit * warp_sum(m_t);
    m.y = a * warp_sum(m_y);
    m.xx = a * unit * unit * warp_sum(m_tt);
    m.xy = a * unit * warp_sum(m_ty);
    m.yy = a * warp_sum(m_yy);
    for (int c = 0; c < C; ++c) m.color[c] = warp_sum(m_color[c]);
    if (lane == 0) {
      const Covariance s =
          covariance(in.cholesky[0], in.cholesky[1], in.cholesky[2], raster.variance);
      const ParameterGradient d = pull_back(g, s, m, raster);
      for (int k = 0; k < 2; ++k) out.mean[k] = (float)d.mean[k];
      for (int k = 0; k < 3; ++k) out.cholesky[k] = (float)d.cholesky[k];
      for (int c = 0; c < C; ++c) out.color[c] = (float)m.color[c];
      *out.opacity = (float)m.e;
    }
  }
}

template <int C>
cudaError_t forward(const Batch& batch, float* images, cudaStream_t stream) {
  const int64_t tiles_x = (batch.raster.width + kTile - 1) / kTile;
  const int64_t tiles = tiles_x * ((batch.raster.height + kTile - 1) / kTile);
  const int64_t blocks = tiles * batch.batch;
  if (blocks == 0) return cudaSuccess;
  forward_kernel<C>
      <<<(unsigned)(blocks < kMaxBlocks ? blocks : kMaxBlocks), dim3(kTile, kTile), 0, stream>>>(
          batch, images, tiles_x, tiles);
  return cudaGetLastError();
}

template <int C>
cudaError_t backward(const Batch& batch, const float* d_images, const BatchGradient& gradient,
                     cudaStream_t stream) {
  const int64_t blocks = (batch.total() + kWarpsPerBlock - 1) / kWarpsPerBlock;
  if (blocks == 0) return cudaSuccess;
  backward_kernel<C>
      <<<(unsigned)(blocks < kMaxBlocks ? blocks : kMaxBlocks), kWarp * kWarpsPerBlock, 0,
         stream>>>(batch, batch.total(), d_images, gradient);
  return cudaGetLastError();
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
