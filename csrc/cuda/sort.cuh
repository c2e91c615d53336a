// Sorting by one block, each thread with Items pairs of key and value in registers; pairs of equal keys keep their
// order.
#pragma once

#include "common.cuh"

#ifdef RDN_EMULATED
#include <algorithm>
#else
#include <cub/block/block_radix_sort.cuh>
#endif

namespace rdn::cuda {
namespace {

#ifdef RDN_EMULATED

template <int Threads, int Items>
struct BlockSort {
    struct Pair {
        uint32_t key, value;
    };
    struct Memory {
        Pair pairs[Threads * Items];
    };

    static void sort(Memory* memory, uint32_t (&keys)[Items], uint32_t (&values)[Items], int bits) {
        Pair* mine = memory->pairs + threadIdx.x * Items;
        for (int i = 0; i < Items; ++i)
            mine[i] = {keys[i], values[i]};
        __syncthreads();
        const uint32_t mask = bits >= 32 ? ~0u : (1u << bits) - 1;
        if (threadIdx.x == 0)
            std::stable_sort(memory->pairs, memory->pairs + Threads * Items,
                             [mask](Pair a, Pair b) { return (a.key & mask) < (b.key & mask); });
        __syncthreads();
        for (int i = 0; i < Items; ++i)
            keys[i] = mine[i].key, values[i] = mine[i].value;
    }
};

#else

template <int Threads, int Items>
struct BlockSort {
    using Radix = cub::BlockRadixSort<uint32_t, Threads, Items, uint32_t>;
    using Memory = typename Radix::TempStorage;

    // By the low `bits` of the keys. Thread t holds the pairs t * Items .. t * Items + Items - 1, before and after. A
    // barrier must stand between this and the next use of the memory.
    static __device__ void sort(Memory* memory, uint32_t (&keys)[Items], uint32_t (&values)[Items], int bits) {
        Radix(*memory).Sort(keys, values, 0, bits);
    }
};

#endif

}  // namespace
}  // namespace rdn::cuda
