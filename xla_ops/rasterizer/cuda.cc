// Custom calls on CUDA: check the buffers and launch on XLA's stream.
#include "common/cuda_devices.h"
#include "common/module.h"
#include "rasterizer/cuda_kernel.h"
#include "rasterizer/shapes.h"

namespace gsdd {
namespace {

ffi::Error status(cudaError_t error) {
  if (error == cudaSuccess) return ffi::Error::Success();
  return ffi::Error::Internal(std::string("gsdd rasterizer: ") + cudaGetErrorString(error));
}

Batch batch(const Call& call, const Offsets* offsets, const Floats& means, const Floats& cholesky,
            const Floats& colors, const Floats& opacities) {
  return {means.typed_data(),
          cholesky.typed_data(),
          colors.typed_data(),
          opacities.typed_data(),
          offsets ? offsets->typed_data() : nullptr,
          call.batch,
          call.count,
          call.raster};
}

using Words = ffi::Buffer<ffi::U32>;

// Scratch memory of the kernels: two more results than on a CPU, hidden from the caller. XLA plans
// results with all other memory, and they stay valid in a command buffer.
ffi::Error check_room(const Floats& opacities, Words& boxes, Words& records, Room* room) {
  const int64_t total = (int64_t)opacities.element_count();
  if ((int64_t)boxes.size_bytes() != kBoxBytes * total ||
      (int64_t)records.size_bytes() != kRecordBytes * total)
    return invalid("the room must have 8 and 64 bytes a Gaussian");
  *room = {boxes.untyped_data(), records.untyped_data()};
  return ffi::Error::Success();
}

ffi::Error run_forward(cudaStream_t stream, const Offsets* offsets, const Floats& means,
                       const Floats& cholesky, const Floats& colors, const Floats& opacities,
                       ffi::Result<Floats> images, ffi::Result<Words> boxes,
                       ffi::Result<Words> records, int64_t samples_per_side, bool prefilter,
                       double min_weight, bool pass_clipped) {
  Call call;
  Room room;
  ffi::Error error = check(offsets, means, cholesky, colors, opacities, images->dimensions(),
                           samples_per_side, prefilter, min_weight, pass_clipped, &call);
  if (error.success()) error = check_room(opacities, *boxes, *records, &room);
  if (error.failure()) return error;
  return status(launch_forward(batch(call, offsets, means, cholesky, colors, opacities), room,
                               call.channels, images->typed_data(), stream));
}

ffi::Error run_backward(cudaStream_t stream, const Offsets* offsets, const Floats& means,
                        const Floats& cholesky, const Floats& colors, const Floats& opacities,
                        const Floats& d_images, ffi::Result<Floats> d_means,
                        ffi::Result<Floats> d_cholesky, ffi::Result<Floats> d_colors,
                        ffi::Result<Floats> d_opacities, ffi::Result<Words> boxes,
                        ffi::Result<Words> records, int64_t samples_per_side, bool prefilter,
                        double min_weight, bool pass_clipped) {
  Call call;
  Room room;
  ffi::Error error = check(offsets, means, cholesky, colors, opacities, d_images.dimensions(),
                           samples_per_side, prefilter, min_weight, pass_clipped, &call);
  if (error.success())
    error = check_gradients(means, cholesky, colors, opacities, *d_means, *d_cholesky, *d_colors,
                            *d_opacities);
  if (error.success()) error = check_room(opacities, *boxes, *records, &room);
  if (error.failure()) return error;
  return status(launch_backward(batch(call, offsets, means, cholesky, colors, opacities), room,
                                call.channels, d_images.typed_data(),
                                {d_means->typed_data(), d_cholesky->typed_data(),
                                 d_colors->typed_data(), d_opacities->typed_data()},
                                stream));
}

constexpr auto dense_forward = [](auto stream, auto... rest) {
  return run_forward(stream, nullptr, rest...);
};
constexpr auto dense_backward = [](auto stream, auto... rest) {
  return run_backward(stream, nullptr, rest...);
};
constexpr auto ragged_forward = [](auto stream, Offsets offsets, auto... rest) {
  return run_forward(stream, &offsets, rest...);
};
constexpr auto ragged_backward = [](auto stream, Offsets offsets, auto... rest) {
  return run_backward(stream, &offsets, rest...);
};

#define GSDD_BIND ffi::Ffi::Bind().Ctx<ffi::PlatformStream<cudaStream_t>>()
#define GSDD_TRAITS {ffi::Traits::kCmdBufferCompatible}
#define GSDD_ROOM .Ret<Words>().Ret<Words>()
XLA_FFI_DEFINE_HANDLER(kForward, dense_forward, GSDD_FORWARD_SIGNATURE(GSDD_BIND, GSDD_ROOM),
                       GSDD_TRAITS);
XLA_FFI_DEFINE_HANDLER(kBackward, dense_backward, GSDD_BACKWARD_SIGNATURE(GSDD_BIND, GSDD_ROOM),
                       GSDD_TRAITS);
XLA_FFI_DEFINE_HANDLER(kRaggedForward, ragged_forward,
                       GSDD_FORWARD_SIGNATURE(GSDD_BIND.Arg<Offsets>(), GSDD_ROOM), GSDD_TRAITS);
XLA_FFI_DEFINE_HANDLER(kRaggedBackward, ragged_backward,
                       GSDD_BACKWARD_SIGNATURE(GSDD_BIND.Arg<Offsets>(), GSDD_ROOM), GSDD_TRAITS);

}  // namespace
}  // namespace gsdd

PYBIND11_MODULE(_native_cuda, m) {
  gsdd::add_handlers(m, {{"gsdd_rasterize", gsdd::kForward},
                         {"gsdd_rasterize_gradient", gsdd::kBackward},
                         {"gsdd_rasterize_ragged", gsdd::kRaggedForward},
                         {"gsdd_rasterize_ragged_gradient", gsdd::kRaggedBackward}});
  gsdd::add_network_handlers(m);
  gsdd::export_devices(m);
}
