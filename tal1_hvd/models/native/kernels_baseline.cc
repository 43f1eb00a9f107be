// For any processor: 16-byte vectors, which x86-64 (SSE2) and aarch64 (NEON) always have.
#define TARGET
#define VECTOR_BYTES 16
#define KERNELS baseline_kernels
#include "kernels_body.h"
