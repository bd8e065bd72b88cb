// Vectorised over the pixels of a row: each lane holds one pixel and its S x S sample points.
//
// Images are kept as C planes with padded rows while they are worked on, so that a Gaussian touches
// contiguous memory and a colour is multiplied once per pixel, not once per sample.
#include "cpu_kernel.h"

#include "simd.h"

#define GSDD_JOIN2(a, b) a##b
#define GSDD_JOIN(a, b) GSDD_JOIN2(a, b)

namespace gsdd {
namespace {

struct Planes {
  int64_t stride, size;  // floats a row, floats a plane
  explicit Planes(const Raster& raster)
      : stride((raster.width + 2 * kLanes - 1) / kLanes * kLanes),
        size(stride * raster.height) {}
};

// One row of sample points within a row of pixels, seen by one Gaussian.
struct SampleRow {
  float offset;    // (x of the first sample of pixel 0 - centre of the row) * scale
  float constant;  // the row's share of the exponent, base 2
  float dy;
};

// What the lanes need of one Gaussian: the exponent in base 2 is q = t^2 + constant, where t is
// scale * (px - centre of the row) and scale = sqrt(precision_x / 2 * log2 e).
template <int S>
struct Brush {
  Gaussian g;
  double scale;
  float step, subsample, cut;
  int runtime_samples;

  Brush(const Gaussian& gaussian, const Raster& raster)
      : g(gaussian),
        scale(std::sqrt(0.5 * kLog2E * gaussian.precision_x)),
        step((float)scale),
        subsample((float)(scale / raster.samples)),
        cut((float)(gaussian.cut * kLog2E)),
        runtime_samples(raster.samples) {}

  int samples() const { return S ? S : runtime_samples; }  // S = 0: known at run time only

  // Fills rows with the sample rows of pixel row i that the support reaches, their offsets relative
  // to the first pixel of the returned range; the range is empty if there is none.
  Range start_row(int64_t i, const Raster& raster, SampleRow* rows, int* count) const {
    const double inverse = 1.0 / samples();
    double low = 1e300, high = -1e300;
    *count = 0;
    double centres[kMaxSamples];
    for (int r = 0; r < samples(); ++r) {
      const double dy = (double)i + (r + 0.5) * inverse - g.y;
      const double marginal = 0.5 * g.precision_y * dy * dy;
      const double left = g.cut - marginal;
      if (left < 0.0) continue;
      const double half = std::sqrt(2.0 * left / g.precision_x);
      const double centre = g.x + g.slope * dy;
      if (centre - half < low) low = centre - half;
      if (centre + half > high) high = centre + half;
      centres[*count] = centre;
      rows[*count].constant = (float)(marginal * kLog2E);
      rows[*count].dy = (float)dy;
      ++*count;
    }
    const Range range = pixel_range(low, high, raster.width);
    for (int r = 0; r < *count; ++r)
      rows[r].offset = (float)(((double)range.first + 0.5 * inverse - centres[r]) * scale);
    return range;
  }

