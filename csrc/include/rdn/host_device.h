// Marks a formula that host and device code share.
#pragma once

#include <cmath>

// Internal linkage and forced inlining: the same header is compiled for several instruction sets (cpu/isa.h, rule 1).
#ifdef __CUDACC__
#define RDN_HD static __host__ __device__ __forceinline__
#else
#define RDN_HD static inline __attribute__((always_inline))
#endif

namespace rdn {

// a * b + c, rounded once where the target has the instruction (fmaf in software would cost more than it gives).
RDN_HD float fused(float a, float b, float c) {
#if defined(__CUDA_ARCH__) || defined(__FMA__)
    return fmaf(a, b, c);
#else
    return a * b + c;
#endif
}

RDN_HD float lesser(float a, float b) {
    return a < b ? a : b;
}
RDN_HD float greater(float a, float b) {
    return a > b ? a : b;
}

}  // namespace rdn
