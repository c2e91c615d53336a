// Greedy non-maximum suppression by one block: candidates in chunks of 64 against those kept so far, then among
// themselves. Equal to one candidate after the other, and done once enough are kept.
#pragma once

#include "common.cuh"
#include "rdn/box.h"

namespace rdn::cuda {
namespace {

constexpr int kChunk = 64;

// Shared memory of suppress, followed by `most` boxes kept.
struct NmsMemory {
    struct Kept {
        Box box;
        float area;
    };

    Box box[kChunk];
    float area[kChunk];
    int out[kChunk];                      // no number, or overlaps one that was kept before
    unsigned long long overlaps[kChunk];  // bit j: this one overlaps the better candidate j of the chunk
    unsigned long long kept_bits;

    __device__ Kept* kept() { return reinterpret_cast<Kept*>(this + 1); }
};

inline std::size_t nms_bytes(int64_t most) {
    return sizeof(NmsMemory) + static_cast<std::size_t>(most) * sizeof(NmsMemory::Kept);
}

__device__ inline void compare(NmsMemory* memory, int count, float threshold) {
    const int team = blockDim.x / kChunk, candidate = threadIdx.x / team, member = threadIdx.x % team;
    const Box box = memory->box[candidate];
    const float box_area = memory->area[candidate];
    bool hit = false;
    for (int k = member; k < count; k += team) {
        const NmsMemory::Kept other = memory->kept()[k];
        hit = hit || iou(box, box_area, other.box, other.area) > threshold;
    }
    if (hit) memory->out[candidate] = 1;
    unsigned long long bits = 0;
    for (int j = member; j < candidate; j += team)
        if (iou(box, box_area, memory->box[j], memory->area[j]) > threshold) bits |= 1ull << j;
    if (bits != 0) atomicOr(&memory->overlaps[candidate], bits);
}

__device__ inline void walk_chunk(NmsMemory* memory, int room) {
    unsigned long long kept = 0;
    for (int c = 0; c < kChunk; ++c) {
        const bool keeps = memory->out[c] == 0 && (memory->overlaps[c] & kept) == 0 && room > 0;
        kept |= static_cast<unsigned long long>(keeps) << c;
        room -= keeps;
    }
    memory->kept_bits = kept;
}

// box_at(k) of candidates 0..candidates-1, best first; one that is no number is dropped. Calls keep(place, candidate)
// for those kept, at most `most`, and returns their number. To be called by a block of a multiple of 64 threads, with
// nms_bytes(most) of shared memory; ends with a barrier.
template <class BoxAt, class Keep>
__device__ int suppress(int candidates, int most, float threshold, const BoxAt& box_at, const Keep& keep,
                        NmsMemory* memory) {
    const int lane = threadIdx.x;
    const auto fetch = [&](int k) { return lane < kChunk && k < candidates ? box_at(k) : Box{NAN, NAN, NAN, NAN}; };
    int count = 0;
    Box next = fetch(lane);
    for (int first = 0; first < candidates && count < most; first += kChunk) {
        const Box box = next;
        const float box_area = area(box);
        if (lane < kChunk) {
            memory->box[lane] = box, memory->area[lane] = box_area;
            memory->out[lane] = !is_number(box), memory->overlaps[lane] = 0;
        }
        next = fetch(first + kChunk + lane);  // on its way while this chunk is compared
        __syncthreads();
        compare(memory, count, threshold);
        __syncthreads();
        if (lane == 0) walk_chunk(memory, most - count);
        __syncthreads();
        const unsigned long long kept = memory->kept_bits;
        if (lane < kChunk && (kept >> lane & 1) != 0) {
            const int place = count + __popcll(kept & ((1ull << lane) - 1));
            memory->kept()[place] = {box, box_area};
            keep(place, first + lane);
        }
        count += __popcll(kept);
        __syncthreads();
    }
    return count;
}

}  // namespace
}  // namespace rdn::cuda
