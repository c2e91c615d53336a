// The steps of a relation module that do not depend on its precision: which kernel, and adding up the splits.
#include "relation.cuh"

namespace rdn::cuda {

Status attend_float32(const RelationAttention& args, Stream stream);  // relation.cu
Status average_float32(const RelationOmega& args, Stream stream);
Status attend_float16(const RelationAttention& args, Stream stream);  // relation_tensor.cu
Status average_float16(const RelationOmega& args, Stream stream);

namespace {

constexpr int kThreads = 256;
constexpr int kCount = 4;  // channels of a thread

// One thread a box and axis.
__global__ void __launch_bounds__(kThreads)
    embed_boxes(const float* boxes, const int32_t* rows, int64_t count, BoxGeometry* out) {
    const int64_t thread = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x, i = thread / 2;
    const int axis = static_cast<int>(thread % 2);
    if (i >= count) return;
    const float* box = boxes + 4 * row_at(rows, i);
    const float low = box[axis], high = box[axis + 2];
    out[i].centre[axis] = centre(low, high);
    out[i].inverse[axis] = inverse_side(low, high);
    float* sides = out[i].sides + axis * kTermChannels;
    const double log2_side = log2(relation_side(low, high));
    for (int k = 0; k < kFrequencies; ++k)
        sincos_turns(side_turns(log2_side, kTurns, k), sides + k, sides + k + kFrequencies);
}

Status embed_boxes_of(const float* boxes, const int32_t* rows, int64_t count, BoxGeometry* out, Stream stream) {
    if (count == 0) return 0;
    return launch(embed_boxes, static_cast<unsigned>(ceil_div(2 * count, kThreads)), kThreads, 0, stream, boxes, rows,
                  count, out);
}

// Share of each split in one row and head.
struct Shares {
    const float* weight;       // [splits, rows, heads, 2], at this row and head
    const float* split_count;  // optional
    int64_t splits, stride;

    __device__ float count(int64_t split) const { return split_count != nullptr ? split_count[split] : 1.0f; }
    __device__ float maximum() const {
        float most = kNone;
        for (int64_t s = 0; s < splits; ++s)
            if (count(s) != 0.0f && weight[s * stride + 1] != 0.0f) most = greater(weight[s * stride], most);
        return most;
    }
};

__device__ Pack<float, kCount> read(const void* data, Type type, int64_t index) {
    Pack<float, kCount> values;
    for (int c = 0; c < kCount; ++c)
        values.at[c] = element(data, type, index + c);
    return values;
}

// One thread a row and four channels.
template <class T>
__global__ void __launch_bounds__(kThreads) combine(CombineRelation args) {
    const int64_t dim = args.heads * args.head_dim, packs = dim / kCount;
    const int64_t thread = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x, row = thread / packs;
    if (row >= args.rows) return;
    const int64_t channel = thread % packs * kCount, head = channel / args.head_dim;
    const Shares shares = {args.partial_weight + 2 * (row * args.heads + head), args.split_count, args.splits,
                           2 * args.rows * args.heads};
    const float maximum = shares.maximum();
    float total = 0.0f, sums[kCount] = {};
    for (int64_t s = 0; s < args.splits; ++s) {
        const float count = shares.count(s);
        if (count == 0.0f) continue;
        const float weight = shares.weight[s * shares.stride + 1];
        if (weight == 0.0f) continue;
        const float share = count * weight * exp2f(shares.weight[s * shares.stride] - maximum);
        const Pack<float, kCount> part = load_pack<float, kCount>(args.partial + (s * args.rows + row) * dim + channel);
        for (int c = 0; c < kCount; ++c)
            sums[c] = fused(share, part.at[c], sums[c]);
        total += share;
    }
    const bool any = total != 0.0f;
    Pack<float, kCount> residual{};
    if (args.residual != nullptr)
        residual = read(args.residual, args.type, row_at(args.residual_rows, row) * dim + channel);
    Pack<T, kCount> out;
    for (int c = 0; c < kCount; ++c) {
        const float bias = any ? args.value_bias[channel + c] : 0.0f;
        out.at[c] = from_float<T>(residual.at[c] + (any ? sums[c] / total + bias : 0.0f));
    }
    store_pack(static_cast<T*>(args.out) + row * dim + channel, out);
    if (args.weight != nullptr && channel % args.head_dim == 0) {
        args.weight[2 * (row * args.heads + head)] = maximum;
        args.weight[2 * (row * args.heads + head) + 1] = total;
    }
}

bool usual(const RelationAttention& args) {
    return args.heads >= 1 && args.head_dim >= 1 && args.split_size >= 1 && args.places >= 1;
}

}  // namespace

Status find_geometry(const Queries& queries, const Supports& supports, void* workspace, Stream stream) {
    auto* geometry = static_cast<BoxGeometry*>(workspace);
    const Status status = embed_boxes_of(queries.boxes, queries.rows, queries.count, geometry, stream);
    if (status != 0) return status;
    return embed_boxes_of(supports.boxes, supports.rows, supports.count, geometry + queries.count, stream);
}

Status run(const RelationAttention& args, Stream stream) {
    if (!usual(args)) return kBadArgument;
    if (args.queries.count == 0 || args.supports.count == 0) return 0;
    if (args.type == Type::kFloat32) return attend_float32(args, stream);
    return args.type == Type::kFloat16 ? attend_float16(args, stream) : kBadArgument;
}

Status run(const CombineRelation& args, Stream stream) {
    if (args.rows == 0) return 0;
    if (args.heads < 1 || args.head_dim < 1 || args.head_dim % kCount != 0 || args.splits < 0) return kBadArgument;
    const int64_t threads = args.rows * args.heads * args.head_dim / kCount;
    return with_type(args.type, [&](auto zero) {
        return launch(combine<decltype(zero)>, static_cast<unsigned>(ceil_div(threads, kThreads)), kThreads, 0, stream,
                      args);
    });
}

Status run(const RelationOmega& args, Stream stream) {
    const RelationAttention& all = args.attention;
    const bool range = 0 <= args.begin && args.begin <= args.end && args.end <= all.supports.count;
    if (!usual(all) || !range) return kBadArgument;
    if (all.queries.count == 0 || args.begin == args.end) return 0;
    if (all.type == Type::kFloat32) return average_float32(args, stream);
    return all.type == Type::kFloat16 ? average_float16(args, stream) : kBadArgument;
}

}  // namespace rdn::cuda
