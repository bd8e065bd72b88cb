// Calls the CUDA rasterizer along each of its paths, without Python, and compares it with a
// computation in double precision that shares no code with it. Status 1 on a mismatch.
#include <random>
#include <string>

#include "cuda_driver.h"
#include "rasterizer/cuda_kernel.cu"

namespace {

enum class Draw { kMixed, kWide, kHuge, kThin, kDegenerate, kFaint };

struct Case {
  std::string name;
  int64_t batch, count, height, width;
  int channels = 3, samples = 2;
  bool prefilter = true;
  double min_weight = 1.0 / 255.0;
  Draw draw = Draw::kMixed;
  std::vector<int32_t> offsets = {};  // ragged where there are any
  std::vector<int64_t> not_finite = {};
  bool pass = false;  // gradients through the clipping

  bool ragged() const { return !offsets.empty(); }
  int64_t total() const { return ragged() ? count : batch * count; }
};

enum { kMeans, kCholesky, kColors, kOpacities, kArrays };
const char* const kNames[kArrays] = {"means", "cholesky", "colors", "opacities"};
int width_of(const Case& c, int array) {
  return array < 2 ? 2 + array : array == 2 ? c.channels : 1;
}

struct Problem {
  Floats parameters[kArrays], cotangent;
};

Problem draw(const Case& c) {
  std::mt19937 bits((unsigned)std::hash<std::string>()(c.name));
  std::normal_distribution<double> normal;
  const auto uniform = [&](double low, double high) {
    return std::uniform_real_distribution<double>(low, high)(bits);
  };
  Problem p;
  for (int64_t n = 0; n < c.total(); ++n) {
    const double kinds[3] = {0.3, 2.0, 8.0};
    double scale = kinds[bits() % 3];
    if (c.draw == Draw::kHuge) scale = 3e4;
    if (c.draw == Draw::kWide) scale = 40.0;
    for (int k = 0; k < 2; ++k) p.parameters[kMeans].push_back((float)uniform(-1.3, 1.3));
    for (int k = 0; k < 3; ++k) {
      double value = normal(bits) * scale - 0.5;
      if (c.draw == Draw::kThin || uniform(0, 1) < 0.15) value = (k == 1 ? 0 : -0.5) + 1e-3 * value;
      if (c.draw == Draw::kDegenerate && k == 0 && n % 2) value = -0.5;
      p.parameters[kCholesky].push_back((float)value);
    }
    for (int k = 0; k < c.channels; ++k) p.parameters[kColors].push_back((float)normal(bits));
    p.parameters[kOpacities].push_back((float)uniform(-1, 3));
    if (c.draw == Draw::kFaint && n % 3 == 0) p.parameters[kOpacities].back() = 0.0f;
  }
  for (size_t k = 0; k < c.not_finite.size(); ++k) {
    const float bad[3] = {NAN, INFINITY, -INFINITY};
    const int array = (int)(k % kArrays), width = width_of(c, array);
    p.parameters[array][c.not_finite[k] * width + width - 1] = bad[k % 3];
  }
  for (int64_t n = 0; n < c.batch * c.height * c.width * c.channels; ++n)
    p.cotangent.push_back((float)normal(bits));
  return p;
}

struct Expected {
  Doubles images, gradients[kArrays];
  std::vector<char> near;  // pixels with a weight at one of the cuts, where float may differ
};

// Adds a Gaussian to an image, or with `d_image` its gradient: dL/dSigma = 1/2 Q (sum of
// h d d^T) Q with Q the inverse of Sigma, dL/dL = 2 dL/dSigma L.
void visit(const Case& c, const Problem& p, int64_t n, double* image, char* near,
           const float* d_image, Expected* out) {
  const float *mean = &p.parameters[kMeans][2 * n], *raw = &p.parameters[kCholesky][3 * n];
  const float* color = &p.parameters[kColors][c.channels * n];
  const double opacity = p.parameters[kOpacities][n], f = c.prefilter ? 1.0 / 12.0 : 0.0;
  const double l1 = raw[0] + 0.5, l2 = raw[1], l3 = raw[2] + 0.5;
  const double xx = l1 * l1 + f, xy = l1 * l2, yy = l2 * l2 + l3 * l3 + f;
  const double det = l1 * l1 * l3 * l3 + f * (l1 * l1 + l2 * l2 + l3 * l3 + f);
  if (det == 0.0) return;
  const double q[2][2] = {{yy / det, -xy / det}, {-xy / det, xx / det}};
  double sum = 0, first[2] = {}, second[2][2] = {}, d_color[gsdd::kMaxChannels] = {};
  const double share = 1.0 / (c.samples * c.samples);
  for (int64_t i = 0; i < c.height * c.samples; ++i) {
    for (int64_t j = 0; j < c.width * c.samples; ++j) {
      const double d[2] = {(j + 0.5) / c.samples - c.width * (mean[0] + 1.0) / 2,
                           (i + 0.5) / c.samples - c.height * (mean[1] + 1.0) / 2};
      // The square completed in x: the quadratic form would cancel on thin Gaussians.
      const double across = d[0] - xy / yy * d[1];
      const double sigma = 0.5 * (across * across * yy / det + d[1] * d[1] / yy);
      const double e = std::exp(-sigma), weight = opacity * e;
      const int64_t pixel = i / c.samples * c.width + j / c.samples;
      if (near && ((c.min_weight > 0 && std::fabs(weight / c.min_weight - 1) < 2e-5) ||
                   std::fabs(weight - 1) < 2e-5))
        near[pixel] = 1;
      if (!(weight >= c.min_weight)) continue;
      const double used = weight > 1 ? 1 : weight;
      double g = 0;
      for (int k = 0; k < c.channels; ++k) {
        if (image) image[pixel * c.channels + k] += share * used * color[k];
        if (!d_image) continue;
        const double d_sample = share * d_image[pixel * c.channels + k];
        g += d_sample * color[k];
        d_color[k] += used * d_sample;
      }
      if (!d_image || (weight > 1 && !c.pass)) continue;
      sum += e * g;
      for (int a = 0; a < 2; ++a) {
        first[a] += weight * g * d[a];
        for (int b = 0; b < 2; ++b) second[a][b] += weight * g * d[a] * d[b];
      }
    }
  }
  if (!d_image) return;
  const double size[2] = {(double)c.width, (double)c.height}, factor[2][2] = {{l1, 0}, {l2, l3}};
  double d_sigma[2][2] = {}, d_factor[2][2] = {};
  for (int a = 0; a < 2; ++a)
    for (int b = 0; b < 2; ++b)
      for (int k = 0; k < 2; ++k)
        for (int l = 0; l < 2; ++l) d_sigma[a][b] += q[a][k] * second[k][l] * q[l][b];
  for (int a = 0; a < 2; ++a)
    for (int b = 0; b < 2; ++b)
      for (int k = 0; k < 2; ++k) d_factor[a][b] += d_sigma[a][k] * factor[k][b];
  for (int a = 0; a < 2; ++a)
    out->gradients[kMeans][2 * n + a] = size[a] / 2 * (q[a][0] * first[0] + q[a][1] * first[1]);
  out->gradients[kCholesky][3 * n] = d_factor[0][0];
  out->gradients[kCholesky][3 * n + 1] = d_factor[1][0];
  out->gradients[kCholesky][3 * n + 2] = d_factor[1][1];
  for (int k = 0; k < c.channels; ++k) out->gradients[kColors][c.channels * n + k] = d_color[k];
  out->gradients[kOpacities][n] = sum;
}

// Also sets the cotangent of the pixels near a cut to zero.
Expected evaluate(const Case& c, Problem* p) {
  Expected out;
  const int64_t pixels = c.height * c.width;
  out.images.assign(c.batch * pixels * c.channels, 0.0);
  out.near.assign(c.batch * pixels, 0);
  for (int a = 0; a < kArrays; ++a) out.gradients[a].assign(c.total() * width_of(c, a), 0.0);
  std::vector<char> bad(c.total(), 0);
  for (int64_t n : c.not_finite) bad[n] = 1;
  for (int64_t b = 0; b < c.batch; ++b) {
    double* image = out.images.data() + b * pixels * c.channels;
    char* near = out.near.data() + b * pixels;
    float* d_image = p->cotangent.data() + b * pixels * c.channels;
    const int64_t first = c.ragged() ? c.offsets[b] : b * c.count;
    const int64_t end = c.ragged() ? c.offsets[b + 1] : first + c.count;
    bool valid = first >= 0 && first <= end && end <= c.total(), finite = valid;
    if (!valid) std::fill_n(image, pixels * c.channels, NAN);
    if (!valid) continue;
    for (int64_t n = first; n < end; ++n) {
      finite = finite && !bad[n];
      if (!bad[n]) visit(c, *p, n, image, near, nullptr, &out);
    }
    if (!finite) std::fill_n(image, pixels * c.channels, NAN);
    for (int64_t k = 0; k < pixels * c.channels; ++k)
      if (near[k / c.channels]) d_image[k] = 0.0f;
    for (int64_t n = first; n < end; ++n) {
      if (!bad[n]) visit(c, *p, n, nullptr, nullptr, d_image, &out);
      for (int a = 0; a < kArrays && bad[n]; ++a)
        std::fill_n(&out.gradients[a][n * width_of(c, a)], width_of(c, a), NAN);
    }
  }
  return out;
}

struct Results {
  Floats arrays[kArrays + 1];  // gradients, then images
};

Results run(const Case& c, const Problem& p) {
  OnDevice<float> means(p.parameters[0]), cholesky(p.parameters[1]), colors(p.parameters[2]);
  OnDevice<float> opacities(p.parameters[3]), cotangent(p.cotangent), images(p.cotangent.size());
  OnDevice<int32_t> offsets(c.offsets);
  OnDevice<float> d_means(p.parameters[0].size()), d_cholesky(p.parameters[1].size());
  OnDevice<float> d_colors(p.parameters[2].size()), d_opacities(p.parameters[3].size());
  const gsdd::Raster raster = {c.height,     c.width,
                               c.samples,    c.prefilter ? 1.0 / 12.0 : 0.0,
                               c.min_weight, std::log(c.min_weight),
                               c.pass};
  const gsdd::Batch batch = {means.data(),   cholesky.data(), colors.data(), opacities.data(),
                             offsets.data(), c.batch,         c.count,       raster};
  OnDevice<char> boxes(c.total() * gsdd::kBoxBytes), records(c.total() * gsdd::kRecordBytes);
  OnDevice<char> boxes_back(c.total() * gsdd::kBoxBytes);
  OnDevice<char> records_back(c.total() * gsdd::kRecordBytes);
  check(gsdd::launch_forward(batch, {boxes.data(), records.data()}, c.channels, images.data(),
                             nullptr),
        "forward");
  check(gsdd::launch_backward(
            batch, {boxes_back.data(), records_back.data()}, c.channels, cotangent.data(),
            {d_means.data(), d_cholesky.data(), d_colors.data(), d_opacities.data()}, nullptr),
        "backward");
  check(cudaDeviceSynchronize(), "synchronize");
  return {{d_means.host(), d_cholesky.host(), d_colors.host(), d_opacities.host(), images.host()}};
}

bool passes(const Case& c) {
  Problem p = draw(c);
  const Expected expected = evaluate(c, &p);
  const Results found = run(c, p), again = run(c, p);
  bool good = true;
  const auto report = [&](const char* what, double times) {
    if (times <= 1) return;
    std::printf("MISMATCH %s: %s off by %.3g times what is allowed\n", c.name.c_str(), what, times);
    good = false;
  };
  report("images", error(found.arrays[kArrays], expected.images, c.channels, 1e-5, &expected.near));
  for (int a = 0; a < kArrays; ++a)
    report(kNames[a], error(found.arrays[a], expected.gradients[a], 1, 1e-4, nullptr));
  for (int a = 0; a <= kArrays; ++a)
    if (!same_bits(found.arrays[a], again.arrays[a])) report("a second run", INFINITY);
  if (good) std::printf("ok %s\n", c.name.c_str());
  std::fflush(stdout);
  return good;
}

// Large tiles where there are 512 blocks of them, groups of 32 where there are 16,384 Gaussians.
std::vector<Case> cases() {
  std::vector<Case> all = {
      {"one pixel", 1, 1, 1, 1, 1},
      {"small tiles", 2, 22, 32, 32},
      {"small tiles, two channels", 1, 300, 40, 72, 2},
      {"large tiles, groups of 32", 520, 32, 9, 7},
      {"large tiles, four channels", 512, 3, 5, 33, 4},
      {"large image", 1, 4, 700, 1300},
      {"more Gaussians than a small tile's threads, one channel", 1, 200, 20, 17, 1},
      {"more Gaussians than a large tile's threads", 512, 260, 3, 2},
      {"no pre-filter", 2, 40, 25, 35, 3, 2, false},
      {"no pre-filter, degenerate", 1, 20, 12, 12, 3, 2, false, 1.0 / 255.0, Draw::kDegenerate},
      {"one sample", 1, 30, 21, 35, 3, 1},
      {"three samples", 1, 60, 7, 33, 4, 3},
      {"three samples, no pre-filter", 1, 30, 19, 18, 2, 3, false},
      {"min_weight 0", 1, 12, 24, 20, 3, 2, true, 0.0},
      {"min_weight 0, opacity 0", 1, 12, 24, 20, 3, 2, true, 0.0, Draw::kFaint},
      {"min_weight 1e-9", 1, 20, 24, 20, 3, 2, true, 1e-9},
      {"min_weight 0.3", 1, 20, 24, 20, 1, 2, true, 0.3},
      {"huge", 1, 9, 40, 40, 3, 2, true, 1.0 / 255.0, Draw::kHuge},
      {"thin", 1, 40, 40, 40, 3, 2, true, 1.0 / 255.0, Draw::kThin},
      {"all warps on a Gaussian", 1, 6, 72, 70, 3, 2, true, 1.0 / 255.0, Draw::kWide},
      {"all warps on a Gaussian, three samples", 1, 5, 66, 70, 2, 3, true, 0.1, Draw::kWide},
      {"through the clipping", 2, 22, 32, 32},
      {"through the clipping, three samples", 1, 30, 21, 35, 4, 3},
      {"wider than the strips' range", 1, 3, 2, 33000},
      {"no images", 0, 5, 8, 8},
      {"no Gaussians", 3, 0, 17, 9},
      {"not finite", 2, 40, 19, 18},
      {"ragged", 7, 102, 21, 35},
      {"ragged, no Gaussians", 2, 0, 5, 6},
      {"ragged, no images", 0, 4, 5, 6},
      {"ragged, large tiles, groups of 32", 520, 16600, 5, 4, 2},
      {"ragged, offsets beyond the end", 2, 9, 8, 8},
      {"ragged, negative offsets", 2, 9, 8, 8},
      {"ragged, not finite", 2, 12, 8, 8},
  };
  for (Case& c : all) {
    if (c.name.find("through the clipping") == 0) c.pass = true;
    if (c.name == "not finite") c.not_finite = {41, 50, 61, 79};
    if (c.name == "ragged") c.offsets = {3, 3, 8, 9, 9, 79, 98, 98};
    if (c.name == "ragged, no Gaussians") c.offsets = {0, 0, 0};
    if (c.name == "ragged, no images") c.offsets = {0};
    if (c.name == "ragged, large tiles, groups of 32")
      for (int b = 0; b <= 520; ++b) c.offsets.push_back(b * 31 + b % 7);
    if (c.name == "ragged, offsets beyond the end") c.offsets = {0, 4, 20};
    if (c.name == "ragged, negative offsets") c.offsets = {-2, 3, 9};
    if (c.name == "ragged, not finite") c.offsets = {0, 5, 12}, c.not_finite = {6};
  }
  return all;
}

}  // namespace

// With an argument only the cases of at most so many pixels and Gaussians: the host takes minutes
// for all.
int main(int count, char** arguments) {
  const int64_t most = count > 1 ? std::atoll(arguments[1]) : INT64_MAX;
  int failed = 0, ran = 0;
  for (const Case& c : cases()) {
    if (c.batch * c.height * c.width + c.total() > most) continue;
    failed += !passes(c);
    ++ran;
  }
  std::printf("%d of %d cases failed\n", failed, ran);
  return failed != 0 || ran == 0;
}
