// Relation attention on tensor cores: float16 queries, keys, values and gates, float32 sums and softmax.
//
//     weight_ij = gate_ij multiplicity_j 2^(score_ij - maximum_i),    maximum_i over score + exponent of the factor
//
// The exponent keeps every weight below 2, so that float16 holds it well; neither the gate's logarithm nor a mask is
// needed. The sum of the weights comes from the same products as the values: a column of ones.
//
// A block is one head, 64 queries and one split; its supports pass through two stages of shared memory in tiles of 64,
// read in place from the ring.
#include "relation.cuh"
#include "tensor.cuh"

namespace rdn::cuda {
namespace {

constexpr int kWarps = 4, kThreads = kWarps * kWarp;
constexpr int kRows = 16 * kWarps;  // queries of a block
constexpr int kTile = 64;           // supports of a stage
constexpr int kPad = 8;             // halves behind each row in shared memory: rows start 4 banks apart

template <int Dim>
struct Stage {
    Half keys[kTile][Dim + kPad], values[kTile][Dim + kPad];
    float multiplicity[kTile];
};

struct Lane {
    int group, quad, warp, row[2];  // the two queries of the block that the lane's sums belong to

    __device__ Lane() {
        const int lane = threadIdx.x % kWarp;
        group = lane / 4, quad = lane % 4, warp = threadIdx.x / kWarp;
        row[0] = 16 * warp + group, row[1] = row[0] + 8;
    }
};

template <int Dim>
__device__ void load_queries(const RelationAttention& args, int64_t first_row, int head, const Lane& lane,
                             uint32_t (&query)[Dim / 16][4]) {
    for (int upper = 0; upper < 2; ++upper) {
        const int64_t i = first_row + lane.row[upper];
        const bool there = i < args.queries.count;
        const int64_t row = there ? row_at(args.queries.rows, i) : 0;
        const Half* from = static_cast<const Half*>(args.query) + (row * args.heads + head) * Dim + 2 * lane.quad;
#pragma unroll
        for (int step = 0; step < Dim / 16; ++step) {
            query[step][upper] = there ? load_pair(from + 16 * step) : 0;
            query[step][upper + 2] = there ? load_pair(from + 16 * step + 8) : 0;
        }
    }
}

// Starts copying the supports first .. first + 63 of one head; zeros for what takes no part or lies past `end`.
template <int Dim, bool Values>
__device__ void fill_stage(const RelationAttention& args, int64_t first, int64_t end, int head, Stage<Dim>* stage) {
    constexpr int kPieces = Dim / 8;  // of 16 bytes
    for (int k = threadIdx.x; k < kTile * kPieces; k += kThreads) {
        const int j = k / kPieces, d = k % kPieces * 8;
        const bool wanted = first + j < end && takes_part(args.supports, first + j);
        const int64_t row = wanted ? row_at(args.supports.rows, first + j) : 0;
        const int64_t from = (row * args.heads + head) * Dim + d;
        copy_async(&stage->keys[j][d], static_cast<const Half*>(args.keys) + from, wanted);
        if (Values) copy_async(&stage->values[j][d], static_cast<const Half*>(args.values) + from, wanted);
        if (d == 0) stage->multiplicity[j] = wanted ? args.supports.multiplicity[first + j] : 0.0f;
    }
    commit_copies();
}

// Base-2 scores of the warp's 16 queries and of 16 supports from `column` of the stage on.
template <int Dim>
__device__ void find_scores(const uint32_t (&query)[Dim / 16][4], const Stage<Dim>& stage, int column, float scale,
                            float (&scores)[2][4]) {
    const int lane = threadIdx.x % kWarp, matrix = lane / 8;
    for (int n = 0; n < 2; ++n)
        for (int e = 0; e < 4; ++e)
            scores[n][e] = 0.0f;
#pragma unroll
    for (int step = 0; step < Dim / 16; ++step) {
        uint32_t keys[4];
        load_matrices(&stage.keys[column + 8 * (matrix / 2) + lane % 8][16 * step + 8 * (matrix % 2)], keys);
        multiply_add(scores[0], query[step], keys[0], keys[1]);
        multiply_add(scores[1], query[step], keys[2], keys[3]);
    }
    for (int n = 0; n < 2; ++n)
        for (int e = 0; e < 4; ++e)
            scores[n][e] *= scale;
}

// gate * multiplicity of the same pairs; 0 past the last query.
template <int Dim>
__device__ void load_factors(const RelationAttention& args, int64_t first_row, int head, int64_t first, int column,
                             const Stage<Dim>& stage, const Lane& lane, float (&factors)[2][4]) {
    for (int upper = 0; upper < 2; ++upper) {
        const int64_t i = first_row + lane.row[upper];
        const bool there = i < args.queries.count;
        const Half* line = static_cast<const Half*>(args.gates) +
                           (head * args.queries.count + (there ? i : 0)) * args.supports.count + first + 2 * lane.quad;
        for (int n = 0; n < 2; ++n) {
            const int at = column + 8 * n;
            const float2 gates = unpack_halves(there ? load_pair(line + at) : 0);
            factors[n][2 * upper] = gates.x * stage.multiplicity[at + 2 * lane.quad];
            factors[n][2 * upper + 1] = gates.y * stage.multiplicity[at + 2 * lane.quad + 1];
        }
    }
}

// floor(log2(x)) of a positive number; -127 for 0, 128 for NaN.
__device__ __forceinline__ float exponent_of(float x) {
    return static_cast<float>((bits_as<int32_t>(x) >> 23) - 127);
}

__device__ __forceinline__ float weight_of(float score, float factor, float maximum) {
    return factor == 0.0f ? 0.0f : factor * fast_exp2(score - maximum);
}

__device__ __forceinline__ float quad_largest(float x) {
    x = greater(x, __shfl_xor_sync(kAllLanes, x, 1));
    return greater(x, __shfl_xor_sync(kAllLanes, x, 2));
}

// The running softmax of the warp's 16 queries.
template <int Dim>
struct Sums {
    float values[Dim / 8][4], total[4], maximum[2];

