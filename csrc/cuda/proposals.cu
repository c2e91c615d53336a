// Region proposals (DESIGN, section 2, RPN): best scores, decode, clip, suppress. One block an image.
#include "best_first.cuh"
#include "nms.cuh"

namespace rdn::cuda {
namespace {

constexpr int64_t kMostProposals = 2048;

struct Candidate {
    Box box;
    float score;
};

struct Workspace {
    Candidate* candidates;  // [batch, top] best first
    uint2* lists;           // [batch, top] scratch
    int* counts;            // [batch] candidates
    std::size_t bytes;
};

Workspace layout(const Propose& args) {
    const std::size_t pairs = static_cast<std::size_t>(args.batch * args.pre_nms_top_n);
    auto* at = static_cast<unsigned char*>(args.workspace);
    Workspace parts{};
    parts.lists = reinterpret_cast<uint2*>(at);
    parts.candidates = reinterpret_cast<Candidate*>(at + pairs * sizeof(uint2));
    parts.counts = reinterpret_cast<int*>(at + pairs * (sizeof(uint2) + sizeof(Candidate)));
    parts.bytes = pairs * (sizeof(uint2) + sizeof(Candidate)) + static_cast<std::size_t>(args.batch) * sizeof(int);
    return parts;
}

__device__ Box decode_anchor(const Propose& args, int64_t image, int64_t index) {
    const float unit_weights[4] = {1.0f, 1.0f, 1.0f, 1.0f};
    const int64_t per_image = args.grid_height * args.grid_width * args.anchors;
    float delta[4];
    for (int k = 0; k < 4; ++k)
        delta[k] = element(args.deltas, args.type, 4 * (image * per_image + index) + k);
    const Box anchor = shifted_anchor(args.cell_anchors + 4 * (index % args.anchors), index / args.anchors,
                                      args.grid_width, args.stride);
    return clip(decode(anchor, delta, unit_weights), args.image_width, args.image_height);
}

__global__ void __launch_bounds__(kBestThreads) choose_candidates(Propose args, Workspace parts, int index_bits) {
    const int64_t image = blockIdx.x, top = args.pre_nms_top_n;
    const int64_t per_image = args.grid_height * args.grid_width * args.anchors;
    const auto score = [&](int64_t i) { return element(args.objectness, args.type, image * per_image + i); };
    const auto use = [&](int position, int64_t index) {
        parts.candidates[image * top + position] = {decode_anchor(args, image, index), score(index)};
    };
    best_first(per_image, top, index_bits, score, use, shared_memory<BestMemory>(), parts.counts + image,
               parts.lists + image * top);
}

__global__ void __launch_bounds__(kBestThreads) suppress_candidates(Propose args, Workspace parts) {
    const int64_t image = blockIdx.x;
    const Candidate* candidates = parts.candidates + image * args.pre_nms_top_n;
    auto* boxes = reinterpret_cast<Box*>(args.boxes) + image * args.max_proposals;
    float* scores = args.scores + image * args.max_proposals;
    const int count = suppress(
        parts.counts[image], static_cast<int>(args.max_proposals), args.nms_threshold,
        [&](int k) { return candidates[k].box; },
        [&](int place, int k) { boxes[place] = candidates[k].box, scores[place] = candidates[k].score; },
        shared_memory<NmsMemory>());
    for (int64_t k = count + threadIdx.x; k < args.max_proposals; k += blockDim.x)
        boxes[k] = {0.0f, 0.0f, 0.0f, 0.0f}, scores[k] = 0.0f;
    if (threadIdx.x == 0) args.counts[image] = count;
}

}  // namespace

std::size_t workspace_bytes(const Propose& args) {
    return layout(args).bytes;
}

Status run(const Propose& args, Stream stream) {
    const int64_t per_image = args.grid_height * args.grid_width * args.anchors;
    const bool fits = per_image >= 1 && per_image < int64_t{1} << 31 && args.pre_nms_top_n >= 1 &&
                      args.pre_nms_top_n <= kMostBest && args.max_proposals >= 1 &&
                      args.max_proposals <= kMostProposals;
    if (!fits || args.workspace == nullptr) return kBadArgument;
    if (args.batch == 0) return 0;
    const Workspace parts = layout(args);
    const auto grid = static_cast<unsigned>(args.batch);
    const Status status =
        launch(choose_candidates, grid, kBestThreads, sizeof(BestMemory), stream, args, parts, bits_for(per_image));
    if (status != 0) return status;
    return launch(suppress_candidates, grid, kBestThreads, nms_bytes(args.max_proposals), stream, args, parts);
}

}  // namespace rdn::cuda
