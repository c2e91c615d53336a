// The best of many scores, in order, by one block.
#pragma once

#include "select.cuh"
#include "sort.cuh"

namespace rdn::cuda {
namespace {

constexpr int kBestThreads = 1024, kBestItems = 8;
constexpr int64_t kMostBest = kBestThreads * kBestItems;

union BestMemory {
    SelectMemory<unsigned> select;
    typename BlockSort<kBestThreads, kBestItems>::Memory sort;
};

inline int bits_for(int64_t count) {
    int bits = 1;
    while (int64_t{1} << bits < count)
        ++bits;
    return bits;
}

// Calls use(position, index) for the `most` (up to kMostBest) best of score(0..count-1) that are numbers, each from one
// thread, and returns how many there are. `found` is memory for one counter that all threads see, `list` for `most`
// pairs. To be called by kBestThreads threads; ends with a barrier.
template <class Score, class Use>
__device__ int best_first(int64_t count, int64_t most, int index_bits, const Score& score, const Use& use,
                          BestMemory* memory, int* found, uint2* list) {
    const auto key = [&](int64_t i) {
        const float s = score(i);
        return s == s ? order_key(s, i, index_bits) : kNoKey;
    };
    if (threadIdx.x == 0) *found = 0;
    const Selection<unsigned> best = select_best<unsigned>(
        count, 32 + index_bits, static_cast<unsigned>(most), key, [](int64_t) { return 1u; }, &memory->select);
    for (int64_t i = threadIdx.x; i < count; i += blockDim.x) {
        const uint64_t k = key(i);
        if (k == kNoKey || k > best.last) continue;
        const int place = atomicAdd(found, 1);
        list[place] = {static_cast<uint32_t>(k >> index_bits), static_cast<uint32_t>(i)};
    }
    __syncthreads();
    const int total = *found;
    // The list's order is by chance; sorting by index, then by score, leaves nothing to it.
    uint32_t keys[kBestItems], indices[kBestItems];
    for (int k = 0; k < kBestItems; ++k) {
        const int place = threadIdx.x * kBestItems + k;
        const uint2 pair = place < total ? list[place] : uint2{~0u, ~0u};
        keys[k] = pair.x, indices[k] = pair.y;
    }
    using Sort = BlockSort<kBestThreads, kBestItems>;
    Sort::sort(&memory->sort, indices, keys, index_bits);
    __syncthreads();
    Sort::sort(&memory->sort, keys, indices, 32);
    for (int k = 0; k < kBestItems; ++k) {
        const int position = threadIdx.x * kBestItems + k;
        if (position < total) list[position].y = indices[k];
    }
    __syncthreads();
    for (int position = threadIdx.x; position < total; position += blockDim.x)
        use(position, static_cast<int64_t>(list[position].y));
    __syncthreads();
    return total;
}

}  // namespace
}  // namespace rdn::cuda
