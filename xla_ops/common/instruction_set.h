// Chooses among kernels that were compiled for several instruction sets.
#pragma once

#include <strings.h>

#include <cstdlib>
#include <vector>

namespace gsdd {
namespace {

// Returns the kernels that this machine supports, the widest first.
template <class Kernel>
std::vector<const Kernel*> supported(const Kernel& avx512, const Kernel& avx2,
                                     const Kernel& generic) {
  std::vector<const Kernel*> kernels;
#ifdef GSDD_HAVE_X86
  const bool fma = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool wide = fma && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl");
  if (wide) kernels.push_back(&avx512);
  if (fma) kernels.push_back(&avx2);
#else
  (void)avx512, (void)avx2;
#endif
  kernels.push_back(&generic);
  return kernels;
}

// Returns the widest kernel, or the one that GSDD_CPU names, in upper or lower case.
// gsdd_jax/core/native.py rejects other names.
template <class Kernel>
const Kernel& choose(const Kernel& avx512, const Kernel& avx2, const Kernel& generic) {
  const std::vector<const Kernel*> kernels = supported(avx512, avx2, generic);
  if (const char* wanted = std::getenv("GSDD_CPU"))
    for (const Kernel* kernel : kernels)
      if (strcasecmp(wanted, kernel->name) == 0) return *kernel;
  return *kernels.front();
}

}  // namespace
}  // namespace gsdd
