// Tensor core products of 16 x 8 x 16 float16 with float32 sums, and what feeds them. One warp works together; with
// group = lane / 4 and quad = lane % 4 a lane holds (PTX ISA, "Matrix fragments for mma.m16n8k16")
//     a[0..3]  rows group, group + 8, group, group + 8; columns 2 quad, 2 quad + 1, the last two of them + 8
//     b[0..1]  rows 2 quad, 2 quad + 1 (+ 8); column group
//     d[0..3]  rows group (twice), group + 8 (twice); columns 2 quad, 2 quad + 1
#pragma once

#include "common.cuh"

namespace rdn::cuda {
namespace {

constexpr uint32_t kHalfOnes = 0x3c003c00;  // two float16 1.0

#ifdef RDN_EMULATED

inline float half_of(uint32_t pair, int which) {
    const uint16_t bits = static_cast<uint16_t>(pair >> (16 * which));
    _Float16 value;
    std::memcpy(&value, &bits, sizeof value);
    return static_cast<float>(value);
}

inline uint32_t pack_halves(float low, float high) {
    const _Float16 values[2] = {static_cast<_Float16>(low), static_cast<_Float16>(high)};
    uint32_t pair;
    std::memcpy(&pair, values, sizeof pair);
    return pair;
}

inline void multiply_add(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    struct Fragments {
        uint32_t a[4], b[2];
    };
    const Fragments mine = {{a[0], a[1], a[2], a[3]}, {b0, b1}};
    const auto* slots = emulator::exchange(&mine, sizeof mine);
    const int lane = threadIdx.x % kWarp;
    for (int e = 0; e < 4; ++e) {
        const int row = lane / 4 + e / 2 * 8, column = lane % 4 * 2 + e % 2;
        for (int k = 0; k < 16; ++k) {
            const auto left = emulator::from_lane<Fragments>(slots, row % 8 * 4 + k % 8 / 2);
            const auto right = emulator::from_lane<Fragments>(slots, column * 4 + k % 8 / 2);
            d[e] += half_of(left.a[row / 8 + k / 8 * 2], k % 2) * half_of(right.b[k / 8], k % 2);
        }
    }
}

inline void load_matrices_with(const Half* row, uint32_t (&out)[4], bool transposed) {
    const auto* slots = emulator::exchange(&row, sizeof row);
    const int lane = threadIdx.x % kWarp;
    for (int m = 0; m < 4; ++m) {
        float pair[2];
        for (int e = 0; e < 2; ++e) {
            const int r = transposed ? lane % 4 * 2 + e : lane / 4, c = transposed ? lane / 4 : lane % 4 * 2 + e;
            pair[e] = to_float(emulator::from_lane<const Half*>(slots, m * 8 + r)[c]);
        }
        out[m] = pack_halves(pair[0], pair[1]);
    }
}

inline void load_matrices(const Half* row, uint32_t (&out)[4]) {
    load_matrices_with(row, out, false);
}
inline void load_matrices_transposed(const Half* row, uint32_t (&out)[4]) {
    load_matrices_with(row, out, true);
}

inline void copy_async(Half* to, const Half* from, bool wanted) {
    if (wanted)
        std::memcpy(static_cast<void*>(to), from, 16);
    else
        std::memset(static_cast<void*>(to), 0, 16);
}
inline void commit_copies() {}
template <int Pending>
void wait_for_copies() {}

inline float fast_log2(float x) {
    return log2f(x);
}
inline float fast_exp2(float x) {
    return exp2f(x);
}
inline void fast_sincos(float x, float* sine, float* cosine) {
    *sine = sinf(x), *cosine = cosf(x);
}

#else

__device__ __forceinline__ uint32_t pack_halves(float low, float high) {
    const __half2 pair = __floats2half2_rn(low, high);
    return *reinterpret_cast<const uint32_t*>(&pair);
}

// d += a b
__device__ __forceinline__ void multiply_add(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
#if __CUDA_ARCH__ >= 800
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3},{%4,%5},{%6},{%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(b0));
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3},{%4,%5},{%6},{%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[2]), "r"(a[3]), "r"(b1));
#endif
}

__device__ __forceinline__ unsigned shared_address(const void* pointer) {
    return static_cast<unsigned>(__cvta_generic_to_shared(pointer));
}

// Four 8 x 8 matrices in shared memory; lane l gives the address of row l % 8 of matrix l / 8. A lane receives of each
// the row `group`, columns 2 quad and 2 quad + 1.
__device__ __forceinline__ void load_matrices(const Half* row, uint32_t (&out)[4]) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3},[%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(shared_address(row))
                 : "memory");
}

// The same of the matrices transposed.
__device__ __forceinline__ void load_matrices_transposed(const Half* row, uint32_t (&out)[4]) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3},[%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(shared_address(row))
                 : "memory");
}

// 16 bytes from global to shared memory, or 16 zeros; there after the next commit, wait and barrier.
__device__ __forceinline__ void copy_async(Half* to, const Half* from, bool wanted) {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.cg.shared.global [%0],[%1],16,%2;" ::"r"(shared_address(to)), "l"(from), "r"(wanted ? 16 : 0)
                 : "memory");
#else
    *reinterpret_cast<uint4*>(to) = wanted ? *reinterpret_cast<const uint4*>(from) : make_uint4(0, 0, 0, 0);
#endif
}
__device__ __forceinline__ void commit_copies() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
// Until all but the last `Pending` commits have arrived.
template <int Pending>
__device__ __forceinline__ void wait_for_copies() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
#endif
}

__device__ __forceinline__ float fast_log2(float x) {
    float y;
    asm("lg2.approx.ftz.f32 %0,%1;" : "=f"(y) : "f"(x));
    return y;
}
__device__ __forceinline__ float fast_exp2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0,%1;" : "=f"(y) : "f"(x));
    return y;
}
// |x| at most pi.
__device__ __forceinline__ void fast_sincos(float x, float* sine, float* cosine) {
    *sine = __sinf(x), *cosine = __cosf(x);
}

#endif

__device__ __forceinline__ uint32_t load_pair(const Half* from) {
    return *reinterpret_cast<const uint32_t*>(from);
}

// The two float16 of a pair.
__device__ __forceinline__ float2 unpack_halves(uint32_t pair) {
    Half halves[2];
    memcpy(static_cast<void*>(halves), &pair, sizeof pair);
    return {to_float(halves[0]), to_float(halves[1])};
}

}  // namespace
}  // namespace rdn::cuda
