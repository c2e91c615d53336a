// Choice of the advanced support proposals (paper, section 3.3). Small, so compiled once.
#include "sampling.h"

#include <algorithm>
#include <cmath>

#include "order.h"

namespace rdn::cpu {

namespace {

int64_t per_frame(const SampleAdvanced& args) {
    const int64_t most = static_cast<int64_t>(static_cast<double>(args.num_support) * args.ratio);
    int64_t taken = 0;
    for (int64_t frame = 0; frame < args.frames; ++frame) {
        const int64_t start = args.frame_start[frame];
        const int64_t stop = std::min(args.frame_start[frame + 1], start + most);
        for (int64_t j = start; j < stop; ++j) {
            args.positions[taken] = j;
            args.counted[taken++] = args.multiplicity[j];
        }
    }
    return taken;
}

int64_t global(const SampleAdvanced& args) {
    double total = 0;
    for (int64_t j = 0; j < args.supports; ++j)
        total += args.multiplicity[j];
    // At least one: the refinement of nothing is not defined.
    double left = std::max(1.0, std::floor(args.ratio * total));
    const int64_t numbers = order_by_score(args.objectness, args.supports, args.supports, args.keys);
    int64_t taken = 0;
    for (int64_t k = 0; k < numbers && left > 0; ++k) {
        const int64_t j = key_index(args.keys[k]);
        args.counted[j] = static_cast<float>(std::min<double>(args.multiplicity[j], left));
        left -= args.multiplicity[j];
        args.positions[taken++] = j;
    }
    std::sort(args.positions, args.positions + taken);
    // Positions ascend, so the k-th count moves from at or after k.
    for (int64_t k = 0; k < taken; ++k)
        args.counted[k] = args.counted[args.positions[k]];
    return taken;
}

}  // namespace

int64_t sample_advanced(const SampleAdvanced& args) {
    return args.global ? global(args) : per_frame(args);
}

}  // namespace rdn::cpu
