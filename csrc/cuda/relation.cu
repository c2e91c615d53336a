// Relation attention in float32, geometry included (cpu/relation.cpp says how the geometry is taken apart).
//
// A warp holds one query row, a lane one support: the sines and cosines of the pair stay in registers for all heads.
#include "relation.cuh"

namespace rdn::cuda {
namespace {

constexpr int kRows = 4;  // query rows of a block, one a warp
constexpr int kThreads = kRows * kWarp;
constexpr int kPad = 4;  // floats behind each row of a tile, against bank conflicts
constexpr int64_t kMostShared = 64 * 1024;

// The block's shared memory, in floats.
struct Tile {
    float* weights;        // [heads, 32] of the centre terms
    float* turned;         // [kRows, heads, 32] of the supports' sides
    float* query;          // [kRows, heads * head_dim] times log2(e) / sqrt(head_dim)
    float* sums;           // [kRows, heads * head_dim] values, weighted
    float* maximum;        // [kRows, heads]
    float* total;          // [kRows, heads] of the weights
    float *keys, *values;  // [32, head_dim + kPad] of one head

    __device__ Tile(float* memory, int heads, int head_dim) {
        weights = memory;
        turned = weights + heads * kCentreChannels;
        query = turned + kRows * heads * kSides;
        sums = query + kRows * heads * head_dim;
        maximum = sums + kRows * heads * head_dim;
        total = maximum + kRows * heads;
        keys = total + kRows * heads;
        values = keys + kWarp * (head_dim + kPad);
    }

