// The order of scores everywhere: highest first, equal scores by index.
#pragma once

#include <cstdint>
#include <cstring>

#include "rdn/host_device.h"

namespace rdn {

// Unsigned order of these is descending order of the scores; -0 and +0 are equal. Not for NaN; never all ones.
RDN_HD uint32_t descending_bits(float score) {
    const float positive_zero = score + 0.0f;
    uint32_t bits;
    memcpy(&bits, &positive_zero, sizeof bits);
    return ~(bits & 0x80000000u ? ~bits : bits | 0x80000000u);
}

// Score first, then the index in the low `index_bits`.
RDN_HD uint64_t order_key(float score, int64_t index, int index_bits) {
    return static_cast<uint64_t>(descending_bits(score)) << index_bits | static_cast<uint64_t>(index);
}

}  // namespace rdn
