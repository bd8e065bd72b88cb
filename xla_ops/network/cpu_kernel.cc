// Kernels of one image for one instruction set.
#include "network/cpu_kernel.h"

#include "network/cpu_conv.h"
#include "network/cpu_norm_pool.h"

#define GSDD_JOIN2(a, b) a##b
#define GSDD_JOIN(a, b) GSDD_JOIN2(a, b)
#define GSDD_NAME2(isa) #isa
#define GSDD_NAME(isa) GSDD_NAME2(isa)

namespace gsdd {

const NetworkKernel GSDD_JOIN(kNetwork, GSDD_ISA){GSDD_NAME(GSDD_ISA),
                                                  kNormPool<float>,
                                                  kNormPool<Bfloat16>,
                                                  packed_size,
                                                  pack,
                                                  conv_scratch,
                                                  conv,
                                                  gradient_size,
                                                  conv_gradient,
                                                  unpack_gradient};

}  // namespace gsdd
