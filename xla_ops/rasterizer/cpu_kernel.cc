// Rasterizes one image: prepares its Gaussians in groups, then adds them one by one on the fast or
// the exact path.
#include "rasterizer/cpu_kernel.h"

#include "rasterizer/cpu_bands.h"
#include "rasterizer/cpu_rows.h"
#include "rasterizer/planes.h"

#define GSDD_JOIN2(a, b) a##b
#define GSDD_JOIN(a, b) GSDD_JOIN2(a, b)

namespace gsdd {
namespace {

template <int S, int C>
void forward(const Image& image, const Raster& raster, Range rows, float* pixels, float* scratch) {
  const Planes planes(raster, rows);
  const Table<S> table(scratch + planes.size * C, raster.height);
  std::memset(scratch, 0, sizeof(float) * planes.size * C);
  bool valid = true;
  for (int64_t first = 0; first < image.count && valid; first += kGroup) {
    const Group group(image, first, raster);
    for (int i = 0; i < group.count; ++i) {
      const Inputs in = image.inputs(first + i);
      if (group.path[i] == Path::kBands) {
        paint_bands<S, C>(group, i, in.color, table, raster, planes, scratch);
      } else if (group.path[i] == Path::kRows) {
        Gaussian g{};
        prepare(in, C, raster, &g);
        paint_rows<C>({g, *in.opacity, raster, planes}, in.color, raster, planes, scratch);
      }
      valid = valid && group.path[i] != Path::kNotFinite;
    }
  }
  planes.interleave<C>(scratch, valid ? 1.0f / (raster.samples * raster.samples) : NAN, pixels);
}

template <int S, int C>
void backward(const Image& image, const Raster& raster, const float* d_pixels,
              const Gradient& gradient, float* scratch) {
  const Planes planes(raster, {0, raster.height - 1});
  const Table<S> table(scratch + planes.size * C, raster.height);
  planes.deinterleave<C>(d_pixels, 1.0f / (raster.samples * raster.samples), scratch);
  for (int64_t first = 0; first < image.count; first += kGroup) {
    const Group group(image, first, raster);
    Group::Sums sums{};
    for (int i = 0; i < group.count; ++i) {
      const Inputs in = image.inputs(first + i);
      if (group.path[i] == Path::kBands) {
        const auto gather =
            raster.pass_clipped ? gather_bands<S, C, true> : gather_bands<S, C, false>;
        sums.set(i, gather(group, i, in.color, table, raster, planes, scratch), C);
      } else if (group.path[i] == Path::kRows) {
        Gaussian g{};
        prepare(in, C, raster, &g);
        const Rows gaussian_rows(g, *in.opacity, raster, planes);
        const auto gather = raster.pass_clipped ? gather_rows<C, true> : gather_rows<C, false>;
        sums.set(i, gather(gaussian_rows, in.color, raster, planes, scratch), C);
      }
    }
    group.pull_back(sums, raster, gradient, first);
  }
}

template <int S>
void forward_channels(const Image& image, const Raster& raster, Range rows, float* pixels,
                      float* scratch) {
  switch (image.channels) {
    case 1: return forward<S, 1>(image, raster, rows, pixels, scratch);
    case 2: return forward<S, 2>(image, raster, rows, pixels, scratch);
    case 3: return forward<S, 3>(image, raster, rows, pixels, scratch);
    default: return forward<S, 4>(image, raster, rows, pixels, scratch);
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

// With more than 2 samples per side, no Gaussian takes the fast path.
void dispatch_forward(const Image& image, const Raster& raster, Range rows, float* pixels,
                      float* scratch) {
  if (raster.samples == 2) return forward_channels<2>(image, raster, rows, pixels, scratch);
  forward_channels<1>(image, raster, rows, pixels, scratch);
}

void dispatch_backward(const Image& image, const Raster& raster, const float* d_pixels,
                       const Gradient& gradient, float* scratch) {
  if (raster.samples == 2) return backward_channels<2>(image, raster, d_pixels, gradient, scratch);
  backward_channels<1>(image, raster, d_pixels, gradient, scratch);
}

size_t scratch_size(const Raster& raster, int64_t rows, int channels) {
  return (size_t)Planes(raster, {0, rows - 1}).size * channels + Table<2>::size(raster.height);
}

}  // namespace

#define GSDD_NAME2(isa) #isa
#define GSDD_NAME(isa) GSDD_NAME2(isa)
const CpuKernel GSDD_JOIN(kCpu, GSDD_ISA){GSDD_NAME(GSDD_ISA), scratch_size, dispatch_forward,
                                          dispatch_backward};

}  // namespace gsdd
