// Greedy suppression of given boxes within their class, best first.
#include <cmath>

#include "isa.h"
#include "nms.h"
#include "order.h"
#include "parallel.h"
#include "rdn/box.h"
#include "scratch.h"

namespace rdn::cpu::RDN_ISA {

namespace {

Box box_at(const Suppress& args, int64_t row) {
    const float* box = args.boxes + 4 * row;
    return {box[0], box[1], box[2], box[3]};
}

// rows [count] of one class, best first; those that leave get the score NaN.
void suppress_class(const Suppress& args, const int64_t* rows, int64_t count, float* scores) {
    // Past the most of one class none can be among the best of all.
    Kept kept(count < args.most ? count : args.most);
    for (int64_t k = 0; k < count; ++k) {
        const Box box = box_at(args, rows[k]);
        const float box_area = area(box);
        if (kept.count == args.most || !is_number(box) || overlaps_any(kept, box, box_area, args.nms_threshold))
            scores[rows[k]] = NAN;
        else
            keep(kept, box, box_area);
    }
}

}  // namespace

void suppress(const Suppress& args) {
    Array<uint64_t> keys(args.rows);
    Array<float> scores(args.rows);
    const int64_t candidates = order_by_score(args.scores, args.rows, args.top_n, keys);
    for (int64_t row = 0; row < args.rows; ++row)
        scores[row] = NAN;

    // The candidates class by class, best first in each.
    Array<int64_t> ends(args.classes), rows(candidates);
    for (int64_t label = 0; label < args.classes; ++label)
        ends[label] = 0;
    for (int64_t k = 0; k < candidates; ++k)
        ++ends[args.labels[key_index(keys[k])]];
    for (int64_t label = 1; label < args.classes; ++label)
        ends[label] += ends[label - 1];
    for (int64_t k = candidates - 1; k >= 0; --k) {
        const int64_t row = key_index(keys[k]);
        rows[--ends[args.labels[row]]] = row;
        scores[row] = args.scores[row];
    }
    // Each end has become the class's beginning.
    const int threads = worth_waking(args.threads, 10.0 * candidates * candidates / (args.classes + 1));
    parallel_for(args.classes, threads, [&](int64_t label, int) {
        const int64_t end = label + 1 < args.classes ? ends[label + 1] : candidates;
        suppress_class(args, rows + ends[label], end - ends[label], scores);
    });

    const int64_t count = order_by_score(scores, args.rows, args.most, keys);
    for (int64_t k = 0; k < count; ++k)
        args.kept[k] = key_index(keys[k]);
    *args.count = count;
}

}  // namespace rdn::cpu::RDN_ISA
