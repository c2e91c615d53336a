// PIL's bilinear resize of uint8 images, to the bit, then the normalisation of the network's input (cpu/resize.cpp).
// Rows first, into bytes, then columns.
#include "common.cuh"
#include "rdn/resize.h"

namespace rdn::cuda {
namespace {

constexpr int kThreads = 256;

// The taps of one side's output pixels.
struct Filter {
    TapRange* ranges;  // [out_size]
    int32_t* weights;  // [out_size, stride]
    int64_t stride;
};

struct Workspace {
    Filter across, down;
    uint32_t* pixels;  // [batch, height, out_width] red, green, blue, unused
    std::size_t bytes;
};

std::size_t rounded(std::size_t bytes) {
    return (bytes + 15) / 16 * 16;
}

Workspace layout(const Resize& args) {
    Workspace parts{};
    auto* at = static_cast<unsigned char*>(args.workspace);
    const auto take = [&](int64_t count, std::size_t size) {
        unsigned char* start = at + parts.bytes;
        parts.bytes += rounded(static_cast<std::size_t>(count) * size);
        return args.workspace == nullptr ? nullptr : static_cast<void*>(start);
    };
    const auto filter = [&](int64_t in_size, int64_t out_size) {
        Filter side{};
        side.stride = most_taps(resize_side(in_size, out_size));
        side.ranges = static_cast<TapRange*>(take(out_size, sizeof(TapRange)));
        side.weights = static_cast<int32_t*>(take(out_size * side.stride, sizeof(int32_t)));
        return side;
    };
    parts.across = filter(args.width, args.out_width);
    parts.down = filter(args.height, args.out_height);
    parts.pixels = static_cast<uint32_t*>(take(args.batch * args.height * args.out_width, sizeof(uint32_t)));
    return parts;
}

// A side that keeps its length is not filtered: one tap of weight 1 gives the same bytes.
__global__ void prepare_filter(Filter filter, int64_t in_size, int64_t out_size) {
    const int64_t position = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
    if (position >= out_size) return;
    const ResizeSide side = resize_side(in_size, out_size);
    int32_t* weights = filter.weights + position * filter.stride;
    if (in_size == out_size) {
        filter.ranges[position] = {position, 1};
        weights[0] = 1 << kTapBits;
        return;
    }
    const TapRange taps = tap_range(side, position);
    filter.ranges[position] = taps;
    tap_weights(side, position, taps, weights);
}

__device__ __forceinline__ Rgb read_pixel(const Resize& args, const YuvScale& yuv, int64_t image, int64_t y,
                                          int64_t x) {
    const uint8_t* row = args.image + image * args.image_bytes + y * args.row_bytes;
    if (args.chroma == nullptr) return {row[3 * x], row[3 * x + 1], row[3 * x + 2]};
    const uint8_t* chroma = args.chroma + image * args.chroma_bytes + y / 2 * args.row_bytes + x / 2 * 2;
    return yuv_to_rgb(row[x], chroma[0], chroma[1], yuv);
}

// Grid: (blocks of out_width, height, batch).
__global__ void __launch_bounds__(kThreads) filter_rows(Resize args, YuvScale yuv, Filter filter, uint32_t* pixels) {
    const int64_t x = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
    if (x >= args.out_width) return;
    const int64_t image = blockIdx.z;
    for (int64_t y = blockIdx.y; y < args.height; y += gridDim.y) {
        const TapRange taps = filter.ranges[x];
        const int32_t* weights = filter.weights + x * filter.stride;
        int32_t red = 1 << (kTapBits - 1), green = red, blue = red;
        for (int64_t k = 0; k < taps.count; ++k) {
            const Rgb pixel = read_pixel(args, yuv, image, y, taps.first + k);
            const int32_t weight = weights[k];
            red += pixel.red * weight, green += pixel.green * weight, blue += pixel.blue * weight;
        }
        pixels[(image * args.height + y) * args.out_width + x] = static_cast<uint32_t>(tap_byte(red)) |
                                                                 static_cast<uint32_t>(tap_byte(green)) << 8 |
                                                                 static_cast<uint32_t>(tap_byte(blue)) << 16;
    }
}

// Grid: (blocks of out_width, out_height, batch).
template <class T>
__global__ void __launch_bounds__(kThreads) filter_columns(Resize args, Filter filter, const uint32_t* pixels) {
    const int64_t x = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
    if (x >= args.out_width) return;
    const int64_t image = blockIdx.z;
    T* out = static_cast<T*>(args.out);
    for (int64_t y = blockIdx.y; y < args.out_height; y += gridDim.y) {
        const TapRange taps = filter.ranges[y];
        const int32_t* weights = filter.weights + y * filter.stride;
        const uint32_t* column = pixels + (image * args.height + taps.first) * args.out_width + x;
        int32_t sums[3] = {1 << (kTapBits - 1), 1 << (kTapBits - 1), 1 << (kTapBits - 1)};
        for (int64_t k = 0; k < taps.count; ++k) {
            const uint32_t pixel = column[k * args.out_width];
            for (int c = 0; c < 3; ++c)
                sums[c] += static_cast<int32_t>(pixel >> (8 * c) & 0xff) * weights[k];
        }
        for (int channel = 0; channel < 3; ++channel) {
            const int32_t byte = tap_byte(args.bgr ? sums[2 - channel] : sums[channel]);
            const float value = (static_cast<float>(byte) - args.mean[channel]) / args.std[channel];
            out[((image * 3 + channel) * args.out_height + y) * args.out_width + x] = from_float<T>(value);
        }
    }
}

unsigned blocks(int64_t count) {
    return static_cast<unsigned>(ceil_div(count, kThreads));
}

dim3 image_grid(int64_t width, int64_t height, int64_t batch) {
    constexpr int64_t kLargestGrid = 65535;
    return dim3(blocks(width), static_cast<unsigned>(height < kLargestGrid ? height : kLargestGrid),
                static_cast<unsigned>(batch));
}

bool fits(const Resize& args) {
    const bool sides = args.height >= 1 && args.width >= 1 && args.out_height >= 1 && args.out_width >= 1;
    const bool matrix = args.yuv_matrix >= 0 && args.yuv_matrix <= static_cast<int32_t>(YuvMatrix::kBt2020);
    return sides && matrix && args.batch >= 0 && args.batch <= 65535 && args.workspace != nullptr;
}

}  // namespace

std::size_t workspace_bytes(const Resize& args) {
    return layout(args).bytes;
}

Status prepare(const Resize& args, Stream stream) {
    if (!fits(args)) return kBadArgument;
    const Workspace parts = layout(args);
    const Status status =
        launch(prepare_filter, blocks(args.out_width), kThreads, 0, stream, parts.across, args.width, args.out_width);
    if (status != 0) return status;
    return launch(prepare_filter, blocks(args.out_height), kThreads, 0, stream, parts.down, args.height,
                  args.out_height);
}

Status run(const Resize& args, Stream stream) {
    if (!fits(args)) return kBadArgument;
    if (args.batch == 0) return 0;
    const Workspace parts = layout(args);
    const YuvScale yuv = yuv_scale(static_cast<YuvMatrix>(args.yuv_matrix), args.yuv_full);
    const Status status = launch(filter_rows, image_grid(args.out_width, args.height, args.batch), kThreads, 0, stream,
                                 args, yuv, parts.across, parts.pixels);
    if (status != 0) return status;
    return with_type(args.type, [&](auto zero) {
        return launch(filter_columns<decltype(zero)>, image_grid(args.out_width, args.out_height, args.batch), kThreads,
                      0, stream, args, parts.down, parts.pixels);
    });
}

}  // namespace rdn::cuda
