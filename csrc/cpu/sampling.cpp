// Choice of the advanced support proposals (paper, section 3.3). Small, so compiled once.
#include "sampling.h"

#include <algorithm>
#include <cmath>

#include "order.h"
#include "rdn/order.h"

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
    float least = INFINITY;
    for (int64_t j = 0; j < args.supports; ++j) {
        total += args.multiplicity[j];
        least = std::min(least, args.multiplicity[j]);
    }
    // At least one: the refinement of nothing is not defined.
    const double wanted = std::max(1.0, std::floor(args.ratio * total));
    const int64_t enough =
        static_cast<int64_t>(std::min(std::ceil(wanted / least), static_cast<double>(args.supports)));
    const int64_t numbers = best_by_score(args.objectness, args.supports, enough, args.keys);
    const auto count = [&](int64_t k) { return args.multiplicity[key_index(args.keys[k])]; };
    double counted = 0;
    for (int64_t k = 0; k < numbers; ++k)
        counted += count(k);
    // Which of them are taken depends on their order only where they count for more than is wanted.
    int64_t used = numbers;
    double left = wanted;
    if (counted > wanted) {
        std::sort(args.keys, args.keys + numbers);
        for (used = 0; used + 1 < numbers && left > count(used); ++used)
            left -= count(used);
        ++used;
    }
    const uint64_t* worst = std::max_element(args.keys, args.keys + used);
    int64_t taken = 0;
    for (int64_t j = 0; j < args.supports && used > 0; ++j) {
        if (args.objectness[j] != args.objectness[j]) continue;
        const uint64_t key = order_key(args.objectness[j], j, 32);
        if (key > *worst) continue;
        args.positions[taken] = j;
        args.counted[taken++] = key < *worst || counted <= wanted ? args.multiplicity[j] : static_cast<float>(left);
    }
    return taken;
}

}  // namespace

int64_t sample_advanced(const SampleAdvanced& args) {
    return args.global ? global(args) : per_frame(args);
}

}  // namespace rdn::cpu
