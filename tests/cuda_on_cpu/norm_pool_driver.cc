// norm_pool's CUDA kernels with a C interface on host memory, for ctypes.
#include "network/cuda_kernel.cu"

extern "C" {

struct Arguments {
  const void* x;
  const float *scale, *shift;
  float *mean, *rate;
  int64_t images, images_per_row;
  int height, width, channels, narrow, backwards;  // the order in which threads take turns
};

static gsdd::NormPoolBatch batch(const Arguments& a) {
  cuda_on_cpu::backwards = a.backwards != 0;
  return {a.x,      a.scale, a.shift,    a.mean,        a.rate, a.images, a.images_per_row,
          a.height, a.width, a.channels, a.narrow != 0, 1e-5f};
}

void forward(const Arguments* a, void* y) { gsdd::launch_norm_pool(batch(*a), y, nullptr); }

void gradient(const Arguments* a, const void* g, void* dx, float* d_scale, float* d_shift) {
  gsdd::launch_norm_pool_gradient(batch(*a), g, dx, d_scale, d_shift, nullptr);
}

void second(const Arguments* a, const void* g, const void* of_dx, const float* of_scale,
            const float* of_shift, void* dx, float* d_scale, void* dg) {
  gsdd::launch_norm_pool_second(batch(*a), g, {of_dx, of_scale, of_shift}, dx, d_scale, dg,
                                nullptr);
}
}
