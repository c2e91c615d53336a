// Orders by score, highest first, equal scores by index. Compiled once (cpu/isa.h, rule 2).
#pragma once

#include <cstdint>

namespace rdn::cpu {

// Fills keys with one ordered key for each of scores[0..count) that is not NaN, brings the `top` best to the front and
// returns how many those are. count is below 2^32.
int64_t best_by_score(const float* scores, int64_t count, int64_t top, uint64_t* keys);

// The same, in order: key_index(keys[k]) is then the index of the k-th best.
int64_t order_by_score(const float* scores, int64_t count, int64_t top, uint64_t* keys);

static inline int64_t key_index(uint64_t key) {
    return static_cast<int64_t>(key & 0xffffffffu);
}

}  // namespace rdn::cpu
