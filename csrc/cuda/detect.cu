// Detections (DESIGN, section 2, output): softmax, decode, clip, suppress per class, best first. One block a class and
// image, then one an image.
#include "best_first.cuh"
#include "nms.cuh"

namespace rdn::cuda {
namespace {

constexpr int64_t kMostDetections = 2048;

// What stays of a class after suppression, by pair = class * rows + row; and scratch.
struct Workspace {
    Box* boxes;     // [batch, classes, rows]
    Box* sorted;    // [batch, classes, rows] candidates of a class, best first
    uint2* lists;   // [batch, max_detections]
    float* scores;  // [batch, classes, rows] softmax
    float* kept;    // [batch, classes, rows] the same, NaN where suppressed
    int* order;     // [batch, classes, rows] row of each candidate
    std::size_t bytes;
};

Workspace layout(const Detect& args) {
    const std::size_t pairs = static_cast<std::size_t>(args.batch * args.classes * args.rows);
    const std::size_t best = static_cast<std::size_t>(args.batch * args.max_detections);
    auto* at = static_cast<unsigned char*>(args.workspace);
    Workspace parts{};
    parts.boxes = reinterpret_cast<Box*>(at);
    parts.sorted = parts.boxes + pairs;
    parts.lists = reinterpret_cast<uint2*>(at + 2 * pairs * sizeof(Box));
    parts.scores = reinterpret_cast<float*>(at + 2 * pairs * sizeof(Box) + best * sizeof(uint2));
    parts.kept = parts.scores + pairs;
    parts.order = reinterpret_cast<int*>(parts.kept + pairs);
    parts.bytes = pairs * (2 * sizeof(Box) + 2 * sizeof(float) + sizeof(int)) + best * sizeof(uint2);
    return parts;
}

// Of one foreground class; NaN where a logit of the row is.
__device__ float softmax_score(const Detect& args, int64_t image_row, int64_t label) {
    const int64_t first = image_row * (args.classes + 1);
    float most = element(args.logits, args.type, first);
    for (int64_t c = 1; c <= args.classes; ++c)
        most = greater(element(args.logits, args.type, first + c), most);
    float sum = expf(element(args.logits, args.type, first) - most), wanted = 0.0f;
    for (int64_t c = 1; c <= args.classes; ++c) {
        const float term = expf(element(args.logits, args.type, first + c) - most);
        sum += term;
        if (c == label + 1) wanted = term;
    }
    return wanted / sum;
}

__device__ Box decode_row(const Detect& args, int64_t image_row, int64_t label) {
    const float* box = args.boxes + 4 * image_row;
    const int64_t first = 4 * (image_row * (args.classes + 1) + label + 1);
    float delta[4];
    for (int k = 0; k < 4; ++k)
        delta[k] = element(args.deltas, args.type, first + k);
    return clip(decode({box[0], box[1], box[2], box[3]}, delta, args.box_weights), args.image_width, args.image_height);
}

template <int Threads, int Items>
union ClassMemory {
    typename BlockSort<Threads, Items>::Memory sort;
    int sums[Threads / kWarp];
};

// Orders one class' candidates: their rows and boxes, best first. Ends with a barrier.
template <int Threads, int Items>
__device__ int order_class(const Detect& args, int64_t image, int64_t label, int64_t rows, const Workspace& parts,
                           int64_t first_pair) {
    using Sort = BlockSort<Threads, Items>;
    auto* memory = shared_memory<ClassMemory<Threads, Items>>();
    uint32_t keys[Items], sorted_rows[Items];
    int mine = 0;
    for (int k = 0; k < Items; ++k) {
        const int64_t row = static_cast<int64_t>(threadIdx.x) * Items + k;
        const float score = row < rows ? softmax_score(args, image * args.rows + row, label) : NAN;
        const bool candidate = score > args.score_threshold;
        keys[k] = candidate ? descending_bits(score) : ~0u;
        sorted_rows[k] = static_cast<uint32_t>(row);
        mine += candidate;
        if (row < args.rows) parts.scores[first_pair + row] = score, parts.kept[first_pair + row] = NAN;
    }
    mine = warp_sum(mine);
    if (threadIdx.x % kWarp == 0) memory->sums[threadIdx.x / kWarp] = mine;
    __syncthreads();
    int candidates = 0;
    for (int w = 0; w < Threads / kWarp; ++w)
        candidates += memory->sums[w];
    __syncthreads();
    Sort::sort(&memory->sort, keys, sorted_rows, 32);
    for (int k = 0; k < Items; ++k) {
        const int position = threadIdx.x * Items + k;
        if (position < candidates) parts.order[first_pair + position] = static_cast<int>(sorted_rows[k]);
    }
    __syncthreads();
    for (int position = threadIdx.x; position < candidates; position += Threads) {
        const int64_t row = image * args.rows + parts.order[first_pair + position];
        parts.sorted[first_pair + position] = decode_row(args, row, label);
    }
    __syncthreads();
    return candidates;
}

// Grid: (classes, batch).
template <int Threads, int Items>
__global__ void __launch_bounds__(Threads) suppress_classes(Detect args, Workspace parts) {
    const int64_t label = blockIdx.x, image = blockIdx.y;
    const int64_t first_pair = (image * args.classes + label) * args.rows;
    const int candidates = order_class<Threads, Items>(args, image, label, args.row_counts[image], parts, first_pair);
    const Box* sorted = parts.sorted + first_pair;
    const auto keep = [&](int, int k) {
        const int64_t pair = first_pair + parts.order[first_pair + k];
        parts.kept[pair] = parts.scores[pair], parts.boxes[pair] = sorted[k];
    };
    // Past max_detections of one class none can be among the best of all.
    suppress(
        candidates, static_cast<int>(args.max_detections), args.nms_threshold, [&](int k) { return sorted[k]; }, keep,
        shared_memory<NmsMemory>());
}

__device__ Box scaled(const Box& box, double x, double y) {
    return {static_cast<float>(box.x1 * x), static_cast<float>(box.y1 * y), static_cast<float>(box.x2 * x),
            static_cast<float>(box.y2 * y)};
}

// Grid: images. Pairs are numbered class by class, so equal scores come by class, then by proposal.
__global__ void __launch_bounds__(kBestThreads) choose_detections(Detect args, Workspace parts, int index_bits) {
    const int64_t image = blockIdx.x, pairs = args.classes * args.rows, most = args.max_detections;
    const auto score = [&](int64_t pair) { return parts.kept[image * pairs + pair]; };
    auto* xyxy = reinterpret_cast<Box*>(args.xyxy) + image * most;
    const auto use = [&](int position, int64_t pair) {
        xyxy[position] = scaled(parts.boxes[image * pairs + pair], args.scale_x, args.scale_y);
        args.confidence[image * most + position] = score(pair);
        args.class_id[image * most + position] = static_cast<int32_t>(pair / args.rows);
        args.proposal[image * most + position] = static_cast<int32_t>(pair % args.rows);
    };
    const int count = best_first(pairs, most, index_bits, score, use, shared_memory<BestMemory>(), args.counts + image,
                                 parts.lists + image * most);
    for (int64_t k = count + threadIdx.x; k < most; k += blockDim.x) {
        xyxy[k] = {0.0f, 0.0f, 0.0f, 0.0f}, args.confidence[image * most + k] = 0.0f;
        args.class_id[image * most + k] = 0, args.proposal[image * most + k] = 0;
    }
}

template <int Threads, int Items>
Status run_classes(const Detect& args, const Workspace& parts, Stream stream) {
    const std::size_t sort = sizeof(ClassMemory<Threads, Items>), nms = nms_bytes(args.max_detections);
    const dim3 grid(static_cast<unsigned>(args.classes), static_cast<unsigned>(args.batch));
    return launch(suppress_classes<Threads, Items>, grid, Threads, sort > nms ? sort : nms, stream, args, parts);
}

}  // namespace

std::size_t workspace_bytes(const Detect& args) {
    return layout(args).bytes;
}

Status run(const Detect& args, Stream stream) {
    const bool fits = args.rows >= 1 && args.rows <= kMostBest && args.classes >= 1 && args.max_detections >= 1 &&
                      args.max_detections <= kMostDetections && args.batch <= 65535 &&
                      args.classes * args.rows < int64_t{1} << 31;
    if (!fits || args.workspace == nullptr) return kBadArgument;
    if (args.batch == 0) return 0;
    const Workspace parts = layout(args);
    constexpr int kFewRows = 1024;
    const Status status = args.rows <= kFewRows ? run_classes<256, kFewRows / 256>(args, parts, stream)
                                                : run_classes<kBestThreads, kBestItems>(args, parts, stream);
    if (status != 0) return status;
    return launch(choose_detections, static_cast<unsigned>(args.batch), kBestThreads, sizeof(BestMemory), stream, args,
                  parts, bits_for(args.classes * args.rows));
}

}  // namespace rdn::cuda
