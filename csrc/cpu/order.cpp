#include "order.h"

#include <algorithm>

#include "rdn/order.h"

namespace rdn::cpu {

int64_t best_by_score(const float* scores, int64_t count, int64_t top, uint64_t* keys) {
    int64_t numbers = 0;
    for (int64_t i = 0; i < count; ++i)
        if (scores[i] == scores[i]) keys[numbers++] = order_key(scores[i], i, 32);
    top = std::min(top, numbers);
    if (top < numbers && top > 0) std::nth_element(keys, keys + top - 1, keys + numbers);
    return top;
}

int64_t order_by_score(const float* scores, int64_t count, int64_t top, uint64_t* keys) {
    top = best_by_score(scores, count, top, keys);
    std::sort(keys, keys + top);
    return top;
}

}  // namespace rdn::cpu