    __device__ void clear() {
        for (int n = 0; n < Dim / 8; ++n)
            for (int e = 0; e < 4; ++e)
                values[n][e] = 0.0f;
        for (int e = 0; e < 4; ++e)
            total[e] = 0.0f;
        maximum[0] = maximum[1] = kNone;
    }

    __device__ void raise(const float (&to)[2]) {
        float shrink[2];
        for (int upper = 0; upper < 2; ++upper) {
            const float raised = greater(to[upper], maximum[upper]);
            shrink[upper] = fast_exp2(maximum[upper] - raised);
            maximum[upper] = raised;
        }
        for (int n = 0; n < Dim / 8; ++n)
            for (int e = 0; e < 4; ++e)
                values[n][e] *= shrink[e / 2];
        for (int e = 0; e < 4; ++e)
            total[e] *= shrink[e / 2];
    }

    // Adds 16 supports from `column` of the stage on.
    __device__ void add(const float (&scores)[2][4], const float (&factors)[2][4], const Stage<Dim>& stage,
                        int column) {
        const int lane = threadIdx.x % kWarp, matrix = lane / 8;
        uint32_t weights[4];
        for (int n = 0; n < 2; ++n)
            for (int upper = 0; upper < 2; ++upper) {
                const int e = 2 * upper;
                weights[2 * n + upper] = pack_halves(weight_of(scores[n][e], factors[n][e], maximum[upper]),
                                                     weight_of(scores[n][e + 1], factors[n][e + 1], maximum[upper]));
            }
        multiply_add(total, weights, kHalfOnes, kHalfOnes);
#pragma unroll
        for (int n = 0; n < Dim / 8; n += 2) {
            uint32_t part[4];
            load_matrices_transposed(&stage.values[column + 8 * (matrix % 2) + lane % 8][8 * (n + matrix / 2)], part);
            multiply_add(values[n], weights, part[0], part[1]);
            multiply_add(values[n + 1], weights, part[2], part[3]);
        }
    }
};

template <int Dim>
__device__ void attend_tile(const RelationAttention& args, int64_t first_row, int head, int64_t first, int64_t end,
                            float scale, const uint32_t (&query)[Dim / 16][4], const Stage<Dim>& stage,
                            const Lane& lane, Sums<Dim>* sums) {
    constexpr int kSteps = kTile / 16;
    const int steps = end - first < kTile ? static_cast<int>((end - first) / 16) : kSteps;
    float scores[kSteps][2][4], factors[kSteps][2][4], top[2] = {kNone, kNone};
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
        if (step >= steps) continue;
        load_factors(args, first_row, head, first, 16 * step, stage, lane, factors[step]);
        find_scores<Dim>(query, stage, 16 * step, scale, scores[step]);
        for (int n = 0; n < 2; ++n)
            for (int e = 0; e < 4; ++e)
                top[e / 2] = greater(scores[step][n][e] + exponent_of(factors[step][n][e]), top[e / 2]);
    }
    top[0] = quad_largest(top[0]), top[1] = quad_largest(top[1]);
    sums->raise(top);
#pragma unroll
    for (int step = 0; step < kSteps; ++step)
        if (step < steps) sums->add(scores[step], factors[step], stage, 16 * step);
}

template <int Dim>
__device__ void write_sums(const RelationAttention& args, int64_t first_row, int head, int64_t split, const Lane& lane,
                           const Sums<Dim>& sums) {
    for (int upper = 0; upper < 2; ++upper) {
        const int64_t i = first_row + lane.row[upper];
        if (i >= args.queries.count) continue;
        const int64_t place = row_at(args.split_places, split) * args.places + row_at(args.query_places, i);
        const float total = sums.total[2 * upper], share = total == 0.0f ? 0.0f : 1.0f / total;
        float* to = args.partial + (place * args.heads + head) * Dim + 2 * lane.quad;
#pragma unroll
        for (int n = 0; n < Dim / 8; ++n) {
            Pack<float, 2> pair;
            pair.at[0] = sums.values[n][2 * upper] * share, pair.at[1] = sums.values[n][2 * upper + 1] * share;
            store_pack(to + 8 * n, pair);
        }
        if (lane.quad == 0) {
            Pack<float, 2> weight;
            weight.at[0] = sums.maximum[upper], weight.at[1] = total;
            store_pack(args.partial_weight + 2 * (place * args.heads + head), weight);
        }
    }
}

// Grid: (tiles of kRows queries, heads, splits).
template <int Dim>
__global__ void __launch_bounds__(kThreads) attend(RelationAttention args, float scale) {
    auto* stages = shared_memory<Stage<Dim>>();
    const Lane lane;
    const int head = blockIdx.y;
    const int64_t first_row = static_cast<int64_t>(blockIdx.x) * kRows, split = blockIdx.z;
    const int64_t begin = split * args.split_size, most = begin + args.split_size;
    const int64_t end = most < args.supports.count ? most : args.supports.count;
    uint32_t query[Dim / 16][4];
    load_queries<Dim>(args, first_row, head, lane, query);
    Sums<Dim> sums;
    sums.clear();
    fill_stage<Dim, true>(args, begin, end, head, &stages[0]);
    int current = 0;
    for (int64_t first = begin; first < end; first += kTile, current ^= 1) {
        // Past the end nothing is copied, but the count of commits stays right.
        fill_stage<Dim, true>(args, first + kTile, end, head, &stages[current ^ 1]);
        wait_for_copies<1>();
        __syncthreads();
        attend_tile<Dim>(args, first_row, head, first, end, scale, query, stages[current], lane, &sums);
        __syncthreads();
    }
    write_sums<Dim>(args, first_row, head, split, lane, sums);
}

// Grid: (tiles of kRows queries, tiles of 64 supports wanted). A block goes over the heads.
template <int Dim>
__global__ void __launch_bounds__(kThreads) average_weights(RelationOmega args, float scale) {
    const RelationAttention& all = args.attention;
    auto* stages = shared_memory<Stage<Dim>>();
    const Lane lane;
    const int64_t first_row = static_cast<int64_t>(blockIdx.x) * kRows;
    const int64_t first = args.begin + static_cast<int64_t>(blockIdx.y) * kTile;
    constexpr int kSteps = kTile / 16;
    const int steps = args.end - first < kTile ? static_cast<int>((args.end - first) / 16) : kSteps;
    float means[kSteps][2][4] = {};
    for (int head = 0; head < all.heads; ++head) {
        uint32_t query[Dim / 16][4];
        load_queries<Dim>(all, first_row, head, lane, query);
        __syncthreads();
        fill_stage<Dim, false>(all, first, args.end, head, stages);
        wait_for_copies<0>();
        __syncthreads();
        float maximum[2], share[2];
        for (int upper = 0; upper < 2; ++upper) {
            const int64_t i = first_row + lane.row[upper], row = i < all.queries.count ? i : 0;
            maximum[upper] = args.weight[2 * (row * all.heads + head)];
            const float total = args.weight[2 * (row * all.heads + head) + 1];
            share[upper] = total == 0.0f ? 0.0f : 1.0f / (total * static_cast<float>(all.heads));
        }
#pragma unroll
        for (int step = 0; step < kSteps; ++step) {
            if (step >= steps) continue;
            float scores[2][4], factors[2][4];
            load_factors(all, first_row, head, first, 16 * step, *stages, lane, factors);
            find_scores<Dim>(query, *stages, 16 * step, scale, scores);
            for (int n = 0; n < 2; ++n)
                for (int e = 0; e < 4; ++e)
                    means[step][n][e] += weight_of(scores[n][e], factors[n][e], maximum[e / 2]) * share[e / 2];
        }
    }
    const int64_t wanted = args.end - args.begin;
#pragma unroll
    for (int step = 0; step < kSteps; ++step)
        for (int n = 0; n < 2; ++n)
            for (int e = 0; e < 4; ++e) {
                const int64_t i = first_row + lane.row[e / 2];
                const int64_t j = first - args.begin + 16 * step + 8 * n + 2 * lane.quad + e % 2;
                if (step < steps && i < all.queries.count) args.omega[i * wanted + j] = means[step][n][e];
            }
}

float score_scale(const RelationAttention& args) {
    return static_cast<float>(1.4426950408889634 / std::sqrt(static_cast<double>(args.head_dim)));
}

// Calls use(integer constant) with the head_dim.
template <class Use>
Status with_dim(int64_t head_dim, const Use& use) {
    switch (head_dim) {
        case 16:
            return use(std::integral_constant<int, 16>{});
        case 32:
            return use(std::integral_constant<int, 32>{});
        case 64:
            return use(std::integral_constant<int, 64>{});
        case 128:
            return use(std::integral_constant<int, 128>{});
    }
    return kBadArgument;
}

bool fits(const RelationAttention& args) {
    return args.supports.count % 16 == 0 && args.split_size % 16 == 0 && args.heads >= 1 && args.heads <= 65535 &&
           args.gates != nullptr && aligned(args.query, 16) && aligned(args.keys, 16) && aligned(args.values, 16);
}

}  // namespace

