// Which of the compiled kernels this processor runs.
#pragma once

#include <cstdlib>
#include <string>

#include "kernels.h"

namespace tal1_hvd {

enum class Simd { baseline, avx2, avx512 };

// The widest instruction set that this processor has; TAL1_HVD_SIMD can name a narrower one.
inline Simd choose_simd() {
#if defined(__x86_64__)
  const char* variable = std::getenv("TAL1_HVD_SIMD");
  const std::string widest = variable == nullptr ? "" : variable;
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (avx512 && widest != "avx2" && widest != "baseline") return Simd::avx512;
  if (avx2 && widest != "baseline") return Simd::avx2;
#endif
  return Simd::baseline;
}

inline Simd simd() {
  static const Simd chosen = choose_simd();
  return chosen;
}

template <typename T>
Kernels<T> choose_kernels() {
#if defined(__x86_64__)
  if (simd() == Simd::avx512) return avx512_kernels<T>();
  if (simd() == Simd::avx2) return avx2_kernels<T>();
#endif
  return baseline_kernels<T>();
}

}  // namespace tal1_hvd
