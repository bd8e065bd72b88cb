// Custom calls of the networks on CUDA: check the buffers and launch on XLA's stream.
#include <limits>

#include "common/module.h"
#include "network/cuda_kernel.h"
#include "network/shapes.h"

namespace gsdd {
namespace {

using Any = ffi::AnyBuffer;
using Out = ffi::Result<ffi::AnyBuffer>;

ffi::Error status(cudaError_t error) {
  if (error == cudaSuccess) return ffi::Error::Success();
  return ffi::Error::Internal(std::string("gsdd norm_pool: ") + cudaGetErrorString(error));
}

float* floats(Any& b) { return static_cast<float*>(b.untyped_data()); }

ffi::Error make_batch(const NormPoolCall& call, Any& x, Any& scale, Any& shift, Any& mean,
                      Any& rate, float epsilon, NormPoolBatch* batch) {
  if (call.height * call.width * call.channels > std::numeric_limits<int>::max())
    return invalid_norm_pool("an image has too many numbers");
  *batch = {x.untyped_data(), floats(scale),      floats(shift),       floats(mean),
            floats(rate),     call.images,        call.images_per_row, (int)call.height,
            (int)call.width,  (int)call.channels, call.narrow,         epsilon};
  return ffi::Error::Success();
}

ffi::Error norm_pool(cudaStream_t stream, Any x, Any scale, Any shift, Out y, Out mean, Out rate,
                     float epsilon) {
  NormPoolCall call;
  NormPoolBatch batch;
  ffi::Error error = check_norm_pool_forward(x, scale, shift, *y, *mean, *rate, &call);
  if (error.success()) error = make_batch(call, x, scale, shift, *mean, *rate, epsilon, &batch);
  return error.failure() ? error : status(launch_norm_pool(batch, y->untyped_data(), stream));
}

ffi::Error norm_pool_gradient(cudaStream_t stream, Any x, Any scale, Any shift, Any mean, Any rate,
                              Any g, Out dx, Out d_scale, Out d_shift) {
  NormPoolCall call;
  NormPoolBatch batch;
  ffi::Error error =
      check_norm_pool_gradient(x, scale, shift, mean, rate, g, *dx, *d_scale, *d_shift, &call);
  if (error.success()) error = make_batch(call, x, scale, shift, mean, rate, 0, &batch);
  if (error.failure()) return error;
  return status(launch_norm_pool_gradient(batch, g.untyped_data(), dx->untyped_data(),
                                          floats(*d_scale), floats(*d_shift), stream));
}

ffi::Error norm_pool_second(cudaStream_t stream, Any x, Any scale, Any shift, Any mean, Any rate,
                            Any g, Any a, Any a_scale, Any a_shift, Out dx, Out d_scale, Out dg) {
  NormPoolCall call;
  NormPoolBatch batch;
  ffi::Error error = check_norm_pool_second(x, scale, shift, mean, rate, g, a, a_scale, a_shift,
                                            *dx, *d_scale, *dg, &call);
  if (error.success()) error = make_batch(call, x, scale, shift, mean, rate, 0, &batch);
  if (error.failure()) return error;
  return status(launch_norm_pool_second(
      batch, g.untyped_data(), {a.untyped_data(), floats(a_scale), floats(a_shift)},
      dx->untyped_data(), floats(*d_scale), dg->untyped_data(), stream));
}

#define GSDD_BIND ffi::Ffi::Bind().Ctx<ffi::PlatformStream<cudaStream_t>>()
#define GSDD_TRAITS {ffi::Traits::kCmdBufferCompatible}
XLA_FFI_DEFINE_HANDLER(kNormPool, norm_pool, GSDD_NORM_POOL_FORWARD(GSDD_BIND), GSDD_TRAITS);
XLA_FFI_DEFINE_HANDLER(kNormPoolGradient, norm_pool_gradient, GSDD_NORM_POOL_BACKWARD(GSDD_BIND),
                       GSDD_TRAITS);
XLA_FFI_DEFINE_HANDLER(kNormPoolSecond, norm_pool_second, GSDD_NORM_POOL_SECOND(GSDD_BIND),
                       GSDD_TRAITS);

}  // namespace

void add_network_handlers(pybind11::module_& module) {
  add_handlers(module, {{"gsdd_norm_pool", kNormPool},
                        {"gsdd_norm_pool_gradient", kNormPoolGradient},
                        {"gsdd_norm_pool_second", kNormPoolSecond}});
}

}  // namespace gsdd
