// The supports of a call, cut in blocks that lie in one slot each.
#pragma once

#include "product.h"
#include "rdn/relation.h"

namespace rdn::cpu {
namespace {

// Supports first .. first + count of a slot.
struct Block {
    int64_t slot, first, count;
    int64_t frame;     // of the call
    int64_t position;  // of its first support among the call's

    int64_t vectors() const { return ceil_div(count, kLanes); }
    int64_t panels() const { return ceil_div(count, kPanel); }
};

// `most`: supports of a block.
inline int64_t count_blocks(const SupportFrames& support, int64_t most) {
    int64_t blocks = 0;
    for (int64_t f = 0; f < support.frames; ++f)
        blocks += ceil_div(support.count[f], most);
    return blocks;
}

inline void cut_blocks(const SupportFrames& support, int64_t most, Block* block) {
    int64_t position = 0;
    for (int64_t f = 0; f < support.frames; position += support.count[f++])
        for (int64_t first = 0; first < support.count[f]; first += most)
            *block++ = {support.slot[f], first, smaller(most, support.count[f] - first), f, position + first};
}

}  // namespace
}  // namespace rdn::cpu