    static std::size_t bytes(int64_t heads, int64_t head_dim) {
        const int64_t floats =
            heads * (kCentreChannels + kRows * (kSides + 2 * head_dim + 2)) + 2 * kWarp * (head_dim + kPad);
        return static_cast<std::size_t>(floats) * sizeof(float);
    }
};

// Sines and cosines of one query and one support, in the order of the geometry's channels.
struct Pair {
    float centre[kCentreChannels], sides[kSides];
};

__device__ Pair embed(const BoxGeometry& query, const BoxGeometry& support) {
    Pair pair;
    for (int axis = 0; axis < 2; ++axis) {
        const Log2<float> offset = log2_offset<float>(query.centre[axis], support.centre[axis], query.inverse[axis]);
#pragma unroll
        for (int k = 0; k < kFrequencies; ++k) {
            float* sine = pair.centre + axis * kTermChannels + k;
            sincos_turns(offset_turns(offset, kTurns, k), sine, sine + kFrequencies);
        }
    }
#pragma unroll
    for (int c = 0; c < kSides; ++c)
        pair.sides[c] = support.sides[c];
    return pair;
}

__device__ float gate_of(const Pair& pair, const float* weights, const float* turned, float bias) {
    float centre = 0.0f, sides = 0.0f;
#pragma unroll
    for (int c = 0; c < kCentreChannels; ++c)
        centre = fused(weights[c], pair.centre[c], centre);
#pragma unroll
    for (int c = 0; c < kSides; ++c)
        sides = fused(turned[c], pair.sides[c], sides);
    return gate(centre + sides + bias);
}

__device__ float dot(const float* a, const float* b, int length) {
    float sums[4] = {};
    for (int d = 0; d < length; d += 4) {
        const Pack<float, 4> left = load_pack<float, 4>(a + d), right = load_pack<float, 4>(b + d);
        for (int k = 0; k < 4; ++k)
            sums[k] = fused(left.at[k], right.at[k], sums[k]);
    }
    return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

__device__ float query_scale(const RelationAttention& args) {
    return static_cast<float>(1.4426950408889634 / sqrt(static_cast<double>(args.head_dim)));
}

// What does not change while the block goes over the supports. A row past the last repeats the last.
__device__ void load_rows(const RelationAttention& args, const BoxGeometry* geometry, int64_t row, const Tile& tile) {
    const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
    const int heads = static_cast<int>(args.heads), dim = heads * static_cast<int>(args.head_dim);
    for (int k = threadIdx.x; k < heads * kCentreChannels; k += kThreads)
        tile.weights[k] = args.geometry_weight[k / kCentreChannels * kGeometryChannels + k % kCentreChannels];
    for (int k = lane; k < heads * kTermChannels; k += kWarp) {
        const int head = k / kTermChannels, term = k % kTermChannels;
        const int channel = term / kFrequencies * kTermChannels + term % kFrequencies;
        float* turned = tile.turned + (warp * heads + head) * kSides + channel;
        turn_weights(args.geometry_weight + head * kGeometryChannels, geometry[row].sides, channel, turned,
                     turned + kFrequencies);
    }
    const float* query = static_cast<const float*>(args.query) + row_at(args.queries.rows, row) * dim;
    const float scale = query_scale(args);
    for (int k = lane; k < dim; k += kWarp)
        tile.query[warp * dim + k] = query[k] * scale, tile.sums[warp * dim + k] = 0.0f;
    for (int k = lane; k < heads; k += kWarp)
        tile.maximum[warp * heads + k] = kNone, tile.total[warp * heads + k] = 0.0f;
}

// Keys and values of one head and of the 32 supports from `first` on; zeros for what takes no part.
__device__ void load_head(const RelationAttention& args, int64_t first, int64_t end, int head, const Tile& tile) {
    const int head_dim = static_cast<int>(args.head_dim), packs = head_dim / 4;
    for (int k = threadIdx.x; k < kWarp * packs; k += kThreads) {
        const int64_t j = first + k / packs;
        const int d = k % packs * 4;
        Pack<float, 4> key{}, value{};
        if (j < end && takes_part(args.supports, j)) {
            const int64_t from = (row_at(args.supports.rows, j) * args.heads + head) * head_dim + d;
            key = load_pack<float, 4>(static_cast<const float*>(args.keys) + from);
            value = load_pack<float, 4>(static_cast<const float*>(args.values) + from);
        }
        const int to = k / packs * (head_dim + kPad) + d;
        store_pack<float, 4>(tile.keys + to, key);
        store_pack<float, 4>(tile.values + to, value);
    }
}

// Adds the 32 supports in the tile to one row and head: lanes are supports, then channels.
__device__ void add_supports(const RelationAttention& args, bool valid, float gate, int head, const Tile& tile) {
    const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
    const int heads = static_cast<int>(args.heads), head_dim = static_cast<int>(args.head_dim);
    const float* query = tile.query + (warp * heads + head) * head_dim;
    const float score = valid ? dot(query, tile.keys + lane * (head_dim + kPad), head_dim) : kNone;
    float* maximum = tile.maximum + warp * heads + head;
    float* total = tile.total + warp * heads + head;
    const float before = *maximum, raised = greater(warp_largest(score), before);
    const float shrink = exp2_clamped(before - raised);
    const float weight = valid ? exp2_clamped(score - raised) * gate : 0.0f;
    const float sum = warp_sum(weight);
    __syncwarp();
    if (lane == 0) *maximum = raised, *total = *total * shrink + sum;
    float* sums = tile.sums + (warp * heads + head) * head_dim;
    for (int d = lane; d < ceil_div(head_dim, kWarp) * kWarp; d += kWarp) {
        float value = 0.0f;
        for (int j = 0; j < kWarp; ++j) {
            const float w = __shfl_sync(kAllLanes, weight, j);
            value = fused(w, tile.values[j * (head_dim + kPad) + (d < head_dim ? d : 0)], value);
        }
        if (d < head_dim) sums[d] = sums[d] * shrink + value;
    }
    __syncwarp();
}

__device__ void write_rows(const RelationAttention& args, int64_t row, int64_t split, const Tile& tile) {
    const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
    const int heads = static_cast<int>(args.heads), head_dim = static_cast<int>(args.head_dim), dim = heads * head_dim;
    const int64_t place = row_at(args.split_places, split) * args.places + row_at(args.query_places, row);
    for (int k = lane; k < dim; k += kWarp) {
        const float total = tile.total[warp * heads + k / head_dim];
        args.partial[place * dim + k] = total == 0.0f ? 0.0f : tile.sums[warp * dim + k] / total;
    }
    for (int k = lane; k < heads; k += kWarp) {
        args.partial_weight[2 * (place * heads + k)] = tile.maximum[warp * heads + k];
        args.partial_weight[2 * (place * heads + k) + 1] = tile.total[warp * heads + k];
    }
}

// Grid: (tiles of kRows queries, splits).
__global__ void __launch_bounds__(kThreads) attend(RelationAttention args, const BoxGeometry* geometry) {
    const Tile tile(shared_memory<float>(), static_cast<int>(args.heads), static_cast<int>(args.head_dim));
    const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp, heads = static_cast<int>(args.heads);
    const int64_t wanted = static_cast<int64_t>(blockIdx.x) * kRows + warp, split = blockIdx.y;
    const int64_t row = wanted < args.queries.count ? wanted : args.queries.count - 1;
    const int64_t begin = split * args.split_size, most = begin + args.split_size;
    const int64_t end = most < args.supports.count ? most : args.supports.count;
    load_rows(args, geometry, row, tile);
    const BoxGeometry* support_geometry = geometry + args.queries.count;
    for (int64_t first = begin; first < end; first += kWarp) {
        const int64_t j = first + lane;
        const bool valid = j < end && takes_part(args.supports, j);
        const Pair pair = embed(geometry[row], support_geometry[valid ? j : begin]);
        const float multiplicity = valid ? args.supports.multiplicity[j] : 0.0f;
        for (int head = 0; head < heads; ++head) {
            __syncthreads();
            load_head(args, first, end, head, tile);
            __syncthreads();
            const float gate = gate_of(pair, tile.weights + head * kCentreChannels,
                                       tile.turned + (warp * heads + head) * kSides, args.geometry_bias[head]);
            add_supports(args, valid, gate * multiplicity, head, tile);
        }
    }
    __syncwarp();
    if (wanted < args.queries.count) write_rows(args, row, split, tile);
}

// Grid: (tiles of kRows queries, tiles of 32 supports wanted).
__global__ void __launch_bounds__(kThreads) average_weights(RelationOmega args, const BoxGeometry* geometry) {
    const RelationAttention& all = args.attention;
    const int heads = static_cast<int>(all.heads), head_dim = static_cast<int>(all.head_dim);
    const Tile tile(shared_memory<float>(), heads, head_dim);
    const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
    const int64_t wanted = static_cast<int64_t>(blockIdx.x) * kRows + warp;
    const int64_t row = wanted < all.queries.count ? wanted : all.queries.count - 1;
    load_rows(all, geometry, row, tile);
    __syncthreads();
    const int64_t j = args.begin + static_cast<int64_t>(blockIdx.y) * kWarp + lane;
    if (wanted >= all.queries.count || j >= args.end) return;
    float sum = 0.0f;
    if (takes_part(all.supports, j)) {
        const Pair pair = embed(geometry[row], geometry[all.queries.count + j]);
        const float* keys = static_cast<const float*>(all.keys) + row_at(all.supports.rows, j) * heads * head_dim;
        for (int head = 0; head < heads; ++head) {
            const float* weight = args.weight + 2 * (row * heads + head);
            const float gate = gate_of(pair, tile.weights + head * kCentreChannels,
                                       tile.turned + (warp * heads + head) * kSides, all.geometry_bias[head]);
            const float score = dot(tile.query + (warp * heads + head) * head_dim, keys + head * head_dim, head_dim);
            sum += exp2_clamped(score - weight[0]) * gate / weight[1];
        }
        sum *= all.supports.multiplicity[j] / static_cast<float>(heads);
    }
    args.omega[row * (args.end - args.begin) + j - args.begin] = sum;
}

}  // namespace

bool fits_float32(const RelationAttention& args) {
    return args.heads >= 1 && args.head_dim >= 16 && args.head_dim <= 128 && args.head_dim % 16 == 0 &&
           static_cast<int64_t>(Tile::bytes(args.heads, args.head_dim)) <= kMostShared && args.workspace != nullptr;
}

Status attend_float32(const RelationAttention& args, Stream stream) {
    const int64_t splits = ceil_div(args.supports.count, args.split_size);
    if (!fits_float32(args) || splits > 65535) return kBadArgument;
    const Status status = find_geometry(args.queries, args.supports, args.workspace, stream);
    if (status != 0) return status;
    const dim3 grid(static_cast<unsigned>(ceil_div(args.queries.count, kRows)), static_cast<unsigned>(splits));
    return launch(attend, grid, kThreads, Tile::bytes(args.heads, args.head_dim), stream, args,
                  static_cast<const BoxGeometry*>(args.workspace));
}

Status average_float32(const RelationOmega& args, Stream stream) {
    const RelationAttention& all = args.attention;
    const int64_t tiles = ceil_div(args.end - args.begin, kWarp);
    if (!fits_float32(all) || tiles > 65535) return kBadArgument;
    const dim3 grid(static_cast<unsigned>(ceil_div(all.queries.count, kRows)), static_cast<unsigned>(tiles));
    return launch(average_weights, grid, kThreads, Tile::bytes(all.heads, all.head_dim), stream, args,
                  static_cast<const BoxGeometry*>(all.workspace));
}

}  // namespace rdn::cuda
