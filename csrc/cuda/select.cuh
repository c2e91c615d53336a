// Radix selection by one block: the best of many scores without sorting them all.
#pragma once

#include "common.cuh"
#include "rdn/order.h"

namespace rdn::cuda {
namespace {

constexpr uint64_t kNoKey = ~uint64_t{0};  // larger than any order_key
constexpr int kDigitBits = 8;
constexpr int kDigits = 1 << kDigitBits;

// Shared memory of select_best.
template <class Weight>
struct SelectMemory {
    Weight histogram[kDigits];
    Weight before;  // weight of the digits below the one chosen
    int digit;
    bool whole;  // whether all keys of that digit are taken
};

// Adds the warp's weights to the histogram. Scores crowd a few digits, and atomics on one address wait for each other:
// the lanes of the two commonest digits add up first.
template <class Weight>
__device__ void count_digits(bool counts, int digit, Weight weight, Weight* histogram) {
    const int lane = threadIdx.x % kWarp;
    for (int round = 0; round < 2; ++round) {
        const unsigned waiting = __ballot_sync(kAllLanes, counts);
        if (waiting == 0) return;
        const int leader = __ffsll(waiting) - 1;
        const int commonest = __shfl_sync(kAllLanes, digit, leader);
        const bool same = counts && digit == commonest;
        const Weight sum = warp_sum(same ? weight : Weight{});
        if (lane == leader) atomicAdd(&histogram[digit], sum);
        counts = counts && !same;
    }
    if (counts) atomicAdd(&histogram[digit], weight);
}

// By the first warp: the digit at which the running sum, from `before` on, reaches the budget; the last one if none
// does.
template <class Weight>
__device__ void choose_digit(Weight before, Weight budget, SelectMemory<Weight>* memory) {
    constexpr int kShare = kDigits / kWarp;
    const int lane = threadIdx.x;
    Weight sum{};
    for (int k = 0; k < kShare; ++k)
        sum += memory->histogram[lane * kShare + k];
    Weight running = sum;  // of the lanes up to this one
    for (int step = 1; step < kWarp; step *= 2) {
        const Weight other = __shfl_sync(kAllLanes, running, lane - step);
        if (lane >= step) running += other;
    }
    const unsigned reached = __ballot_sync(kAllLanes, before + running >= budget);
    const int chosen = reached == 0 ? kWarp - 1 : __ffsll(reached) - 1;
    if (lane != chosen) return;
    Weight below = before + running - sum;
    int digit = lane * kShare;
    for (; digit < lane * kShare + kShare - 1 && below + memory->histogram[digit] < budget; ++digit)
        below += memory->histogram[digit];
    memory->digit = digit, memory->before = below;
    memory->whole = below + memory->histogram[digit] <= budget;
}

template <class Weight>
struct Selection {
    uint64_t last;  // the best are the keys up to this one, kNoKey left out
    Weight before;  // weight of those below it; the key `last` itself may be taken in part
    bool whole;     // whether every one of them is taken whole
};

// The smallest of keys key(0..count-1), all different but for kNoKey, whose weights add up to `budget` or just more.
// Called by every thread of a block of whole warps; keys have `bits` bits. Ends with a barrier.
template <class Weight, class Key, class WeightOf>
__device__ Selection<Weight> select_best(int64_t count, int bits, Weight budget, const Key& key,
                                         const WeightOf& weight_of, SelectMemory<Weight>* memory) {
    uint64_t prefix = 0;
    Weight before{};
    bool whole = false;
    int shift = static_cast<int>(ceil_div(bits, kDigitBits)) * kDigitBits;
    while (shift > 0 && !whole) {
        const uint64_t known = shift >= 64 ? 0 : ~uint64_t{0} << shift;
        shift -= kDigitBits;
        for (int k = threadIdx.x; k < kDigits; k += blockDim.x)
            memory->histogram[k] = Weight{};
        __syncthreads();
        for (int64_t first = 0; first < count; first += blockDim.x) {
            const int64_t i = first + threadIdx.x;
            const uint64_t k = i < count ? key(i) : kNoKey;
            const bool counts = k != kNoKey && ((k ^ prefix) & known) == 0;
            count_digits(counts, static_cast<int>(k >> shift) & (kDigits - 1), counts ? weight_of(i) : Weight{},
                         memory->histogram);
        }
        __syncthreads();
        if (threadIdx.x < kWarp) choose_digit(before, budget, memory);
        __syncthreads();
        prefix |= static_cast<uint64_t>(memory->digit) << shift;
        before = memory->before, whole = memory->whole;
        __syncthreads();
    }
    const uint64_t open = (uint64_t{1} << shift) - 1;  // digits that need not be told apart
    return {prefix | open, before, whole};
}

}  // namespace
}  // namespace rdn::cuda
