// RoIAlign and RoI max pooling. A cell of the map is read once for a bin, weighted by its row's and its column's weight
// (rdn/bilinear.h), in the order of the CPU's kernel, so that float32 results have the CPU's bits.
#include <cfloat>

#include "common.cuh"
#include "rdn/bilinear.h"

namespace rdn::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMostShared = 48 * 1024;

// One RoI's bins on both sides of the map, in shared memory.
struct Bins {
    CellRange* ranges;                    // [2 size] rows, then columns
    float *row_weights, *column_weights;  // [size, height], [size, width]; unused by max pooling
};

__device__ Bins bins_in(float* memory, const RoiPool& args) {
    const Bins bins = {reinterpret_cast<CellRange*>(memory), memory + 4 * args.size,
                       memory + 4 * args.size + args.size * args.height};
    return bins;
}

int64_t bins_bytes(const RoiPool& args) {
    const int64_t weights = args.max ? 0 : args.size * (args.height + args.width);
    return (4 * args.size + weights) * static_cast<int64_t>(sizeof(float));
}

// One row of bins and all columns. Ends with a barrier.
__device__ void find_bins(const RoiPool& args, const float* box, int row, const Bins& bins) {
    const int size = static_cast<int>(args.size), height = static_cast<int>(args.height);
    const int width = static_cast<int>(args.width);
    for (int k = threadIdx.x; k < 2 * size; k += blockDim.x) {
        const bool vertical = k < size;
        const int bin = vertical ? k : k - size;
        if (vertical && bin != row) continue;
        const float low = box[vertical ? 1 : 0], high = box[vertical ? 3 : 2];
        const int extent = vertical ? height : width;
        float* weights = vertical ? bins.row_weights + bin * height : bins.column_weights + bin * width;
        bins.ranges[k] = args.max ? max_range(low, high, args.scale, bin, size, extent)
                                  : bin_weights(roi_axis(low, high, args.scale, static_cast<float>(size)),
                                                static_cast<float>(bin), extent, weights);
    }
    __syncthreads();
}

// One bin of Count channels, whose first cell `map` points at.
template <class T, int Count>
__device__ Pack<T, Count> pool_bin(const RoiPool& args, const Bins& bins, int row, int column, const T* map) {
    const CellRange rows = bins.ranges[row], columns = bins.ranges[args.size + column];
    const float* row_weights = bins.row_weights + row * args.height;
    const float* column_weights = bins.column_weights + column * args.width;
    const bool empty = rows.first >= rows.stop || columns.first >= columns.stop;
    const int64_t row_stride = args.width * args.channels;
    float sums[Count];
    for (int c = 0; c < Count; ++c)
        sums[c] = args.max && !empty ? -FLT_MAX : 0.0f;
    for (int y = rows.first; y < rows.stop; ++y) {
        for (int x = columns.first; x < columns.stop; ++x) {
            const Pack<T, Count> cell = load_pack<T, Count>(map + y * row_stride + x * args.channels);
            if (args.max) {
                for (int c = 0; c < Count; ++c)
                    sums[c] = greater(to_float(cell.at[c]), sums[c]);
            } else {
                const float weight = row_weights[y] * column_weights[x];
                for (int c = 0; c < Count; ++c)
                    sums[c] = fused(weight, to_float(cell.at[c]), sums[c]);
            }
        }
    }
    Pack<T, Count> pooled;
    for (int c = 0; c < Count; ++c)
        pooled.at[c] = from_float<T>(sums[c]);
    return pooled;
}

// A block is one RoI's row of bins; its threads take (bin, Count channels) with the channels fastest.
template <class T, int Count>
__global__ void __launch_bounds__(kThreads, 4) pool_channels_last(RoiPool args) {
    const int64_t roi = blockIdx.x;
    const int row = blockIdx.y, size = static_cast<int>(args.size);
    const int packs = static_cast<int>(args.channels) / Count;
    T* out = static_cast<T*>(args.out) + roi * args.row + int64_t{row} * size * args.channels;
    const int64_t image = roi / args.rois_per_image;
    if (roi % args.rois_per_image >= args.counts[image]) {
        for (int k = threadIdx.x; k < size * packs; k += blockDim.x)
            store_pack<T, Count>(out + int64_t{k} * Count, Pack<T, Count>{});
        return;
    }
    const Bins bins = bins_in(shared_memory<float>(), args);
    find_bins(args, args.boxes + 4 * roi, row, bins);
    const T* map = static_cast<const T*>(args.feature_map) + image * args.height * args.width * args.channels;
    for (int k = threadIdx.x; k < size * packs; k += blockDim.x) {
        const int column = k / packs, pack = k % packs;
        store_pack<T, Count>(out + int64_t{k} * Count, pool_bin<T, Count>(args, bins, row, column, map + pack * Count));
    }
}

template <class T>
Status pool(const RoiPool& args, Stream stream) {
    constexpr int kMost = 16 / sizeof(T);
    const dim3 grid(static_cast<unsigned>(args.rois), static_cast<unsigned>(args.size));
    const std::size_t shared = bins_bytes(args);
    const bool whole =
        args.channels % kMost == 0 && args.row % kMost == 0 && aligned(args.feature_map, 16) && aligned(args.out, 16);
    return whole ? launch(pool_channels_last<T, kMost>, grid, kThreads, shared, stream, args)
                 : launch(pool_channels_last<T, 1>, grid, kThreads, shared, stream, args);
}

}  // namespace

Status run(const RoiPool& args, Stream stream) {
    if (args.rois == 0 || args.channels == 0) return 0;
    const bool fits = args.size >= 1 && args.size <= 1024 && bins_bytes(args) <= kMostShared &&
                      args.height * args.width < int64_t{1} << 31 &&
                      args.size * args.size * args.channels <= args.row && args.row < int64_t{1} << 31;
    if (!fits || args.rois_per_image < 1) return kBadArgument;
    return with_type(args.type, [&](auto zero) { return pool<decltype(zero)>(args, stream); });
}

}  // namespace rdn::cuda
