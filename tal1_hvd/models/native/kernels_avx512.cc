#include "kernels.h"

#if defined(__x86_64__)
#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma")))
#define VECTOR_BYTES 64
#define KERNELS avx512_kernels
#include "kernels_body.h"
#endif