  static constexpr int kMaxSamples = S ? S : gsdd::kMaxSamples;
};

template <int S>
Range pixel_rows(const Brush<S>& brush, const Raster& raster) {
  return pixel_range(brush.g.y - brush.g.half_height, brush.g.y + brush.g.half_height,
                     raster.height);
}

template <int S, bool kClip>
void paint(const Brush<S>& brush, float opacity, const float* color, int channels,
           const Raster& raster, const Planes& planes, float* pixels) {
  const Vec cut = splat(brush.cut), alpha = splat(opacity), one = splat(1.0f);
  const Vec step = splat(brush.step);
  const Range rows = pixel_rows(brush, raster);
  for (int64_t i = rows.first; i <= rows.last; ++i) {
    SampleRow sample_rows[Brush<S>::kMaxSamples];
    int count;
    const Range columns = brush.start_row(i, raster, sample_rows, &count);
    for (int64_t j = columns.first; j <= columns.last; j += kLanes) {
      const Vec lane = lane_numbers() + splat((float)(j - columns.first));
      Vec weight = splat(0.0f);
      for (int r = 0; r < count; ++r) {
        const Vec constant = splat(sample_rows[r].constant);
        for (int s = 0; s < brush.samples(); ++s) {
          const Vec t = fma(lane, step, splat(sample_rows[r].offset + s * brush.subsample));
          const Vec q = fma(t, t, constant);
          const Vec e = exp2_minus(q);
          weight = weight + keep(less_equal(q, cut), kClip ? smaller(alpha * e, one) : e);
        }
      }
      if (!kClip) weight = weight * alpha;
      float* p = pixels + i * planes.stride + j;
      for (int c = 0; c < channels; ++c, p += planes.size)
        store(p, fma(weight, splat(color[c]), load(p)));
    }
  }
}

template <int S>
void forward(const Image& image, const Raster& raster, float* pixels, float* scratch) {
  const Planes planes(raster);
  const int channels = image.channels;
  std::memset(scratch, 0, sizeof(float) * planes.size * channels);
  bool valid = true;
  for (int64_t n = 0; n < image.count && valid; ++n) {
    const Inputs in = image.inputs(n);
    Gaussian g;
    const Kind kind = prepare(in, channels, raster, &g);
    valid = kind != Kind::kNotFinite;
    if (kind != Kind::kVisible) continue;
    const Brush<S> brush(g, raster);
    if (*in.opacity > 1.0f)
      paint<S, true>(brush, *in.opacity, in.color, channels, raster, planes, scratch);
    else
      paint<S, false>(brush, *in.opacity, in.color, channels, raster, planes, scratch);
  }
  const float share = valid ? 1.0f / (raster.samples * raster.samples) : NAN;
  for (int64_t i = 0; i < raster.height; ++i)
    for (int64_t j = 0; j < raster.width; ++j)
      for (int c = 0; c < channels; ++c)
        *pixels++ = share * scratch[c * planes.size + i * planes.stride + j];
}

template <int S, bool kClip, int kChannels>
Moments gather(const Brush<S>& brush, float opacity, const float* color, const Raster& raster,
               const Planes& planes, const float* d_pixels) {
  const Vec cut = splat(brush.cut), alpha = splat(opacity), one = splat(1.0f);
  const Vec zero = splat(0.0f), step = splat(brush.step);
  Vec m_0 = zero, m_t = zero, m_y = zero, m_tt = zero, m_ty = zero, m_yy = zero;
  Vec m_color[kChannels];
  for (int c = 0; c < kChannels; ++c) m_color[c] = zero;
  const Range rows = pixel_rows(brush, raster);
  for (int64_t i = rows.first; i <= rows.last; ++i) {
    SampleRow sample_rows[Brush<S>::kMaxSamples];
    int count;
    const Range columns = brush.start_row(i, raster, sample_rows, &count);
    for (int64_t j = columns.first; j <= columns.last; j += kLanes) {
      const Vec lane = lane_numbers() + splat((float)(j - columns.first));
      const float* p = d_pixels + i * planes.stride + j;
      Vec d_color[kChannels], g = zero, weight = zero;
      for (int c = 0; c < kChannels; ++c) {
        d_color[c] = load(p + c * planes.size);
        g = fma(d_color[c], splat(color[c]), g);
      }
      for (int r = 0; r < count; ++r) {
        const Vec constant = splat(sample_rows[r].constant);
        Vec h_0 = zero, h_t = zero, h_tt = zero;
        for (int s = 0; s < brush.samples(); ++s) {
          const Vec t = fma(lane, step, splat(sample_rows[r].offset + s * brush.subsample));
          const Vec q = fma(t, t, constant);
          Vec e = keep(less_equal(q, cut), exp2_minus(q));
          if (kClip) {
            weight = weight + smaller(alpha * e, one);
            e = keep(less_equal(alpha * e, one), e);
          }
          const Vec et = e * t;
          h_0 = h_0 + e;
          h_t = h_t + et;
          h_tt = fma(et, t, h_tt);
        }
        if (!kClip) weight = weight + h_0;
        const Vec dy = splat(sample_rows[r].dy);
        const Vec p_0 = g * h_0, p_t = g * h_t, p_y = p_0 * dy;
        m_0 = m_0 + p_0;
        m_t = m_t + p_t;
        m_y = m_y + p_y;
        m_tt = fma(g, h_tt, m_tt);
        m_ty = fma(p_t, dy, m_ty);
        m_yy = fma(p_y, dy, m_yy);
      }
      for (int c = 0; c < kChannels; ++c) m_color[c] = fma(weight, d_color[c], m_color[c]);
    }
  }
  Moments m;
  const double unit = 1.0 / brush.scale, a = opacity;
  m.e = sum(m_0);
  m.x = a * unit * sum(m_t);
  m.y = a * sum(m_y);
  m.xx = a * unit * unit * sum(m_tt);
  m.xy = a * unit * sum(m_ty);
  m.yy = a * sum(m_yy);
  for (int c = 0; c < kChannels; ++c) m.color[c] = (kClip ? 1.0 : a) * sum(m_color[c]);
  return m;
}

template <int S, int kChannels>
void backward(const Image& image, const Raster& raster, const float* d_pixels,
              const Gradient& gradient, float* scratch) {
  const Planes planes(raster);
  const float share = 1.0f / (raster.samples * raster.samples);
  for (int64_t i = 0; i < raster.height; ++i)
    for (int64_t j = 0; j < planes.stride; ++j)
      for (int c = 0; c < kChannels; ++c)
        scratch[c * planes.size + i * planes.stride + j] =
            j < raster.width ? share * d_pixels[(i * raster.width + j) * kChannels + c] : 0.0f;
  for (int64_t n = 0; n < image.count; ++n) {
    const Inputs in = image.inputs(n);
    const Outputs out = gradient.outputs(n);
    Gaussian g;
    const Kind kind = prepare(in, kChannels, raster, &g);
    if (kind != Kind::kVisible) {
      write_constant(out, kChannels, kind == Kind::kNotFinite ? NAN : 0.0f);
      continue;
    }
    const Brush<S> brush(g, raster);
    const Moments m =
        *in.opacity > 1.0f
            ? gather<S, true, kChannels>(brush, *in.opacity, in.color, raster, planes, scratch)
            : gather<S, false, kChannels>(brush, *in.opacity, in.color, raster, planes, scratch);
    pull_back(in, g, m, kChannels, raster, out);
  }
}

void dispatch_forward(const Image& image, const Raster& raster, float* pixels, float* scratch) {
  switch (raster.samples) {
    case 1: return forward<1>(image, raster, pixels, scratch);
    case 2: return forward<2>(image, raster, pixels, scratch);
    default: return forward<0>(image, raster, pixels, scratch);
  }
}

template <int S>
void backward_channels(const Image& image, const Raster& raster, const float* d_pixels,
                       const Gradient& gradient, float* scratch) {
  switch (image.channels) {
    case 1: return backward<S, 1>(image, raster, d_pixels, gradient, scratch);
    case 2: return backward<S, 2>(image, raster, d_pixels, gradient, scratch);
    case 3: return backward<S, 3>(image, raster, d_pixels, gradient, scratch);
    default: return backward<S, 4>(image, raster, d_pixels, gradient, scratch);
  }
}

void dispatch_backward(const Image& image, const Raster& raster, const float* d_pixels,
                       const Gradient& gradient, float* scratch) {
  switch (raster.samples) {
    case 1: return backward_channels<1>(image, raster, d_pixels, gradient, scratch);
    case 2: return backward_channels<2>(image, raster, d_pixels, gradient, scratch);
    default: return backward_channels<0>(image, raster, d_pixels, gradient, scratch);
  }
}

size_t scratch_size(const Raster& raster, int channels) {
  return (size_t)Planes(raster).size * channels;
}

}  // namespace

#define GSDD_NAME2(isa) #isa
#define GSDD_NAME(isa) GSDD_NAME2(isa)
const CpuKernel GSDD_JOIN(kCpu, GSDD_ISA){GSDD_NAME(GSDD_ISA), scratch_size, dispatch_forward,
                                          dispatch_backward};

}  // namespace gsdd
