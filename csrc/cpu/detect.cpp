// Detections of one image (DESIGN, section 2, output): softmax, decode, clip, suppress per class, best first.
#include <cmath>

#include "isa.h"
#include "nms.h"
#include "order.h"
#include "parallel.h"
#include "rdn/box.h"
#include "scratch.h"

namespace rdn::cpu::RDN_ISA {

namespace {

// scores [classes, rows] of the foreground classes. A row with a NaN has NaN scores, which pass no threshold.
void softmax_row(const Detect& args, int64_t row, float* scores) {
    const float* logits = args.logits + row * (args.classes + 1);
    float most = logits[0];
    for (int64_t c = 1; c <= args.classes; ++c)
        most = greater(logits[c], most);
    float sum = expf(logits[0] - most);
    for (int64_t c = 1; c <= args.classes; ++c) {
        const float term = expf(logits[c] - most);
        scores[(c - 1) * args.rows + row] = term;
        sum += term;
    }
    for (int64_t c = 0; c < args.classes; ++c)
        scores[c * args.rows + row] /= sum;
}

Box decode_row(const Detect& args, int64_t row, int64_t label) {
    const float* box = args.boxes + 4 * row;
    const float* delta = args.deltas + 4 * (row * (args.classes + 1) + label + 1);
    return clip(decode({box[0], box[1], box[2], box[3]}, delta, args.box_weights), args.image_width, args.image_height);
}

// Scores of the suppressed become NaN, so that the final order leaves them out.
void suppress_class(const Detect& args, int64_t label, float* scores, float* boxes, uint64_t* keys) {
    const float nan = NAN;
    for (int64_t row = 0; row < args.rows; ++row)
        if (!(scores[row] > args.score_threshold)) scores[row] = nan;
    const int64_t candidates = order_by_score(scores, args.rows, args.rows, keys);
    Kept kept(candidates);
    for (int64_t k = 0; k < candidates; ++k) {
        const int64_t row = key_index(keys[k]);
        const Box box = decode_row(args, row, label);
        const float box_area = area(box);
        // Past max_detections of one class none can be among the best of all.
        if (kept.count == args.max_detections || !is_number(box) ||
            overlaps_any(kept, box, box_area, args.nms_threshold)) {
            scores[row] = nan;
            continue;
        }
        float* out = boxes + 4 * row;
        out[0] = box.x1, out[1] = box.y1, out[2] = box.x2, out[3] = box.y2;
        keep(kept, box, box_area);
    }
}

}  // namespace

void detect(const Detect& args) {
    const int64_t rows = args.rows, pairs = args.classes * rows;
    Array<float> scores(pairs), boxes(4 * pairs);  // [classes, rows], [classes, rows, 4]
    Array<uint64_t> keys(pairs);
    for (int64_t row = 0; row < rows; ++row)
        softmax_row(args, row, scores);
    const double operations = 10.0 * args.classes * rows * rows;  // every box against every better one
    parallel_for(args.classes, worth_waking(args.threads, operations), [&](int64_t label, int) {
        const int64_t first = label * rows;
        suppress_class(args, label, scores + first, boxes + 4 * first, keys + first);
    });

    // Pairs are numbered class by class, so equal scores come by class, then by proposal.
    const int64_t count = order_by_score(scores, pairs, args.max_detections, keys);
    for (int64_t k = 0; k < count; ++k) {
        const int64_t pair = key_index(keys[k]);
        for (int64_t side_index = 0; side_index < 4; ++side_index)
            args.xyxy[4 * k + side_index] = boxes[4 * pair + side_index];
        args.confidence[k] = scores[pair];
        args.class_id[k] = pair / rows;
        args.proposal[k] = pair % rows;
    }
    *args.count = count;
}

}  // namespace rdn::cpu::RDN_ISA
