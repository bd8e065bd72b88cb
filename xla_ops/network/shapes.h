// Checks the buffers of norm_pool's calls on every platform, and defines their signatures.
#pragma once

#include <string>

#include "xla/ffi/api/ffi.h"

namespace gsdd {

namespace ffi = xla::ffi;

struct NormPoolCall {
  int64_t images, height, width, channels;
  int64_t images_per_row;  // that share a row of scale and shift
  bool narrow;             // bfloat16 images
};

inline ffi::Error invalid_norm_pool(const char* what) {
  return ffi::Error::InvalidArgument(std::string("gsdd norm_pool: ") + what);
}

// Checks x [..., B, H, W, C] and scale [..., C] for memory safety; Python has checked them too.
inline ffi::Error check_norm_pool(const ffi::AnyBuffer& x, const ffi::AnyBuffer& scale,
                                  NormPoolCall* call) {
  const auto dims = x.dimensions();
  if (dims.size() < 4) return invalid_norm_pool("images must be [..., B, H, W, C]");
  const size_t n = dims.size();
  call->height = dims[n - 3];
  call->width = dims[n - 2];
  call->channels = dims[n - 1];
  if (call->height < 2 || call->width < 2 || call->height % 2 || call->width % 2)
    return invalid_norm_pool("sides must be even and at least 2");
  if (call->channels < 1) return invalid_norm_pool("no channels");
  call->images = (int64_t)x.element_count() / (call->height * call->width * call->channels);
  const int64_t rows = (int64_t)scale.element_count() / call->channels;
  if (rows < 1 || (int64_t)scale.element_count() != rows * call->channels || call->images % rows)
    return invalid_norm_pool("scale must be [..., C]");
  call->images_per_row = call->images / rows;
  call->narrow = x.element_type() == ffi::BF16;
  if (!call->narrow && x.element_type() != ffi::F32)
    return invalid_norm_pool("images must be float32 or bfloat16");
  return ffi::Error::Success();
}

// Whether a buffer has the type and size of the images (pooled: a quarter of the pixels), of
// float32 statistics per image and channel, or of scale.
inline bool like_images(const NormPoolCall& call, const ffi::AnyBuffer& b, bool pooled) {
  const int64_t numbers = call.images * call.height * call.width * call.channels;
  return b.element_type() == (call.narrow ? ffi::BF16 : ffi::F32) &&
         (int64_t)b.element_count() == (pooled ? numbers / 4 : numbers);
}
inline bool like_statistics(const NormPoolCall& call, const ffi::AnyBuffer& b) {
  return b.element_type() == ffi::F32 && (int64_t)b.element_count() == call.images * call.channels;
}
inline bool like_scale(const NormPoolCall& call, const ffi::AnyBuffer& b) {
  return b.element_type() == ffi::F32 && call.images_per_row > 0 &&
         (int64_t)b.element_count() == call.images / call.images_per_row * call.channels;
}

inline ffi::Error check_norm_pool_forward(const ffi::AnyBuffer& x, const ffi::AnyBuffer& scale,
                                          const ffi::AnyBuffer& shift, const ffi::AnyBuffer& y,
                                          const ffi::AnyBuffer& mean, const ffi::AnyBuffer& rate,
                                          NormPoolCall* call) {
  const ffi::Error error = check_norm_pool(x, scale, call);
  if (error.failure()) return error;
  if (like_scale(*call, scale) && like_scale(*call, shift) && like_images(*call, y, true) &&
      like_statistics(*call, mean) && like_statistics(*call, rate))
    return ffi::Error::Success();
  return invalid_norm_pool("the arrays disagree");
}

inline ffi::Error check_norm_pool_gradient(const ffi::AnyBuffer& x, const ffi::AnyBuffer& scale,
                                           const ffi::AnyBuffer& shift, const ffi::AnyBuffer& mean,
                                           const ffi::AnyBuffer& rate, const ffi::AnyBuffer& g,
                                           const ffi::AnyBuffer& dx, const ffi::AnyBuffer& d_scale,
                                           const ffi::AnyBuffer& d_shift, NormPoolCall* call) {
  const ffi::Error error = check_norm_pool_forward(x, scale, shift, g, mean, rate, call);
  if (error.failure()) return error;
  if (like_images(*call, dx, false) && like_statistics(*call, d_scale) &&
      like_statistics(*call, d_shift))
    return ffi::Error::Success();
  return invalid_norm_pool("a gradient must have its argument's shape");
}

inline ffi::Error check_norm_pool_second(const ffi::AnyBuffer& x, const ffi::AnyBuffer& scale,
                                         const ffi::AnyBuffer& shift, const ffi::AnyBuffer& mean,
                                         const ffi::AnyBuffer& rate, const ffi::AnyBuffer& g,
                                         const ffi::AnyBuffer& a, const ffi::AnyBuffer& a_scale,
                                         const ffi::AnyBuffer& a_shift, const ffi::AnyBuffer& dx,
                                         const ffi::AnyBuffer& d_scale, const ffi::AnyBuffer& dg,
                                         NormPoolCall* call) {
  const ffi::Error error =
      check_norm_pool_gradient(x, scale, shift, mean, rate, g, a, a_scale, a_shift, call);
  if (error.failure()) return error;
  if (like_images(*call, dx, false) && like_statistics(*call, d_scale) &&
      like_images(*call, dg, true))
    return ffi::Error::Success();
  return invalid_norm_pool("a gradient must have its argument's shape");
}

// Signatures, appended to a binding with the platform's contexts.
#define GSDD_ARGS2(binding) binding.Arg<ffi::AnyBuffer>().Arg<ffi::AnyBuffer>()
#define GSDD_RETS2(binding) binding.Ret<ffi::AnyBuffer>().Ret<ffi::AnyBuffer>()
// x, scale, shift -> y, mean, rate
#define GSDD_NORM_POOL_FORWARD(binding)                   \
  GSDD_RETS2(GSDD_ARGS2((binding)).Arg<ffi::AnyBuffer>()) \
      .Ret<ffi::AnyBuffer>()                              \
      .Attr<float>("epsilon")
// x, scale, shift, mean, rate, g -> dx, d_scale, d_shift
#define GSDD_NORM_POOL_BACKWARD(binding) \
  GSDD_RETS2(GSDD_ARGS2(GSDD_ARGS2(GSDD_ARGS2((binding))))).Ret<ffi::AnyBuffer>()
// x, scale, shift, mean, rate, g, a, a_scale, a_shift -> dx, d_scale, dg
#define GSDD_NORM_POOL_SECOND(binding)                                                        \
  GSDD_RETS2(GSDD_ARGS2(GSDD_ARGS2(GSDD_ARGS2(GSDD_ARGS2((binding))))).Arg<ffi::AnyBuffer>()) \
      .Ret<ffi::AnyBuffer>()

}  // namespace gsdd
