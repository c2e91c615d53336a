// Squares of vectors, rows to columns. Inlined by force, so that they stay in registers.
#pragma once

#include <utility>

#include "rdn/simd.h"

namespace rdn::cpu {
namespace {

template <int Step, int... Lane>
RDN_HD Floats mixed(Floats a, Floats b, std::integer_sequence<int, Lane...>, std::true_type) {
    return __builtin_shufflevector(a, b, ((Lane & Step) == 0 ? Lane : kLanes + Lane - Step)...);
}
template <int Step, int... Lane>
RDN_HD Floats mixed(Floats a, Floats b, std::integer_sequence<int, Lane...>, std::false_type) {
    return __builtin_shufflevector(a, b, ((Lane & Step) == 0 ? Lane + Step : kLanes + Lane)...);
}

template <int Step, int Rows>
RDN_HD void transpose_step(Floats* row) {
    using Lanes = std::make_integer_sequence<int, kLanes>;
#pragma GCC unroll 16
    for (int i = 0; i < Rows; ++i) {
        if (i & Step) continue;
        const Floats a = row[i], b = row[i + Step];
        row[i] = mixed<Step>(a, b, Lanes{}, std::true_type{});
        row[i + Step] = mixed<Step>(a, b, Lanes{}, std::false_type{});
    }
    if constexpr (Step > 1) transpose_step<Step / 2, Rows>(row);
}

// kLanes vectors.
RDN_HD void transpose(Floats* row) {
    transpose_step<kLanes / 2, kLanes>(row);
}

// Four vectors: lane 4 b + i of vector k and lane 4 b + k of vector i change places.
RDN_HD void transpose_fours(Floats* row) {
    transpose_step<2, 4>(row);
}

}  // namespace
}  // namespace rdn::cpu
