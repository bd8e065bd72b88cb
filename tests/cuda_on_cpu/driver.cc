// The CUDA rasterizer with a C interface on host memory, for ctypes.
#include "rasterizer/cuda_kernel.cu"

extern "C" {

struct Arguments {
  const float *means, *cholesky, *colors, *opacities;
  const int32_t* offsets;
  int64_t batch, count, height, width;
  int channels, samples;
  double variance, min_weight;
  int pass_clipped;
  int backwards;  // the order in which threads take turns
};

static gsdd::Batch batch(const Arguments& a) {
  cuda_on_cpu::backwards = a.backwards != 0;
  return {a.means,
          a.cholesky,
          a.colors,
          a.opacities,
          a.offsets,
          a.batch,
          a.count,
          {a.height, a.width, a.samples, a.variance, a.min_weight, std::log(a.min_weight),
           a.pass_clipped != 0}};
}

// Scratch memory of the kernels, not initialized.
class Room {
 public:
  explicit Room(const gsdd::Batch& batch)
      : boxes_(batch.total() * gsdd::kBoxBytes / 8, kNothing),
        records_(batch.total() * gsdd::kRecordBytes / 8, kNothing) {}
  operator gsdd::Room() { return {boxes_.data(), records_.data()}; }

 private:
  static constexpr uint64_t kNothing = 0x4c4c4c4c4c4c4c4c;
  std::vector<uint64_t> boxes_, records_;
};

void forward(const Arguments* a, float* images) {
  Room room(batch(*a));
  gsdd::launch_forward(batch(*a), room, a->channels, images, nullptr);
}

void backward(const Arguments* a, const float* d_images, float* means, float* cholesky,
              float* colors, float* opacities) {
  Room room(batch(*a));
  gsdd::launch_backward(batch(*a), room, a->channels, d_images,
                        {means, cholesky, colors, opacities}, nullptr);
}
}
