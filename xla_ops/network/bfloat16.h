// bfloat16 as the upper half of a float, on CPU and GPU.
#pragma once

#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define GSDD_BOTH __host__ __device__
#else
#define GSDD_BOTH
#endif

namespace gsdd {

struct Bfloat16 {
  uint16_t bits;
};

GSDD_BOTH static inline float widen(float x) { return x; }
GSDD_BOTH static inline float widen(Bfloat16 x) {
  const uint32_t bits = (uint32_t)x.bits << 16;
  float y;
  memcpy(&y, &bits, sizeof y);
  return y;
}

GSDD_BOTH static inline void narrow(float x, float* y) { *y = x; }
GSDD_BOTH static inline void narrow(float x, Bfloat16* y) {  // to the nearest, ties to even
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  y->bits = x != x ? 0x7fc0 : (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

}  // namespace gsdd
