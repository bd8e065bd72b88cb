// Memory and comparisons, shared by the drivers of the CUDA kernels.
//
// Every buffer is an allocation of its own and of exactly its size, filled with a pattern before a
// kernel writes to it, so that compute-sanitizer sees each wrong access: `make gpu-test`.
// tests/cuda_on_cpu stands in for CUDA where a driver is compiled for the host.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#ifndef __CUDACC__
#include "cuda_memory.h"
#endif

namespace {

using Floats = std::vector<float>;
using Doubles = std::vector<double>;

void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "error: %s: %s\n", what, cudaGetErrorString(error));
  std::exit(2);
}

template <class T>
class OnDevice {
 public:
  explicit OnDevice(size_t size) : size_(size) {
    if (size) check(cudaMalloc((void**)&data_, size * sizeof(T)), "cudaMalloc");
    if (size) check(cudaMemset(data_, 0x4c, size * sizeof(T)), "cudaMemset");  // floats of 5e7
  }
  explicit OnDevice(const std::vector<T>& from) : OnDevice(from.size()) {
    if (size_)
      check(cudaMemcpy(data_, from.data(), size_ * sizeof(T), cudaMemcpyHostToDevice), "to device");
  }
  OnDevice(const OnDevice&) = delete;
  ~OnDevice() { cudaFree(data_); }
  T* data() const { return data_; }
  std::vector<T> host() const {
    std::vector<T> out(size_);
    if (size_)
      check(cudaMemcpy(out.data(), data_, size_ * sizeof(T), cudaMemcpyDeviceToHost), "to host");
    return out;
  }

 private:
  T* data_ = nullptr;
  size_t size_;
};

// The largest error, in units of what is allowed; `skip` marks pixels that are not compared.
double error(const Floats& actual, const Doubles& expected, int channels, double allowed,
             const std::vector<char>* skip) {
  double largest = 0, found = 0;
  for (double e : expected)
    if (!std::isnan(e)) largest = std::max(largest, std::fabs(e));
  for (size_t k = 0; k < expected.size(); ++k) {
    if (std::isnan(expected[k]) != std::isnan(actual[k])) return INFINITY;
    if (std::isnan(expected[k]) || (skip && (*skip)[k / channels])) continue;
    found = std::max(found, std::fabs(actual[k] - expected[k]));
  }
  return found / (allowed * largest + 1e-30);
}

bool same_bits(const Floats& a, const Floats& b) {
  return a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

}  // namespace
