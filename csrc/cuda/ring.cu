// Between the encoder's output and the memory of a stream, and the small steps around its products.
#include "common.cuh"

namespace rdn::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kPerThread = 4;

__global__ void set_numbers(SetNumbers args) {
    args.numbers[0] = args.frame, args.numbers[1] = args.newest;
}

template <class To, class From>
__device__ void copy_rows(const From* from, To* to, int64_t elements) {
    const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
    for (int64_t k = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; k < elements; k += step)
        to[k] = from_float<To>(to_float(from[k]));
}

template <class Dense, class Ring>
__device__ void copy_item(const RingItem& item, int64_t slots, int64_t slot, int64_t plane, bool store) {
    auto* dense = static_cast<Dense*>(item.dense) + plane * item.dense_plane;
    auto* ring = static_cast<Ring*>(item.ring) + (plane * slots + slot) * item.stride * item.width;
    if (store)
        copy_rows(dense, ring, item.rows * item.width);
    else
        copy_rows(ring, dense, item.rows * item.width);
}

// Grid: (., items, most planes). The rows of a slot are dense, so an item's plane is one piece on both sides.
__global__ void __launch_bounds__(kThreads) copy_ring(RingCopy args) {
    const int64_t slot = *args.number % args.slots;
    if (blockIdx.x == 0 && blockIdx.y == 0 && blockIdx.z == 0 && threadIdx.x == 0) {
        if (args.store)
            args.ring_counts[slot] = *args.dense_count;
        else
            *args.dense_count =
                static_cast<int32_t>(args.ring_counts[slot] < args.most ? args.ring_counts[slot] : args.most);
    }
    const RingItem& item = args.items[blockIdx.y];
    if (static_cast<int64_t>(blockIdx.z) >= item.planes) return;
    const bool half_dense = item.dense_type == Type::kFloat16, half_ring = item.ring_type == Type::kFloat16;
    if (half_dense && half_ring)
        copy_item<Half, Half>(item, args.slots, slot, blockIdx.z, args.store);
    else if (half_dense)
        copy_item<Half, float>(item, args.slots, slot, blockIdx.z, args.store);
    else if (half_ring)
        copy_item<float, Half>(item, args.slots, slot, blockIdx.z, args.store);
    else
        copy_item<float, float>(item, args.slots, slot, blockIdx.z, args.store);
}

__global__ void __launch_bounds__(kThreads) take_rows(TakeRows args) {
    const int64_t k = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
    if (k < args.count * args.width) args.out[k] = args.source[args.rows[k / args.width] * args.width + k % args.width];
}

template <class T>
__global__ void __launch_bounds__(kThreads) add_bias(AddBias args) {
    const int64_t k = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
    if (k >= args.rows * args.width) return;
    T* x = static_cast<T*>(args.x) + k;
    const float sum = to_float(*x) + args.bias[k % args.width];
    *x = from_float<T>(args.relu && sum < 0.0f ? 0.0f : sum);
}

unsigned blocks_of(int64_t threads) {
    return static_cast<unsigned>(ceil_div(threads, kThreads));
}

bool known(Type type) {
    return type == Type::kFloat32 || type == Type::kFloat16;
}

}  // namespace

Status run(const SetNumbers& args, Stream stream) {
    return launch(set_numbers, 1, 1, 0, stream, args);
}

Status run(const RingCopy& args, Stream stream) {
    if (args.count < 1 || args.count > kRingItems || args.slots < 1) return kBadArgument;
    int64_t elements = 1, planes = 1;
    for (int64_t i = 0; i < args.count; ++i) {
        const RingItem& item = args.items[i];
        if (item.rows > item.stride || !known(item.dense_type) || !known(item.ring_type)) return kBadArgument;
        elements = item.rows * item.width > elements ? item.rows * item.width : elements;
        planes = item.planes > planes ? item.planes : planes;
    }
    const dim3 grid(blocks_of(ceil_div(elements, kPerThread)), static_cast<unsigned>(args.count),
                    static_cast<unsigned>(planes));
    return launch(copy_ring, grid, kThreads, 0, stream, args);
}

Status run(const TakeRows& args, Stream stream) {
    if (args.count == 0 || args.width == 0) return 0;
    return launch(take_rows, blocks_of(args.count * args.width), kThreads, 0, stream, args);
}

Status run(const AddBias& args, Stream stream) {
    if (args.rows == 0 || args.width == 0) return 0;
    return with_type(args.type, [&](auto zero) {
        return launch(add_bias<decltype(zero)>, blocks_of(args.rows * args.width), kThreads, 0, stream, args);
    });
}

}  // namespace rdn::cuda
