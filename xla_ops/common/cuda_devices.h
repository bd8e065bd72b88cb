// Exports the architectures of the build and the devices of the machine, for Python to compare.
#pragma once

#include <cuda_runtime_api.h>
#include <pybind11/pybind11.h>

#include <utility>
#include <vector>

namespace gsdd {

// Returns the compute capabilities of the visible devices, none without a driver. Creates no
// context on a device.
inline std::vector<std::pair<int, int>> capabilities() {
  std::vector<std::pair<int, int>> found;
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) count = 0;
  for (int device = 0; device < count; ++device) {
    int major = 0, minor = 0;
    if (cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess &&
        cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device) == cudaSuccess)
      found.emplace_back(major, minor);
  }
  cudaGetLastError();  // clears the error
  return found;
}

inline void export_devices(pybind11::module_& m) {
  m.attr("architectures") = GSDD_ARCHITECTURES;  // CMake's names, separated by commas
  m.def("capabilities", [] {
    pybind11::list list;
    for (const auto& [major, minor] : capabilities())
      list.append(pybind11::make_tuple(major, minor));
    return list;
  });
}

}  // namespace gsdd
