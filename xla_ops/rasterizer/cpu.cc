// Custom calls on the CPU, on XLA's own thread pool. A task is an image, or a part of one if there
// are few images.
#include <algorithm>

#include "common/instruction_set.h"
#include "common/module.h"
#include "common/parallel.h"
#include "rasterizer/cpu_kernel.h"
#include "rasterizer/shapes.h"

namespace gsdd {
namespace {

const CpuKernel& kernel() {
  static const CpuKernel& chosen = choose(kCpuAvx512, kCpuAvx2, kCpuGeneric);
  return chosen;
}

// Returns the number of parts per image, at most `limit`, so that all threads have work.
int64_t parts(const ffi::ThreadPool& pool, int64_t batch, int64_t limit) {
  const int64_t wanted = 4 * pool.num_threads();
  return std::max<int64_t>(1, std::min(limit, (wanted + batch - 1) / std::max<int64_t>(1, batch)));
}

struct Batch {
  Call call;
  const int32_t* offsets;  // null: `count` Gaussians in every image
  const float* means;
  const float* cholesky;
  const float* colors;
  const float* opacities;

  int64_t first(int64_t b) const { return offsets ? offsets[b] : b * call.count; }
  int64_t total() const { return offsets ? call.count : call.batch * call.count; }
  int64_t pixels() const { return call.raster.height * call.raster.width * call.channels; }
  Image image(int64_t first, int64_t count) const {
    return {means + 2 * first,
            cholesky + 3 * first,
            colors + call.channels * first,
            opacities + first,
            count,
            call.channels};
  }
};

ffi::Error check_offsets(const Batch& batch) {
  if (!batch.offsets) return ffi::Error::Success();
  int64_t last = 0;
  for (int64_t b = 0; b <= batch.call.batch; ++b) {
    if (batch.offsets[b] < last || batch.offsets[b] > batch.call.count)
      return invalid(
          "offsets must not decrease, from 0 or more to at most the number of Gaussians");
    last = batch.offsets[b];
  }
  return ffi::Error::Success();
}

ffi::Error forward(ffi::ThreadPool& pool, const Batch& batch, float* images) {
  constexpr int64_t kLeastRows = 16;
  const Raster& raster = batch.call.raster;
  const int64_t strips = parts(pool, batch.call.batch, raster.height / kLeastRows);
  const int64_t height = ((raster.height + strips - 1) / strips + 3) / 4 * 4;
  return parallel_for(
      pool, batch.call.batch * strips,
      kernel().scratch(raster, std::min(height, raster.height), batch.call.channels),
      [&](int64_t task, float* scratch) {
        const int64_t b = task / strips, top = task % strips * height;
        if (top >= raster.height) return;
        const Range rows = {top, std::min(top + height, raster.height) - 1};
        const int64_t first = batch.first(b);
        kernel().forward(batch.image(first, batch.first(b + 1) - first), raster, rows,
                         images + b * batch.pixels(), scratch);
      });
}

ffi::Error backward(ffi::ThreadPool& pool, const Batch& batch, const float* d_images,
                    const Gradient& gradient) {
  constexpr int64_t kLeastGaussians = 64;
  const int64_t images = std::max<int64_t>(1, batch.call.batch);
  const int64_t pieces = parts(pool, batch.call.batch, batch.total() / images / kLeastGaussians);
  const Raster& raster = batch.call.raster;
  return parallel_for(
      pool, batch.call.batch * pieces, kernel().scratch(raster, raster.height, batch.call.channels),
      [&](int64_t task, float* scratch) {
        const int64_t b = task / pieces, piece = task % pieces;
        const int64_t first = batch.first(b), count = batch.first(b + 1) - first;
        const int64_t begin = first + count * piece / pieces;
        const int64_t end = first + count * (piece + 1) / pieces;
        if (begin == end) return;
        kernel().backward(batch.image(begin, end - begin), raster, d_images + b * batch.pixels(),
                          gradient.from(begin), scratch);
      });
}

// Returns a batch without its call, which `check` fills in.
Batch arrays(const Offsets* offsets, const Floats& means, const Floats& cholesky,
             const Floats& colors, const Floats& opacities) {
  return {{},
          offsets ? offsets->typed_data() : nullptr,
          means.typed_data(),
          cholesky.typed_data(),
          colors.typed_data(),
          opacities.typed_data()};
}

ffi::Error run_forward(ffi::ThreadPool pool, const Offsets* offsets, const Floats& means,
                       const Floats& cholesky, const Floats& colors, const Floats& opacities,
                       ffi::Result<Floats> images, int64_t samples_per_side, bool prefilter,
                       double min_weight, bool pass_clipped) {
  Batch batch = arrays(offsets, means, cholesky, colors, opacities);
  ffi::Error error = check(offsets, means, cholesky, colors, opacities, images->dimensions(),
                           samples_per_side, prefilter, min_weight, pass_clipped, &batch.call);
  if (error.success()) error = check_offsets(batch);
  return error.failure() ? error : forward(pool, batch, images->typed_data());
}

ffi::Error run_backward(ffi::ThreadPool pool, const Offsets* offsets, const Floats& means,
                        const Floats& cholesky, const Floats& colors, const Floats& opacities,
                        const Floats& d_images, ffi::Result<Floats> d_means,
                        ffi::Result<Floats> d_cholesky, ffi::Result<Floats> d_colors,
                        ffi::Result<Floats> d_opacities, int64_t samples_per_side, bool prefilter,
                        double min_weight, bool pass_clipped) {
  Batch batch = arrays(offsets, means, cholesky, colors, opacities);
  ffi::Error error = check(offsets, means, cholesky, colors, opacities, d_images.dimensions(),
                           samples_per_side, prefilter, min_weight, pass_clipped, &batch.call);
  if (error.success())
    error = check_gradients(means, cholesky, colors, opacities, *d_means, *d_cholesky, *d_colors,
                            *d_opacities);
  if (error.success()) error = check_offsets(batch);
  if (error.failure()) return error;
  const Gradient gradient = {d_means->typed_data(), d_cholesky->typed_data(),
                             d_colors->typed_data(), d_opacities->typed_data(),
                             batch.call.channels};
  if (offsets) {  // Gaussians of no image
    const int64_t used = batch.first(batch.call.batch);
    gradient.clear(0, batch.first(0));
    gradient.clear(used, batch.call.count - used);
  }
  return backward(pool, batch, d_images.typed_data(), gradient);
}

constexpr auto dense_forward = [](auto pool, auto... rest) {
  return run_forward(pool, nullptr, rest...);
};
constexpr auto dense_backward = [](auto pool, auto... rest) {
  return run_backward(pool, nullptr, rest...);
};
constexpr auto ragged_forward = [](auto pool, Offsets offsets, auto... rest) {
  return run_forward(pool, &offsets, rest...);
};
constexpr auto ragged_backward = [](auto pool, Offsets offsets, auto... rest) {
  return run_backward(pool, &offsets, rest...);
};

#define GSDD_BIND ffi::Ffi::Bind().Ctx<ffi::ThreadPool>()
XLA_FFI_DEFINE_HANDLER(kForward, dense_forward, GSDD_FORWARD_SIGNATURE(GSDD_BIND, ));
XLA_FFI_DEFINE_HANDLER(kBackward, dense_backward, GSDD_BACKWARD_SIGNATURE(GSDD_BIND, ));
XLA_FFI_DEFINE_HANDLER(kRaggedForward, ragged_forward,
                       GSDD_FORWARD_SIGNATURE(GSDD_BIND.Arg<Offsets>(), ));
XLA_FFI_DEFINE_HANDLER(kRaggedBackward, ragged_backward,
                       GSDD_BACKWARD_SIGNATURE(GSDD_BIND.Arg<Offsets>(), ));

}  // namespace
}  // namespace gsdd

PYBIND11_MODULE(_native_cpu, m) {
  gsdd::add_handlers(m, {{"gsdd_rasterize", gsdd::kForward},
                         {"gsdd_rasterize_gradient", gsdd::kBackward},
                         {"gsdd_rasterize_ragged", gsdd::kRaggedForward},
                         {"gsdd_rasterize_ragged_gradient", gsdd::kRaggedBackward}});
  gsdd::add_network_handlers(m);
  pybind11::list names;
  for (const gsdd::CpuKernel* kernel :
       gsdd::supported(gsdd::kCpuAvx512, gsdd::kCpuAvx2, gsdd::kCpuGeneric))
    names.append(kernel->name);
  m.attr("instruction_sets") = names;
  m.attr("instruction_set") = gsdd::kernel().name;
}
