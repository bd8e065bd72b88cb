// The two custom calls on the host: one task an image, spread over XLA's own thread pool.
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "cpu_kernel.h"
#include "module.h"
#include "shapes.h"

namespace gsdd {
namespace {

// The widest instruction set that this machine has, or what GSDD_CPU names (for the tests).
const CpuKernel& choose() {
  const char* wanted = std::getenv("GSDD_CPU");
#ifdef GSDD_HAVE_X86
  const bool fma = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool wide = fma && __builtin_cpu_supports("avx512f");
  for (const CpuKernel* kernel : {&kCpuAvx512, &kCpuAvx2}) {
    const bool supported = kernel == &kCpuAvx512 ? wide : fma;
    if (supported && (!wanted || std::string(wanted) == kernel->name)) return *kernel;
  }
#endif
  return kCpuGeneric;
}

const CpuKernel& kernel() {
  static const CpuKernel& chosen = choose();
  return chosen;
}

// Runs task(i, scratch) for every i in [0, count). The caller works too and only ever waits for
// tasks that a thread has already begun, so a pool whose threads are all inside such calls cannot
// deadlock. Each task writes its own outputs: the result does not depend on who runs it.
template <class Task>
void parallel_for(ffi::ThreadPool pool, int64_t count, size_t scratch, const Task& task) {
  struct State {
    std::atomic<int64_t> next{0};
    int64_t finished = 0;
    std::mutex mutex;
    std::condition_variable all_finished;
  };
  const auto state = std::make_shared<State>();
  const auto work = [state, count, scratch, &task] {
    std::vector<float> memory;
    int64_t done = 0;
    for (int64_t i; (i = state->next.fetch_add(1)) < count; ++done) {
      if (memory.empty()) memory.resize(scratch);
      task(i, memory.data());
    }
    if (done == 0) return;  // late: `task` may be gone already
    const std::lock_guard<std::mutex> lock(state->mutex);
    state->finished += done;
    if (state->finished == count) state->all_finished.notify_all();
  };
  const int64_t helpers = std::min(pool.num_threads(), count) - 1;
  for (int64_t i = 0; i < helpers; ++i) pool.Schedule(std::function<void()>(work));
  work();
  std::unique_lock<std::mutex> lock(state->mutex);
  state->all_finished.wait(lock, [&] { return state->finished == count; });
}

Image image(const Call& call, int64_t b, const Floats& means, const Floats& cholesky,
            const Floats& colors, const Floats& opacities) {
  const int64_t first = b * call.count;
  return {means.typed_data() + 2 * first,
          cholesky.typed_data() + 3 * first,
          colors.typed_data() + call.channels * first,
          opacities.typed_data() + first,
          call.count,
          call.channels};
}

ffi::Error forward(ffi::ThreadPool pool, Floats means, Floats cholesky, Floats colors,
                   Floats opacities, ffi::Result<Floats> images, int64_t samples_per_side,
                   bool prefilter, double min_weight) {
  Call call;
  ffi::Error error = check(means, cholesky, colors, opacities, images->dimensions(),
                           samples_per_side, prefilter, min_weight, &call);
  if (error.failure()) return error;
  const Raster& raster = call.raster;
  const int64_t pixels = raster.height * raster.width * call.channels;
  parallel_for(pool, call.batch, kernel().scratch(raster, call.channels),
               [&](int64_t b, float* scratch) {
                 kernel().forward(image(call, b, means, cholesky, colors, opacities), raster,
                                  images->typed_data() + b * pixels, scratch);
               });
  return ffi::Error::Success();
}

ffi::Error backward(ffi::ThreadPool pool, Floats means, Floats cholesky, Floats colors,
                    Floats opacities, Floats d_images, ffi::Result<Floats> d_means,
                    ffi::Result<Floats> d_cholesky, ffi::Result<Floats> d_colors,
                    ffi::Result<Floats> d_opacities, int64_t samples_per_side, bool prefilter,
                    double min_weight) {
  Call call;
  ffi::Error error = check(means, cholesky, colors, opacities, d_images.dimensions(),
                           samples_per_side, prefilter, min_weight, &call);
  if (error.success())
    error = check_gradients(means, cholesky, colors, opacities, *d_means, *d_cholesky, *d_colors,
                            *d_opacities);
  if (error.failure()) return error;
  const Raster& raster = call.raster;
  const int64_t pixels = raster.height * raster.width * call.channels;
  parallel_for(
      pool, call.batch, kernel().scratch(raster, call.channels), [&](int64_t b, float* scratch) {
        const int64_t first = b * call.count;
        kernel().backward(image(call, b, means, cholesky, colors, opacities), raster,
                          d_images.typed_data() + b * pixels,
                          {d_means->typed_data() + 2 * first, d_cholesky->typed_data() + 3 * first,
                           d_colors->typed_data() + call.channels * first,
                           d_opacities->typed_data() + first, call.channels},
                          scratch);
      });
  return ffi::Error::Success();
}

XLA_FFI_DEFINE_HANDLER(kForward, forward,
                       GSDD_FORWARD_SIGNATURE(ffi::Ffi::Bind().Ctx<ffi::ThreadPool>()));
XLA_FFI_DEFINE_HANDLER(kBackward, backward,
                       GSDD_BACKWARD_SIGNATURE(ffi::Ffi::Bind().Ctx<ffi::ThreadPool>()));

}  // namespace
}  // namespace gsdd

PYBIND11_MODULE(_native_cpu, m) {
  gsdd::export_handlers(m, gsdd::kForward, gsdd::kBackward);
  m.attr("instruction_set") = gsdd::kernel().name;
}
