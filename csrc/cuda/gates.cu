// The geometry of all pairs as factors of their softmax terms: 64 (relu(Wg.E + b) + 1e-6), float16, for up to two
// modules and 16 heads in one pass. Wg.E is a product on tensor cores; the half of E that depends on sides alone comes
// turned by the query's sides (rdn/relation.h), so only the centre terms cost sines and cosines for every pair.
//
// Which channel stands at which place of the product's inner side is free, as long as both factors agree. Here the quad
// q of a lane owns the axis q / 2 and the frequencies 4 (q % 2) .. + 3: then a lane needs one logarithm a pair, and
// writes the sines and cosines where it computes them. Step s, half r of the inner side (16 places) is frequency
// 2 s + r of those; even places are sines, odd ones cosines.
#include "relation.cuh"
#include "tensor.cuh"

namespace rdn::cuda {
namespace {

constexpr int kWarps = 8, kThreads = kWarps * kWarp;  // a warp takes one query at a time
constexpr int kColumns = 256;                         // supports of a block
constexpr int kGroup = 16;                            // heads of one product, and supports of one step
constexpr float kScale = 64.0f, kLargestHalf = 65504.0f;

struct Lane {
    int group, quad, axis, frequency;  // the first of its four frequencies

    __device__ Lane() {
        const int lane = threadIdx.x % kWarp;
        group = lane / 4, quad = lane % 4, axis = quad / 2, frequency = 4 * (quad % 2);
    }
    __device__ int channel(int step, int half) const { return axis * kTermChannels + frequency + 2 * step + half; }
};

// Left factors of one module: weights of the centre terms, and of the supports' sides for one query.
struct Weights {
    uint32_t centre[2][4], sides[2][4];
    float bias[2];  // of the heads `group` and `group + 8`
};

// A head past the last has weight 0.
__device__ void load_weights(const RelationGates& args, int module, int first_head, const BoxGeometry& query,
                             const Lane& lane, Weights* out) {
    for (int upper = 0; upper < 2; ++upper) {
        const int head = first_head + lane.group + 8 * upper;
        const bool there = head < args.heads;
        const int64_t row = module * args.heads + (there ? head : 0);
        const float* weights = args.geometry_weight + row * kGeometryChannels;
        out->bias[upper] = there ? args.geometry_bias[row] : 0.0f;
        for (int step = 0; step < 2; ++step) {
            for (int half = 0; half < 2; ++half) {
                const int channel = lane.channel(step, half);
                float sine, cosine;
                turn_weights(weights, query.sides, channel, &sine, &cosine);
                const float keep = there ? 1.0f : 0.0f;
                out->centre[step][upper + 2 * half] =
                    pack_halves(keep * weights[channel], keep * weights[channel + kFrequencies]);
                out->sides[step][upper + 2 * half] = pack_halves(keep * sine, keep * cosine);
            }
        }
    }
}

// Right factors of this lane's column: one support's sines and cosines.
struct Column {
    uint32_t centre[4], sides[4];  // by 2 step + half
};

__device__ Column embed(const BoxGeometry& query, const BoxGeometry& support, const Lane& lane) {
    const Split<float> here = query.centre[lane.axis], there = support.centre[lane.axis];
    // Nearly concentric boxes need the difference to more than the centres' own precision.
    const float offset = fabsf((here.high - there.high) + (here.low - there.low));
    const float octaves = fast_log2(fused(offset, query.inverse[lane.axis].high, 1e-3f));
    Column column;
#pragma unroll
    for (int k = 0; k < 4; ++k) {
        const float turns = octaves * (lane.quad % 2 == 0 ? kTurns.all[k] : kTurns.all[4 + k]);
        constexpr float kTwoPi = 6.283185307f;
        float sine, cosine;
        fast_sincos((turns - rintf(turns)) * kTwoPi, &sine, &cosine);
        column.centre[k] = pack_halves(sine, cosine);
        const float* sides = support.sides + lane.axis * kTermChannels + lane.frequency + k;
        column.sides[k] = pack_halves(sides[0], sides[kFrequencies]);
    }
    return column;
}

__device__ void multiply(const Weights& weights, const Column& column, float (&gates)[4]) {
    gates[0] = gates[1] = weights.bias[0];
    gates[2] = gates[3] = weights.bias[1];
#pragma unroll
    for (int step = 0; step < 2; ++step) {
        multiply_add(gates, weights.centre[step], column.centre[2 * step], column.centre[2 * step + 1]);
        multiply_add(gates, weights.sides[step], column.sides[2 * step], column.sides[2 * step + 1]);
    }
}

__device__ float stored(float g) {
    const float scaled = kScale * gate(g);
    return scaled > kLargestHalf ? kLargestHalf : scaled;
}

// Grid: (blocks of kColumns supports, tiles of kWarps queries, groups of 16 heads).
template <int Modules>
__global__ void __launch_bounds__(kThreads) find_gates(RelationGates args, const BoxGeometry* geometry) {
    const Lane lane;
    const int64_t row = static_cast<int64_t>(blockIdx.y) * kWarps + threadIdx.x / kWarp;
    if (row >= args.queries.count) return;  // a whole warp, and there is no barrier
    const int first_head = static_cast<int>(blockIdx.z) * kGroup;
    const BoxGeometry& query = geometry[row];
    const BoxGeometry* supports = geometry + args.queries.count;
    Weights weights[Modules];
    for (int m = 0; m < Modules; ++m)
        load_weights(args, m, first_head, query, lane, &weights[m]);

    const int64_t begin = static_cast<int64_t>(blockIdx.x) * kColumns, most = begin + kColumns;
    const int64_t end = most < args.supports.count ? most : args.supports.count;
    for (int64_t first = begin; first < end; first += kGroup) {
        // Column c of the first product is support 4 (c / 2) + c % 2, of the second one 2 further: then the four gates
        // that a lane ends up with are neighbours.
        const int64_t j = first + 4 * (lane.group / 2) + lane.group % 2;
        const Column near = embed(query, supports[j], lane), far = embed(query, supports[j + 2], lane);
#pragma unroll
        for (int m = 0; m < Modules; ++m) {
            float left[4], right[4];
            multiply(weights[m], near, left);
            multiply(weights[m], far, right);
#pragma unroll
            for (int upper = 0; upper < 2; ++upper) {
                const int head = first_head + lane.group + 8 * upper;
                if (head >= args.heads) continue;
                const int64_t line = (m * args.heads + head) * args.queries.count + row;
                Half* to = static_cast<Half*>(args.gates) + line * args.supports.count + first + 4 * lane.quad;
                Pack<uint32_t, 2> four;
                four.at[0] = pack_halves(stored(left[2 * upper]), stored(left[2 * upper + 1]));
                four.at[1] = pack_halves(stored(right[2 * upper]), stored(right[2 * upper + 1]));
                store_pack(reinterpret_cast<uint32_t*>(to), four);
            }
        }
    }
}

}  // namespace

std::size_t workspace_bytes(const RelationGates& args) {
    return geometry_bytes(args.queries, args.supports);
}

Status run(const RelationGates& args, Stream stream) {
    constexpr int64_t kLargestGrid = 65535;
    const int64_t tiles = ceil_div(args.queries.count, kWarps);
    const bool fits =
        args.supports.count % kGroup == 0 && args.heads >= 1 && args.heads <= 1024 && tiles <= kLargestGrid;
    if (!fits || args.modules < 1 || args.modules > 2 || args.workspace == nullptr) return kBadArgument;
    if (args.queries.count == 0 || args.supports.count == 0) return 0;
    const Status status = find_geometry(args.queries, args.supports, args.workspace, stream);
    if (status != 0) return status;
    const auto* geometry = static_cast<const BoxGeometry*>(args.workspace);
    const dim3 grid(static_cast<unsigned>(ceil_div(args.supports.count, kColumns)), static_cast<unsigned>(tiles),
                    static_cast<unsigned>(ceil_div(args.heads, kGroup)));
    return args.modules == 1 ? launch(find_gates<1>, grid, kThreads, 0, stream, args, geometry)
                             : launch(find_gates<2>, grid, kThreads, 0, stream, args, geometry);
}

}  // namespace rdn::cuda
