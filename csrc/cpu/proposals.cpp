// Region proposals (DESIGN, section 2, RPN): best scores, decode, clip, suppress. One image a task.
#include "isa.h"
#include "nms.h"
#include "order.h"
#include "parallel.h"
#include "rdn/box.h"
#include "scratch.h"

namespace rdn::cpu::RDN_ISA {

namespace {

constexpr float kUnitWeights[4] = {1.0f, 1.0f, 1.0f, 1.0f};

Box decode_anchor(const Propose& args, int64_t image, int64_t index) {
    const int64_t anchor = index % args.anchors, cell = index / args.anchors;
    const int64_t per_image = args.grid_height * args.grid_width * args.anchors;
    const float* delta = args.deltas + 4 * (image * per_image + index);
    const Box shifted = shifted_anchor(args.cell_anchors + 4 * anchor, cell, args.grid_width, args.stride);
    return clip(decode(shifted, delta, kUnitWeights), args.image_width, args.image_height);
}

// A score or a box that is not a number is no proposal.
void propose_image(const Propose& args, int64_t image, uint64_t* keys) {
    const int64_t per_image = args.grid_height * args.grid_width * args.anchors;
    const float* scores = args.objectness + image * per_image;
    float* out_boxes = args.boxes + 4 * image * args.max_proposals;
    float* out_scores = args.scores + image * args.max_proposals;
    const int64_t candidates = order_by_score(scores, per_image, args.pre_nms_top_n, keys);

    Kept kept(args.max_proposals);
    for (int64_t k = 0; k < candidates && kept.count < args.max_proposals; ++k) {
        const int64_t index = key_index(keys[k]);
        const Box box = decode_anchor(args, image, index);
        const float box_area = area(box);
        if (!is_number(box) || overlaps_any(kept, box, box_area, args.nms_threshold)) continue;
        float* out = out_boxes + 4 * kept.count;
        out[0] = box.x1, out[1] = box.y1, out[2] = box.x2, out[3] = box.y2;
        out_scores[kept.count] = scores[index];
        keep(kept, box, box_area);
    }
    for (int64_t k = 4 * kept.count; k < 4 * args.max_proposals; ++k)
        out_boxes[k] = 0.0f;
    for (int64_t k = kept.count; k < args.max_proposals; ++k)
        out_scores[k] = 0.0f;
    args.counts[image] = kept.count;
}

}  // namespace

void propose(const Propose& args) {
    const int64_t per_image = args.grid_height * args.grid_width * args.anchors;
    parallel_for(args.batch, args.threads, [&](int64_t image, int) {
        Array<uint64_t> keys(per_image);
        propose_image(args, image, keys);
    });
}

}  // namespace rdn::cpu::RDN_ISA
