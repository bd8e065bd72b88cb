// Calls the CUDA kernels of instance norm, ReLU and pooling along each of their paths, without
// Python, and compares them with the definition and its derivatives in double precision. Status 1
// on a mismatch.
#include <random>
#include <string>

#include "cuda_driver.h"
#include "network/cuda_kernel.cu"

namespace {

struct Case {
  std::string name;
  int64_t images, images_per_row;
  int height, width, channels;
  bool narrow = false;  // bfloat16

  int64_t statistics() const { return images * channels; }
  int64_t pixels() const { return (int64_t)height * width; }
  int64_t numbers() const { return statistics() * pixels(); }
};

// Numbers as the kernel reads them: float, or bfloat16 in `half`.
struct Array {
  Floats values;
  std::vector<uint16_t> half;

  Array(Floats from, bool narrow) : values(std::move(from)) {
    if (!narrow) return;
    for (float& value : values) {
      gsdd::Bfloat16 rounded;
      gsdd::narrow(value, &rounded);
      half.push_back(rounded.bits);
      value = gsdd::widen(rounded);
    }
  }
};

class OnDeviceArray {
 public:
  OnDeviceArray(size_t size, bool narrow) : floats_(narrow ? 0 : size), half_(narrow ? size : 0) {}
  explicit OnDeviceArray(const Array& from)
      : floats_(from.half.empty() ? from.values : Floats()), half_(from.half) {}
  void* data() const { return half_.data() ? (void*)half_.data() : (void*)floats_.data(); }
  Floats host() const {
    Floats out = floats_.host();
    for (uint16_t bits : half_.host()) out.push_back(gsdd::widen(gsdd::Bfloat16{bits}));
    return out;
  }

