// What every kernel file begins with: launches, shared memory, numbers of the three feature types.
//
// A kernel file is compiled twice: by nvcc, and by the host compiler against csrc/emulator, which runs the very same
// bodies thread by thread so that they are tested where there is no GPU. So a kernel file
// - starts kernels with launch(), takes shared memory from shared_memory<T>(), and has all of it there;
// - calls a barrier, a shuffle or a vote with every thread of the block or warp, which is right on a GPU too.
// -fmad=false holds, as -ffp-contract=off does on the CPU: fused() where one rounding is wanted.
#pragma once

#ifdef RDN_EMULATED
#include "emulator/emulator.h"
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#endif

#include <cstdint>

#include "rdn/cuda_ops.h"
#include "rdn/host_device.h"

namespace rdn::cuda {
namespace {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;
constexpr Status kBadArgument = 1;  // cudaErrorInvalidValue

using Half = __half;
using BFloat16 = __nv_bfloat16;

#ifndef RDN_EMULATED

template <class T>
__device__ __forceinline__ T* shared_memory() {
    extern __shared__ __align__(16) unsigned char block_memory[];
    return reinterpret_cast<T*>(block_memory);
}

template <class... Parameters, class... Arguments>
Status launch(void (*kernel)(Parameters...), dim3 grid, int block, std::size_t shared_bytes, Stream stream,
              Arguments... arguments) {
    constexpr std::size_t kAlwaysAllowed = 48 * 1024;
    if (shared_bytes > kAlwaysAllowed) {
        const Status status = cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                                   cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared_bytes));
        if (status != cudaSuccess) return status;
    }
    kernel<<<grid, block, shared_bytes, stream>>>(static_cast<Parameters>(arguments)...);
    return cudaGetLastError();
}

#endif

RDN_HD int64_t ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

// ---- numbers

RDN_HD float to_float(float x) {
    return x;
}
__device__ __forceinline__ float to_float(Half x) {
    return __half2float(x);
}
__device__ __forceinline__ float to_float(BFloat16 x) {
    return __bfloat162float(x);
}

template <class T>
__device__ __forceinline__ T from_float(float x);
template <>
__device__ __forceinline__ float from_float<float>(float x) {
    return x;
}
template <>
__device__ __forceinline__ Half from_float<Half>(float x) {
    return __float2half_rn(x);
}
template <>
__device__ __forceinline__ BFloat16 from_float<BFloat16>(float x) {
    return __float2bfloat16_rn(x);
}

// Element of an array whose type is known only when the kernel runs.
__device__ __forceinline__ float element(const void* data, Type type, int64_t index) {
    if (type == Type::kFloat16) return to_float(static_cast<const Half*>(data)[index]);
    if (type == Type::kBFloat16) return to_float(static_cast<const BFloat16*>(data)[index]);
    return static_cast<const float*>(data)[index];
}

// Count neighbours, aligned to their size (at most 16 bytes), moved as one.
template <class T, int Count>
struct alignas(sizeof(T) * Count) Pack {
    T at[Count];
};

template <class T, int Count>
__device__ __forceinline__ Pack<T, Count> load_pack(const T* from) {
    return *reinterpret_cast<const Pack<T, Count>*>(from);
}
template <class T, int Count>
__device__ __forceinline__ void store_pack(T* to, const Pack<T, Count>& pack) {
    *reinterpret_cast<Pack<T, Count>*>(to) = pack;
}

inline bool aligned(const void* pointer, std::size_t bytes) {
    return reinterpret_cast<std::uintptr_t>(pointer) % bytes == 0;
}

// Calls use(T{}) with the C++ type of `type`.
template <class Use>
Status with_type(Type type, const Use& use) {
    switch (type) {
        case Type::kFloat32:
            return use(float{});
        case Type::kFloat16:
            return use(Half{});
        case Type::kBFloat16:
            return use(BFloat16{});
    }
    return kBadArgument;
}

// ---- warps and blocks

template <class T>
__device__ __forceinline__ T warp_sum(T x) {
    for (int step = kWarp / 2; step > 0; step /= 2)
        x += __shfl_xor_sync(kAllLanes, x, step);
    return x;
}

__device__ __forceinline__ float warp_largest(float x) {
    for (int step = kWarp / 2; step > 0; step /= 2)
        x = greater(x, __shfl_xor_sync(kAllLanes, x, step));
    return x;
}

// How many of the block's threads before this one hold true, and (in *total) how many do at all.
// `sums` is shared memory for one number a warp; the block has a whole number of warps.
__device__ __forceinline__ int count_before(bool holds, int* sums, int* total) {
    const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
    const unsigned votes = __ballot_sync(kAllLanes, holds);
    if (lane == 0) sums[warp] = __popc(votes);
    __syncthreads();
    int before = __popc(votes & ((1u << lane) - 1));
    *total = 0;
    for (int w = 0; w < warps; ++w) {
        if (w < warp) before += sums[w];
        *total += sums[w];
    }
    __syncthreads();
    return before;
}

}  // namespace
}  // namespace rdn::cuda
