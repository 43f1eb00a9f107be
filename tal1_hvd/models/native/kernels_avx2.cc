#include "kernels.h"

#if defined(__x86_64__)
#define TARGET __attribute__((target("avx2,fma")))
#define VECTOR_BYTES 32
#define KERNELS avx2_kernels
#include "kernels_body.h"
#endif
