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

// Rows of bins [first_row, last_row) and all columns. Ends with a barrier.
__device__ void find_bins(const RoiPool& args, const float* box, int first_row, int last_row, const Bins& bins) {
    const int size = static_cast<int>(args.size), height = static_cast<int>(args.height);
    const int width = static_cast<int>(args.width);
    for (int k = threadIdx.x; k < 2 * size; k += blockDim.x) {
        const bool vertical = k < size;
        const int bin = vertical ? k : k - size;
        if (vertical && (bin < first_row || bin >= last_row)) continue;
        const float low = box[vertical ? 1 : 0], high = box[vertical ? 3 : 2];
        const int extent = vertical ? height : width;
        float* weights = vertical ? bins.row_weights + bin * height : bins.column_weights + bin * width;
        bins.ranges[k] = args.max ? max_range(low, high, args.scale, bin, size, extent)
                                  : bin_weights(roi_axis(low, high, args.scale, static_cast<float>(size)),
                                                static_cast<float>(bin), extent, weights);
    }
    __syncthreads();
}

__device__ int64_t image_of(const RoiPool& args, int64_t roi) {
    return args.image_index != nullptr ? args.image_index[roi] : roi / args.rois_per_image;
}

__device__ bool wanted(const RoiPool& args, int64_t roi) {
    return args.counts == nullptr || roi % args.rois_per_image < args.counts[roi / args.rois_per_image];
}

// One bin of Count channels whose cells lie `row_stride` and `column_stride` elements apart.
template <class T, int Count>
__device__ Pack<T, Count> pool_bin(const RoiPool& args, const Bins& bins, int row, int column, const T* map,
                                   int64_t row_stride, int64_t column_stride) {
    const CellRange rows = bins.ranges[row], columns = bins.ranges[args.size + column];
    const float* row_weights = bins.row_weights + row * args.height;
    const float* column_weights = bins.column_weights + column * args.width;
    const bool empty = rows.first >= rows.stop || columns.first >= columns.stop;
    float sums[Count];
    for (int c = 0; c < Count; ++c)
        sums[c] = args.max && !empty ? -FLT_MAX : 0.0f;
    for (int y = rows.first; y < rows.stop; ++y) {
        for (int x = columns.first; x < columns.stop; ++x) {
            const Pack<T, Count> cell = load_pack<T, Count>(map + y * row_stride + x * column_stride);
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
    if (!wanted(args, roi)) {
        for (int k = threadIdx.x; k < size * packs; k += blockDim.x)
            store_pack<T, Count>(out + int64_t{k} * Count, Pack<T, Count>{});
        return;
    }
    const Bins bins = bins_in(shared_memory<float>(), args);
    find_bins(args, args.boxes + 4 * roi, row, row + 1, bins);
    const T* map =
        static_cast<const T*>(args.feature_map) + image_of(args, roi) * args.height * args.width * args.channels;
    for (int k = threadIdx.x; k < size * packs; k += blockDim.x) {
        const int column = k / packs, pack = k % packs;
        store_pack<T, Count>(out + int64_t{k} * Count, pool_bin<T, Count>(args, bins, row, column, map + pack * Count,
                                                                          args.width * args.channels, args.channels));
    }
}

// A block is one RoI and some of its channels; its threads take (channel, bin) with the bins fastest.
template <class T>
__global__ void __launch_bounds__(kThreads) pool_channels_first(RoiPool args, int channels_per_block) {
    const int64_t roi = blockIdx.x;
    const int size = static_cast<int>(args.size), bins_per_channel = size * size;
    const int64_t first = static_cast<int64_t>(blockIdx.y) * channels_per_block;
    const int channels =
        static_cast<int>(args.channels - first < channels_per_block ? args.channels - first : channels_per_block);
    T* out = static_cast<T*>(args.out) + roi * args.row + first * bins_per_channel;
    if (!wanted(args, roi)) {
        for (int k = threadIdx.x; k < channels * bins_per_channel; k += blockDim.x)
            out[k] = from_float<T>(0.0f);
        return;
    }
    const Bins bins = bins_in(shared_memory<float>(), args);
    find_bins(args, args.boxes + 4 * roi, 0, size, bins);
    const int64_t plane = args.height * args.width;
    const T* map = static_cast<const T*>(args.feature_map) + (image_of(args, roi) * args.channels + first) * plane;
    for (int k = threadIdx.x; k < channels * bins_per_channel; k += blockDim.x) {
        const int channel = k / bins_per_channel, bin = k % bins_per_channel;
        out[k] = pool_bin<T, 1>(args, bins, bin / size, bin % size, map + channel * plane, args.width, 1).at[0];
    }
}

template <class T>
Status run_channels_last(const RoiPool& args, Stream stream) {
    constexpr int kMost = 16 / sizeof(T);
    const dim3 grid(static_cast<unsigned>(args.rois), static_cast<unsigned>(args.size));
    const std::size_t shared = bins_bytes(args);
    const bool whole =
        args.channels % kMost == 0 && args.row % kMost == 0 && aligned(args.feature_map, 16) && aligned(args.out, 16);
    return whole ? launch(pool_channels_last<T, kMost>, grid, kThreads, shared, stream, args)
                 : launch(pool_channels_last<T, 1>, grid, kThreads, shared, stream, args);
}

template <class T>
Status run_channels_first(const RoiPool& args, Stream stream) {
    constexpr int64_t kLargestGrid = 65535;
    int64_t channels = 64;
    if (ceil_div(args.channels, channels) > kLargestGrid) channels = ceil_div(args.channels, kLargestGrid);
    const dim3 grid(static_cast<unsigned>(args.rois), static_cast<unsigned>(ceil_div(args.channels, channels)));
    return launch(pool_channels_first<T>, grid, kThreads, bins_bytes(args), stream, args, channels);
}

}  // namespace

Status run(const RoiPool& args, Stream stream) {
    if (args.rois == 0 || args.channels == 0) return 0;
    const bool fits = args.size >= 1 && args.size <= 1024 && bins_bytes(args) <= kMostShared &&
                      args.height * args.width < int64_t{1} << 31 &&
                      args.size * args.size * args.channels <= args.row && args.row < int64_t{1} << 31;
    if (!fits || (args.image_index == nullptr && args.rois_per_image < 1)) return kBadArgument;
    return with_type(args.type, [&](auto zero) {
        using T = decltype(zero);
        return args.channels_last ? run_channels_last<T>(args, stream) : run_channels_first<T>(args, stream);
    });
}

}  // namespace rdn::cuda
