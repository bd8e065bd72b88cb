// Custom calls of the networks on the CPU. A task is an image, or a group of images in a sum.
#include "common/instruction_set.h"
#include "common/module.h"
#include "common/parallel.h"
#include "network/cpu_kernel.h"
#include "network/shapes.h"

namespace gsdd {
namespace {

using Floats = ffi::Buffer<ffi::F32>;

const NetworkKernel& network_kernel() {
  static const NetworkKernel& chosen = choose(kNetworkAvx512, kNetworkAvx2, kNetworkGeneric);
  return chosen;
}

template <class T>
const NormPoolKernel<T>& norm_pool_kernel() {
  if constexpr (std::is_same_v<T, float>)
    return network_kernel().norm_pool;
  else
    return network_kernel().norm_pool_bfloat16;
}

// Pointers to an image's elements of the arrays.
template <class T>
struct Images {
  NormPoolCall call;
  NormPoolShape shape;

  Images(const NormPoolCall& call, float epsilon)
      : call(call), shape{call.height, call.width, call.channels, epsilon} {}

  template <class Buffer>
  T* pixels(Buffer& b, int64_t image) const {
    return reinterpret_cast<T*>(b.untyped_data()) +
           image * shape.height * shape.width * shape.channels;
  }
  template <class Buffer>
  T* pooled(Buffer& b, int64_t image) const {
    return reinterpret_cast<T*>(b.untyped_data()) +
           image * (shape.height / 2) * (shape.width / 2) * shape.channels;
  }
  template <class Buffer>
  float* numbers(Buffer& b, int64_t image) const {
    return reinterpret_cast<float*>(b.untyped_data()) + image * shape.channels;
  }
  NormPoolInputs<T> inputs(ffi::AnyBuffer& x, ffi::AnyBuffer& scale, ffi::AnyBuffer& shift,
                           int64_t image) const {
    const int64_t row = image / call.images_per_row;
    return {pixels(x, image), numbers(scale, row), numbers(shift, row)};
  }
};

template <class F>
ffi::Error by_type(const NormPoolCall& call, float epsilon, const F& f) {
  if (call.narrow) return f(Images<Bfloat16>(call, epsilon), norm_pool_kernel<Bfloat16>());
  return f(Images<float>(call, epsilon), norm_pool_kernel<float>());
}

using Any = ffi::AnyBuffer;
using Out = ffi::Result<ffi::AnyBuffer>;

ffi::Error norm_pool(ffi::ThreadPool pool, Any x, Any scale, Any shift, Out y, Out mean, Out rate,
                     float epsilon) {
  NormPoolCall call;
  const ffi::Error error = check_norm_pool_forward(x, scale, shift, *y, *mean, *rate, &call);
  if (error.failure()) return error;
  return by_type(call, epsilon, [&](const auto& images, const auto& kernel) {
    return parallel_for(pool, call.images, 0, [&](int64_t b, float*) {
      kernel.forward(images.shape, images.inputs(x, scale, shift, b), images.pooled(*y, b),
                     {images.numbers(*mean, b), images.numbers(*rate, b)});
    });
  });
}

ffi::Error norm_pool_gradient(ffi::ThreadPool pool, Any x, Any scale, Any shift, Any mean, Any rate,
                              Any g, Out dx, Out d_scale, Out d_shift) {
  NormPoolCall call;
  const ffi::Error error =
      check_norm_pool_gradient(x, scale, shift, mean, rate, g, *dx, *d_scale, *d_shift, &call);
  if (error.failure()) return error;
  return by_type(call, 0, [&](const auto& images, const auto& kernel) {
    return parallel_for(pool, call.images, 0, [&](int64_t b, float*) {
      kernel.backward(images.shape, images.inputs(x, scale, shift, b),
                      {images.numbers(mean, b), images.numbers(rate, b)}, images.pooled(g, b),
                      images.pixels(*dx, b), images.numbers(*d_scale, b),
                      images.numbers(*d_shift, b));
    });
  });
}

ffi::Error norm_pool_second(ffi::ThreadPool pool, Any x, Any scale, Any shift, Any mean, Any rate,
                            Any g, Any a, Any a_scale, Any a_shift, Out dx, Out d_scale, Out dg) {
  NormPoolCall call;
  const ffi::Error error = check_norm_pool_second(x, scale, shift, mean, rate, g, a, a_scale,
                                                  a_shift, *dx, *d_scale, *dg, &call);
  if (error.failure()) return error;
  return by_type(call, 0, [&](const auto& images, const auto& kernel) {
    return parallel_for(pool, call.images, 0, [&](int64_t b, float*) {
      kernel.second(images.shape, images.inputs(x, scale, shift, b),
                    {images.numbers(mean, b), images.numbers(rate, b)}, images.pooled(g, b),
                    images.pixels(a, b), images.numbers(a_scale, b), images.numbers(a_shift, b),
                    images.pixels(*dx, b), images.numbers(*d_scale, b), images.pooled(*dg, b));
    });
  });
}

ffi::Error invalid_conv() {
  return ffi::Error::InvalidArgument(
      "gsdd conv: expected images [B, H, W, I], a kernel [K, K, I, O] and "
      "[B, H + 2 P - K + 1, W + 2 P - K + 1, O] with P < K");
}

// Checks a convolution's three arrays against each other.
bool conv_shape(const Floats& x, const Floats& kernel, const Floats& y, ConvShape* shape) {
  const auto in = x.dimensions(), k = kernel.dimensions(), out = y.dimensions();
  if (in.size() != 4 || k.size() != 4 || out.size() != 4) return false;
  const int64_t side = k[0], border = out[1] - in[1] + side - 1;
  *shape = {in[1], in[2], in[3], out[3], side, border / 2};
  return side > 0 && k[1] == side && border >= 0 && border % 2 == 0 && border / 2 < side &&
         out[2] - in[2] + side - 1 == border && k[2] == in[3] && k[3] == out[3] && in[0] == out[0];
}

ffi::Error convolution(ffi::ThreadPool pool, Floats x, Floats kernel, ffi::Result<Floats> y) {
  ConvShape shape;
  if (!conv_shape(x, kernel, *y, &shape)) return invalid_conv();
  const NetworkKernel& with = network_kernel();
  std::vector<float> packed(with.packed_size(shape));
  with.pack(shape, kernel.typed_data(), packed.data());
  const int64_t images = x.dimensions()[0], pixels = shape.height * shape.width;
  const int64_t pixels_out = y->dimensions()[1] * y->dimensions()[2];
  return parallel_for(pool, images, with.conv_scratch(shape), [&](int64_t b, float* scratch) {
    with.conv(shape, x.typed_data() + b * pixels * shape.inputs, packed.data(),
              y->typed_data() + b * pixels_out * shape.outputs, scratch);
  });
}

ffi::Error conv_kernel_gradient(ffi::ThreadPool pool, Floats x, Floats g,
                                ffi::Result<Floats> kernel) {
  constexpr int64_t kMostGroups = 32;
  ConvShape shape;
  if (!conv_shape(x, *kernel, g, &shape)) return invalid_conv();
  const NetworkKernel& with = network_kernel();
  // Sums the images of each group, then the groups, in a fixed order.
  const int64_t images = x.dimensions()[0], pixels = shape.height * shape.width;
  const int64_t pixels_out = g.dimensions()[1] * g.dimensions()[2];
  const int64_t groups = std::min(images, kMostGroups);
  const size_t size = with.gradient_size(shape);
  std::vector<float> totals(size * (size_t)std::max<int64_t>(1, groups));
  const auto add = [&](int64_t group, float* scratch) {
    for (int64_t b = images * group / groups; b < images * (group + 1) / groups; ++b)
      with.conv_gradient(shape, x.typed_data() + b * pixels * shape.inputs,
                         g.typed_data() + b * pixels_out * shape.outputs,
                         totals.data() + size * (size_t)group, scratch);
  };
  const ffi::Error error = parallel_for(pool, groups, with.conv_scratch(shape), add);
  if (error.failure()) return error;
  for (int64_t group = 1; group < groups; ++group)
    for (size_t i = 0; i < size; ++i) totals[i] += totals[size * (size_t)group + i];
  with.unpack_gradient(shape, totals.data(), kernel->typed_data());
  return ffi::Error::Success();
}

#define GSDD_BIND ffi::Ffi::Bind().Ctx<ffi::ThreadPool>()
XLA_FFI_DEFINE_HANDLER(kNormPool, norm_pool, GSDD_NORM_POOL_FORWARD(GSDD_BIND));
XLA_FFI_DEFINE_HANDLER(kNormPoolGradient, norm_pool_gradient, GSDD_NORM_POOL_BACKWARD(GSDD_BIND));
XLA_FFI_DEFINE_HANDLER(kNormPoolSecond, norm_pool_second, GSDD_NORM_POOL_SECOND(GSDD_BIND));
XLA_FFI_DEFINE_HANDLER(kConv, convolution, GSDD_BIND.Arg<Floats>().Arg<Floats>().Ret<Floats>());
XLA_FFI_DEFINE_HANDLER(kConvGradient, conv_kernel_gradient,
                       GSDD_BIND.Arg<Floats>().Arg<Floats>().Ret<Floats>());

}  // namespace

void add_network_handlers(pybind11::module_& module) {
  add_handlers(module, {{"gsdd_norm_pool", kNormPool},
                        {"gsdd_norm_pool_gradient", kNormPoolGradient},
                        {"gsdd_norm_pool_second", kNormPoolSecond},
                        {"gsdd_conv", kConv},
                        {"gsdd_conv_kernel_gradient", kConvGradient}});
}

}  // namespace gsdd