 private:
  OnDevice<float> floats_;
  OnDevice<uint16_t> half_;
};

int64_t middle_pixel(const Case& c) { return c.height / 2 * c.width + c.width / 2; }

struct Problem {
  Array x, a, g;  // images, cotangents of their gradient, cotangents of the results
  Floats scale, shift, a_scale, a_shift;
};

Problem draw(const Case& c) {
  std::mt19937 bits((unsigned)std::hash<std::string>()(c.name));
  std::normal_distribution<double> normal;
  const auto draws = [&](int64_t count, double mean) {
    Floats out;
    for (int64_t k = 0; k < count; ++k) out.push_back((float)(mean + normal(bits)));
    return out;
  };
  const int64_t of_rows = c.images / c.images_per_row * c.channels;
  return {{draws(c.numbers(), 3), c.narrow},
          {draws(c.numbers(), 0), c.narrow},
          {draws(c.numbers() / 4, 0), c.narrow},
          draws(of_rows, 0),
          draws(of_rows, 0),
          draws(c.statistics(), 0),
          draws(c.statistics(), 0)};
}

enum { kY, kMean, kRate, kDx, kDScale, kDShift, kSecondX, kSecondScale, kSecondG, kResults };
const char* const kNames[kResults] = {"y",       "mean",     "rate",         "dx",      "d_scale",
                                      "d_shift", "second x", "second scale", "second g"};
bool of_images(int k) { return k == kY || k == kDx || k == kSecondX || k == kSecondG; }
bool pooled(int k) { return k == kY || k == kSecondG; }

struct Expected {
  Doubles arrays[kResults];
};

// norm_pool.h's formulas, from plain means over an image's channel.
Expected evaluate(const Case& c, const Problem& p) {
  Expected out;
  for (int k = 0; k < kResults; ++k)
    out.arrays[k].assign(of_images(k) ? c.numbers() / (pooled(k) ? 4 : 1) : c.statistics(), 0.0);
  const int64_t pixels = c.pixels();
  for (int64_t b = 0; b < c.images; ++b)
    for (int k = 0; k < c.channels; ++k) {
      const int64_t of = b * c.channels + k, of_row = b / c.images_per_row * c.channels + k;
      const double scale = p.scale[of_row], shift = p.shift[of_row];
      const auto at = [&](int64_t pixel) { return (b * pixels + pixel) * c.channels + k; };
      const auto block = [&](int64_t pixel) {
        const int64_t i = pixel / c.width / 2, j = pixel % c.width / 2;
        return (b * (pixels / 4) + i * (c.width / 2) + j) * c.channels + k;
      };
      const auto mean = [&](const auto& f) {
        double sum = 0;
        for (int64_t n = 0; n < pixels; ++n) sum += f(n);
        return sum / pixels;
      };
      const auto x = [&](int64_t n) { return (double)p.x.values[at(n)]; };
      const auto a = [&](int64_t n) { return (double)p.a.values[at(n)]; };
      const double middle = mean(x);
      const double variance = mean([&](int64_t n) { return (x(n) - middle) * (x(n) - middle); });
      const double r = 1 / std::sqrt(variance + 1e-5);
      const auto h = [&](int64_t n) { return r * (x(n) - middle); };
      const auto open = [&](int64_t n) { return scale * h(n) + shift > 0; };
      const auto u = [&](int64_t n) { return open(n) ? 0.25 * p.g.values[block(n)] : 0.0; };
      const double u0 = mean(u), u1 = mean([&](int64_t n) { return u(n) * h(n); });
      const double a0 = mean(a), a1 = mean([&](int64_t n) { return a(n) * h(n); });
      const double t = mean([&](int64_t n) { return a(n) * u(n); }) - a0 * u0 - a1 * u1;
      const double a_scale = p.a_scale[of], a_shift = p.a_shift[of];
      const auto e = [&](int64_t n) {
        return r * scale * (-a1 * u(n) - u1 * a(n)) + a_scale * u(n);
      };
      const double e0 = mean(e), e1 = mean([&](int64_t n) { return e(n) * h(n); });
      out.arrays[kMean][of] = middle - x(middle_pixel(c));  // which the kernels subtract first
      out.arrays[kRate][of] = r;
      out.arrays[kDScale][of] = pixels * u1;
      out.arrays[kDShift][of] = pixels * u0;
      out.arrays[kSecondScale][of] = pixels * r * t;
      for (int64_t n = 0; n < pixels; ++n) {
        const double v = r * scale * (a(n) - a0 - h(n) * a1) + a_scale * h(n) + a_shift;
        out.arrays[kY][block(n)] += open(n) ? 0.25 * (scale * h(n) + shift) : 0.0;
        out.arrays[kDx][at(n)] = r * scale * (u(n) - u0 - h(n) * u1);
        out.arrays[kSecondX][at(n)] = r * (e(n) - e0 - h(n) * e1) - r * r * scale * t * h(n);
        out.arrays[kSecondG][block(n)] += open(n) ? 0.25 * v : 0.0;
      }
    }
  return out;
}

// Moves pixels near the ReLU's edge, where float may be on the other side.
void move_from_the_edge(const Case& c, Problem* p) {
  for (int round = 0; round < 20; ++round) {
    const Expected expected = evaluate(c, *p);
    for (int64_t n = 0; n < c.numbers(); ++n) {
      const int64_t b = n / c.channels / c.pixels(), k = n % c.channels;
      const int64_t of = b * c.channels + k, row = b / c.images_per_row * c.channels + k;
      const float middle = p->x.values[(b * c.pixels() + middle_pixel(c)) * c.channels + k];
      const double centered = (double)p->x.values[n] - middle - expected.arrays[kMean][of];
      const double h = expected.arrays[kRate][of] * centered;
      if (std::fabs(p->scale[row] * h + p->shift[row]) < 1e-3) p->x.values[n] += 0.05f;
    }
    p->x = Array(p->x.values, c.narrow);
  }
}

struct Results {
  Floats arrays[kResults];
};

Results run(const Case& c, const Problem& p) {
  OnDeviceArray x(p.x), a(p.a), g(p.g);
  OnDevice<float> scale(p.scale), shift(p.shift), a_scale(p.a_scale), a_shift(p.a_shift);
  const size_t statistics = (size_t)c.statistics(), numbers = (size_t)c.numbers();
  OnDevice<float> mean(statistics), rate(statistics), d_scale(statistics), d_shift(statistics);
  OnDevice<float> second_scale(statistics);
  OnDeviceArray y(numbers / 4, c.narrow), dx(numbers, c.narrow), second_x(numbers, c.narrow);
  OnDeviceArray second_g(numbers / 4, c.narrow);
  const gsdd::NormPoolBatch batch = {x.data(),    scale.data(), shift.data(),     mean.data(),
                                     rate.data(), c.images,     c.images_per_row, c.height,
                                     c.width,     c.channels,   c.narrow,         1e-5f};
  check(gsdd::launch_norm_pool(batch, y.data(), nullptr), "norm_pool");
  check(gsdd::launch_norm_pool_gradient(batch, g.data(), dx.data(), d_scale.data(), d_shift.data(),
                                        nullptr),
        "gradient");
  check(
      gsdd::launch_norm_pool_second(batch, g.data(), {a.data(), a_scale.data(), a_shift.data()},
                                    second_x.data(), second_scale.data(), second_g.data(), nullptr),
      "second");
  check(cudaDeviceSynchronize(), "synchronize");
  return {{y.host(), mean.host(), rate.host(), dx.host(), d_scale.host(), d_shift.host(),
           second_x.host(), second_scale.host(), second_g.host()}};
}

bool passes(const Case& c) {
  Problem p = draw(c);
  move_from_the_edge(c, &p);
  const Expected expected = evaluate(c, p);
  const Results found = run(c, p), again = run(c, p);
  bool good = true;
  for (int k = 0; k < kResults; ++k) {
    const double allowed = c.narrow && of_images(k) ? 0.01 : 1e-4;
    double times = error(found.arrays[k], expected.arrays[k], 1, allowed, nullptr);
    if (!same_bits(found.arrays[k], again.arrays[k])) times = INFINITY;
    if (times <= 1) continue;
    std::printf("MISMATCH %s: %s off by %.3g times what is allowed\n", c.name.c_str(), kNames[k],
                times);
    good = false;
  }
  if (good) std::printf("ok %s\n", c.name.c_str());
  std::fflush(stdout);
  return good;
}

// A thread keeps 2 blocks of 2 x 2 pixels of an image of 64, 8 of 256, and none of a larger one's.
std::vector<Case> cases() {
  std::vector<Case> all = {
      {"one block", 3, 3, 2, 2, 17},
      {"small images", 2, 2, 4, 6, 3},
      {"small images, rows of scales", 6, 2, 4, 4, 18},
      {"two blocks a thread", 2, 1, 16, 12, 40},
      {"eight blocks a thread", 1, 1, 32, 32, 16},
      {"larger images", 1, 1, 34, 36, 5},
      {"no images", 0, 1, 4, 4, 3},
  };
  for (size_t k = 0, count = all.size(); k < count; ++k) {
    Case narrow = all[k];
    narrow.name += ", bfloat16";
    narrow.narrow = true;
    all.push_back(narrow);
  }
  return all;
}

}  // namespace

int main() {
  int failed = 0, ran = 0;
  for (const Case& c : cases()) {
    failed += !passes(c);
    ++ran;
  }
  std::printf("%d of %d cases failed\n", failed, ran);
  return failed != 0;
}
