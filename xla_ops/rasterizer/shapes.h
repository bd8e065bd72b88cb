// Checks the buffers of an FFI call on every platform, and describes its raster.
#pragma once

#include <cmath>
#include <string>

#include "rasterizer/gaussian.h"
#include "xla/ffi/api/ffi.h"

namespace gsdd {

namespace ffi = xla::ffi;
using Floats = ffi::Buffer<ffi::F32>;

using Offsets = ffi::Buffer<ffi::S32>;

struct Call {
  int64_t batch, count;  // B images of N Gaussians; ragged: B images, N Gaussians in all
  int channels;
  Raster raster;
};

// gsdd_jax/rasterizer/ checks the same limits. Pixel indices fit an int32 and sizes in bytes an
// int64.
constexpr int64_t kMaxSide = 1 << 16;
constexpr int64_t kMaxElements = int64_t{1} << 40;  // of all images

inline int64_t leading(ffi::Span<const int64_t> dims, size_t trailing) {
  int64_t product = 1;
  for (size_t i = 0; i + trailing < dims.size(); ++i) product *= dims[i];
  return product;
}

inline ffi::Error invalid(const char* what) {
  return ffi::Error::InvalidArgument(std::string("gsdd rasterizer: ") + what);
}

// Checks a call for memory safety; Python has checked the same with better messages. A ragged call
// has [N, ...] arrays and the offsets of its images.
inline ffi::Error check(const Offsets* offsets, const Floats& means, const Floats& cholesky,
                        const Floats& colors, const Floats& opacities,
                        ffi::Span<const int64_t> image_dims, int64_t samples_per_side,
                        bool prefilter, double min_weight, bool pass_clipped, Call* call) {
  const auto m = means.dimensions(), l = cholesky.dimensions(), c = colors.dimensions(),
             o = opacities.dimensions();
  if (m.size() < 2 || m.back() != 2) return invalid("means must be [..., N, 2]");
  if (l.size() < 2 || l.back() != 3) return invalid("cholesky must be [..., N, 3]");
  if (c.size() < 2 || c.back() < 1 || c.back() > kMaxChannels)
    return invalid("colors must be [..., N, C] with C from 1 to 4");
  if (o.size() < 1) return invalid("opacities must be [..., N]");
  if (image_dims.size() < 3 || image_dims.back() != c.back())
    return invalid("images must be [..., H, W, C]");
  call->batch = leading(o, 1);
  call->count = o.back();
  call->channels = (int)c.back();
  const auto same = [&](ffi::Span<const int64_t> dims) {
    return leading(dims, 2) == call->batch && dims[dims.size() - 2] == call->count;
  };
  if (!same(m) || !same(l) || !same(c))
    return invalid("the arguments disagree in their leading dimensions or in N");
  if (offsets) {
    if (offsets->element_count() < 1 || call->batch != 1)
      return invalid("offsets must be [B + 1], and the Gaussians' arrays have one leading axis");
    call->batch = (int64_t)offsets->element_count() - 1;
  }
  if (leading(image_dims, 3) != call->batch)
    return invalid("the images disagree with the arguments in their number");
  if (samples_per_side < 1 || samples_per_side > kMaxSamples)
    return invalid("samples_per_side must be from 1 to 16");
  if (!(min_weight >= 0.0 && min_weight < 1.0)) return invalid("min_weight must be in [0, 1)");
  call->raster.height = image_dims[image_dims.size() - 3];
  call->raster.width = image_dims[image_dims.size() - 2];
  if (call->raster.height < 1 || call->raster.width < 1) return invalid("empty image");
  if (call->raster.height > kMaxSide || call->raster.width > kMaxSide)
    return invalid("height and width must be at most 65536");
  const int64_t pixels = call->raster.height * call->raster.width * call->channels;
  if (call->batch > kMaxElements / pixels)
    return invalid("the images must have at most 2^40 elements in all");
  call->raster.samples = (int)samples_per_side;
  call->raster.variance = prefilter ? 1.0 / 12.0 : 0.0;
  call->raster.min_weight = min_weight;
  call->raster.log_min_weight = std::log(min_weight);
  call->raster.pass_clipped = pass_clipped;
  return ffi::Error::Success();
}

// Signatures of the calls, appended to a binding with the platform's contexts. Ragged calls take
// the offsets first. `room`: additional results of a platform.
#define GSDD_ATTRIBUTES              \
  .Attr<int64_t>("samples_per_side") \
      .Attr<bool>("prefilter")       \
      .Attr<double>("min_weight")    \
      .Attr<bool>("pass_clipped")
#define GSDD_FOUR(Kind) .Kind<Floats>().Kind<Floats>().Kind<Floats>().Kind<Floats>()
#define GSDD_FORWARD_SIGNATURE(binding, room) \
  (binding) GSDD_FOUR(Arg).Ret<Floats>() room GSDD_ATTRIBUTES
#define GSDD_BACKWARD_SIGNATURE(binding, room) \
  (binding) GSDD_FOUR(Arg).Arg<Floats>() GSDD_FOUR(Ret) room GSDD_ATTRIBUTES

inline ffi::Error check_gradients(const Floats& means, const Floats& cholesky, const Floats& colors,
                                  const Floats& opacities, const Floats& d_means,
                                  const Floats& d_cholesky, const Floats& d_colors,
                                  const Floats& d_opacities) {
  if (d_means.element_count() == means.element_count() &&
      d_cholesky.element_count() == cholesky.element_count() &&
      d_colors.element_count() == colors.element_count() &&
      d_opacities.element_count() == opacities.element_count())
    return ffi::Error::Success();
  return invalid("a gradient must have its argument's shape");
}

}  // namespace gsdd
