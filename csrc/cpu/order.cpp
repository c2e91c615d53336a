#include "order.h"

#include <algorithm>
#include <cstring>

namespace rdn::cpu {

namespace {

// Unsigned order of the keys is descending order of the scores, then ascending order of the indices.
uint64_t make_key(float score, int64_t index) {
    score += 0.0f;  // -0 becomes +0: they are equal scores
    uint32_t bits;
    std::memcpy(&bits, &score, sizeof bits);
    const uint32_t ascending = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return static_cast<uint64_t>(~ascending) << 32 | static_cast<uint64_t>(index);
}

}  // namespace

int64_t order_by_score(const float* scores, int64_t count, int64_t top, uint64_t* keys) {
    int64_t numbers = 0;
    for (int64_t i = 0; i < count; ++i)
        if (scores[i] == scores[i]) keys[numbers++] = make_key(scores[i], i);
    top = std::min(top, numbers);
    if (top < numbers) std::nth_element(keys, keys + top, keys + numbers);
    std::sort(keys, keys + top);
    return top;
}

}  // namespace rdn::cpu