Status attend_float16(const RelationAttention& args, Stream stream) {
    const int64_t splits = ceil_div(args.supports.count, args.split_size);
    if (!fits(args) || splits > 65535) return kBadArgument;
    const dim3 grid(static_cast<unsigned>(ceil_div(args.queries.count, kRows)), static_cast<unsigned>(args.heads),
                    static_cast<unsigned>(splits));
    return with_dim(args.head_dim, [&](auto dim) {
        constexpr int Dim = decltype(dim)::value;
        return launch(attend<Dim>, grid, kThreads, 2 * sizeof(Stage<Dim>), stream, args, score_scale(args));
    });
}

Status average_float16(const RelationOmega& args, Stream stream) {
    const RelationAttention& all = args.attention;
    const int64_t tiles = ceil_div(args.end - args.begin, kTile);
    if (!fits(all) || tiles > 65535 || args.begin % 16 != 0 || args.end % 16 != 0) return kBadArgument;
    const dim3 grid(static_cast<unsigned>(ceil_div(all.queries.count, kRows)), static_cast<unsigned>(tiles));
    return with_dim(all.head_dim, [&](auto dim) {
        constexpr int Dim = decltype(dim)::value;
        return launch(average_weights<Dim>, grid, kThreads, sizeof(Stage<Dim>), stream, args, score_scale(all));
    });
}

}  // namespace rdn::cuda
