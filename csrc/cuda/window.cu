// The window of one frame as rows of the ring, and the choice of the advanced support proposals. Everything that moves
// from frame to frame is read from device memory, so that one CUDA graph serves all steps.
#include "select.cuh"

namespace rdn::cuda {
namespace {

constexpr int kThreads = 256, kSampleThreads = 1024;
constexpr int64_t kSupportGroup = 16;  // the relation on tensor cores takes supports in sixteens

// How often frame `number` counts in the window.
__device__ float repeats_of(const Ring& ring, int64_t number) {
    const int64_t t = *ring.frame, newest = *ring.newest, wanted_first = t - ring.frames_before;
    const int64_t wanted_last = t + ring.frames_ahead;
    const int64_t first = wanted_first < 0 ? 0 : wanted_first, last = wanted_last < newest ? wanted_last : newest;
    if (number < first || number > last) return 0.0f;
    int64_t repeats = 1;
    if (ring.replicate && number == first) repeats += first - wanted_first;
    if (ring.replicate && number == last) repeats += wanted_last - last;
    return static_cast<float>(repeats);
}

__device__ int64_t proposals_in(const Ring& ring, int64_t slot) {
    return ring.counts[slot] < ring.num_support ? ring.counts[slot] : ring.num_support;
}

// Grid: frames of the window.
__global__ void __launch_bounds__(kThreads) list_window(Window args) {
    const int64_t f = blockIdx.x, number = *args.ring.frame - args.ring.frames_before + f;
    const float repeats = repeats_of(args.ring, number);
    const int64_t slot = repeats > 0.0f ? number % args.ring.slots : 0;
    const int64_t count = repeats > 0.0f ? proposals_in(args.ring, slot) : 0;
    for (int64_t k = threadIdx.x; k < args.frame_stride; k += blockDim.x) {
        const int64_t position = f * args.frame_stride + k;
        args.rows[position] = static_cast<int32_t>(slot * args.ring.stride + (k < count ? k : 0));
        args.multiplicity[position] = k < count ? repeats : 0.0f;
    }
}

// Grid: slots.
__global__ void __launch_bounds__(kThreads) list_slide(Slide args) {
    const int64_t slot = blockIdx.x, slots = args.ring.slots, newest = *args.ring.newest;
    const int64_t behind = ((newest - slot) % slots + slots) % slots, number = newest - behind;
    const int64_t count = number >= 0 ? proposals_in(args.ring, slot) : 0;
    const float repeats = number >= 0 ? repeats_of(args.ring, number) : 0.0f;
    const bool is_newest = behind == 0;
    if (threadIdx.x == 0) {
        args.slot_repeats[slot] = repeats;
        if (is_newest) *args.new_slot = static_cast<int32_t>(slot);
    }
    for (int64_t k = threadIdx.x; k < args.frame_stride; k += blockDim.x) {
        const auto row = static_cast<int32_t>(slot * args.ring.stride + (k < count ? k : 0));
        const float multiplicity = k < count ? 1.0f : 0.0f;
        args.rows[slot * args.frame_stride + k] = row, args.multiplicity[slot * args.frame_stride + k] = multiplicity;
        if (is_newest) args.new_rows[k] = row, args.new_multiplicity[k] = multiplicity;
    }
    for (int64_t k = threadIdx.x; k < args.advanced_stride; k += blockDim.x) {
        const bool there = k < args.advanced && k < count;
        const int64_t place = slot * args.advanced_stride + k;
        const auto row = static_cast<int32_t>(slot * args.ring.stride + (there ? k : 0));
        args.advanced_rows[place] = row, args.advanced_multiplicity[place] = there ? repeats : 0.0f;
        if (is_newest) args.new_advanced_rows[k] = row, args.new_places[k] = static_cast<int32_t>(place);
    }
}

struct SampleMemory {
    SelectMemory<float> select;
    float totals[kSampleThreads / kWarp];
    int sums[kSampleThreads / kWarp];
};

// Whole numbers below 2^24 add up without rounding, in any order.
__device__ float total_multiplicity(const SampleAdvanced& args, int64_t supports, float* totals) {
    float mine = 0.0f;
    for (int64_t j = threadIdx.x; j < supports; j += blockDim.x)
        mine += args.multiplicity[j];
    mine = warp_sum(mine);
    if (threadIdx.x % kWarp == 0) totals[threadIdx.x / kWarp] = mine;
    __syncthreads();
    float total = 0.0f;
    for (int w = 0; w < kSampleThreads / kWarp; ++w)
        total += totals[w];
    return total;
}

// One block.
__global__ void __launch_bounds__(kSampleThreads) sample_globally(SampleAdvanced args, int index_bits) {
    auto* memory = shared_memory<SampleMemory>();
    const int64_t supports = args.frames * args.frame_stride;
    const double share = floor(args.ratio * static_cast<double>(total_multiplicity(args, supports, memory->totals)));
    const float budget = share < 1.0 ? 1.0f : static_cast<float>(share);  // the refinement of nothing is not defined
    const auto key = [&](int64_t j) {
        if (!(args.multiplicity[j] > 0.0f)) return kNoKey;
        const float score = args.objectness[args.rows[j]];
        return score == score ? order_key(score, j, index_bits) : kNoKey;
    };
    const Selection<float> best = select_best<float>(
        supports, 32 + index_bits, budget, key, [&](int64_t j) { return args.multiplicity[j]; }, &memory->select);
    int64_t written = 0;
    for (int64_t first = 0; first < supports; first += blockDim.x) {
        const int64_t j = first + threadIdx.x;
        const uint64_t k = j < supports ? key(j) : kNoKey;
        const bool taken = k != kNoKey && k <= best.last;
        int total = 0;
        const int64_t place = written + count_before(taken, memory->sums, &total);
        if (taken && place < args.capacity) {
            const float most = k == best.last && !best.whole ? budget - best.before : args.multiplicity[j];
            args.positions[place] = static_cast<int32_t>(j);
            args.taken_rows[place] = args.rows[j];
            args.counted[place] = lesser(args.multiplicity[j], most);
        }
        written += total;
    }
    for (int64_t place = written + threadIdx.x; place < args.capacity; place += blockDim.x)
        args.positions[place] = 0, args.taken_rows[place] = args.rows[0], args.counted[place] = 0.0f;
}

bool fits(const Ring& ring, int64_t frame_stride) {
    const bool frames =
        ring.frames_before >= 0 && ring.frames_ahead >= 0 && ring.frames_before + ring.frames_ahead + 1 <= ring.slots;
    return frames && ring.num_support >= 0 && ring.num_support <= ring.stride && ring.num_support <= frame_stride &&
           ring.slots * ring.stride < int64_t{1} << 31;
}

}  // namespace

Status run(const Window& args, Stream stream) {
    if (!fits(args.ring, args.frame_stride)) return kBadArgument;
    const auto frames = static_cast<unsigned>(args.ring.frames_before + args.ring.frames_ahead + 1);
    return launch(list_window, frames, kThreads, 0, stream, args);
}

Status run(const Slide& args, Stream stream) {
    const bool advanced = args.advanced >= 0 && args.advanced <= args.advanced_stride;
    if (!fits(args.ring, args.frame_stride) || !advanced || args.advanced > args.ring.num_support) return kBadArgument;
    return launch(list_slide, static_cast<unsigned>(args.ring.slots), kThreads, 0, stream, args);
}

int64_t advanced_capacity(const SampleAdvanced& args) {
    const auto most = static_cast<double>(args.frames * args.num_support);
    const auto share = static_cast<int64_t>(args.ratio * most);
    const int64_t at_least = most < 1 ? 0 : 1;
    return ceil_div(share < at_least ? at_least : share, kSupportGroup) * kSupportGroup;
}

Status run(const SampleAdvanced& args, Stream stream) {
    const int64_t supports = args.frames * args.frame_stride;
    const bool fits = args.num_support >= 0 && args.num_support <= args.frame_stride && args.frames >= 0;
    if (!fits || args.capacity != advanced_capacity(args) || supports >= 1 << 24 || args.ratio < 0 || args.ratio > 1)
        return kBadArgument;
    if (args.capacity == 0) return 0;
    int bits = 1;
    while (int64_t{1} << bits < supports)
        ++bits;
    return launch(sample_globally, 1, kSampleThreads, sizeof(SampleMemory), stream, args, bits);
}

}  // namespace rdn::cuda
