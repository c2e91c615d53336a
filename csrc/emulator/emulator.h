// CUDA's execution model on one CPU thread, as far as csrc/cuda uses it: tests only.
//
// The threads of a block are fibers. Each runs until it needs the others (a barrier, a shuffle, a vote), then the next
// one does. That finds what a GPU would hide or show at random:
// - shared memory is filled with NaNs before every block and ends at a page that cannot be touched;
// - threads and blocks run in ascending or descending order (set_descending), so that a missing barrier, or a block
// that
//   relies on another, differs in one of them;
// - a barrier that some threads never reach is an error.
// Tensor core instructions are computed as PTX defines them, fragment by fragment.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "rdn/cuda_ops.h"

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __restrict__ __restrict

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct uint2 {
    uint32_t x, y;
};
struct alignas(16) uint4 {
    uint32_t x, y, z, w;
};
struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) {
    return {x, y, z, w};
}
inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) {
    return {x, y, z, w};
}

struct __half {
    _Float16 value;
};
struct __nv_bfloat16 {
    uint16_t bits;
};
inline float __half2float(__half x) {
    return static_cast<float>(x.value);
}
inline __half __float2half_rn(float x) {
    return {static_cast<_Float16>(x)};
}
inline float __bfloat162float(__nv_bfloat16 x) {
    const uint32_t bits = uint32_t{x.bits} << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}
inline __nv_bfloat16 __float2bfloat16_rn(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    if (x != x) return {0x7fff};
    return {static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

namespace rdn::emulator {

extern dim3 thread_index, block_index, block_size, grid_size;
extern unsigned char* block_memory;

void set_descending(bool descending);
void block_barrier();
// Everything that the lanes of this warp wrote to their slots; the slots stay until the next call.
constexpr int kSlotBytes = 64;
const unsigned char (*exchange(const void* mine, std::size_t bytes))[kSlotBytes];

using Body = void (*)(const void* context);
void run_grid(dim3 grid, int block, std::size_t shared_bytes, Body body, const void* context);

template <class T>
T from_lane(const unsigned char (*slots)[kSlotBytes], int lane) {
    T value;
    std::memcpy(static_cast<void*>(&value), slots[lane], sizeof value);
    return value;
}

}  // namespace rdn::emulator

#define threadIdx rdn::emulator::thread_index
#define blockIdx rdn::emulator::block_index
#define blockDim rdn::emulator::block_size
#define gridDim rdn::emulator::grid_size

inline void __syncthreads() {
    rdn::emulator::block_barrier();
}
inline void __syncwarp() {
    rdn::emulator::exchange(nullptr, 0);
}
template <class T>
T __shfl_sync(unsigned, T value, int lane) {
    return rdn::emulator::from_lane<T>(rdn::emulator::exchange(&value, sizeof value), lane & 31);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int step) {
    return __shfl_sync(mask, value, static_cast<int>(threadIdx.x % 32) ^ step);
}
inline unsigned __ballot_sync(unsigned, bool holds) {
    const auto* slots = rdn::emulator::exchange(&holds, sizeof holds);
    unsigned votes = 0;
    for (int lane = 0; lane < 32; ++lane)
        votes |= static_cast<unsigned>(rdn::emulator::from_lane<bool>(slots, lane)) << lane;
    return votes;
}
inline int __popc(unsigned x) {
    return __builtin_popcount(x);
}
inline int __popcll(unsigned long long x) {
    return __builtin_popcountll(x);
}
inline int __ffsll(long long x) {
    return __builtin_ffsll(x);
}
template <class T>
T atomicAdd(T* to, T value) {
    const T before = *to;
    *to += value;
    return before;
}
template <class T>
T atomicOr(T* to, T value) {
    const T before = *to;
    *to |= value;
    return before;
}

namespace rdn::cuda {
namespace {

template <class T>
T* shared_memory() {
    return reinterpret_cast<T*>(emulator::block_memory);
}

template <class... Parameters, class... Arguments>
Status launch(void (*kernel)(Parameters...), dim3 grid, int block, std::size_t shared_bytes, Stream,
              Arguments... arguments) {
    constexpr std::size_t kMostShared = 99 * 1024;  // of sm_86 and sm_89
    if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.y > 65535 || grid.z > 65535 || block < 1 || block > 1024 ||
        shared_bytes > kMostShared)
        return 9;  // cudaErrorInvalidConfiguration
    const auto call = [&] { kernel(static_cast<Parameters>(arguments)...); };
    using Call = decltype(call);
    emulator::run_grid(
        grid, block, shared_bytes, [](const void* context) { (*static_cast<const Call*>(context))(); }, &call);
    return 0;
}

}  // namespace
}  // namespace rdn::cuda
