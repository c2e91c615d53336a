// What the cosine attention's kernels share: products of query rows with a block of a frame's proposals.
#pragma once

#include "blocks.h"
#include "doubles.h"
#include "product.h"
#include "rdn/cosine.h"
#include "scratch.h"

namespace rdn::cpu {
namespace {

// Queries of a head, which counts both attentions' heads: of the row's and those that follow it in its slot.
inline const float* queries(const CosineBank& bank, int64_t slot, int64_t head, int64_t row) {
    return bank.query + ((slot * kAttentions * bank.heads + head) * bank.capacity + row) * bank.head_dim;
}

// scores [rows][Columns] = rows [rows][depth] times a block's panels of that depth.
template <int Columns>
void multiply_panels(int64_t rows, const float* left, int64_t depth, const float* panels, const Block& block,
                     float* scores) {
    const Right<float> right = {panels, depth * kPanel, kPanel};
    const int64_t vectors = Columns == kPanel ? kPanel / kLanes : block.vectors();
    if (depth == 32)
        multiply<false, 32>(rows, left, depth, right, vectors, depth, scores, Columns);
    else if (depth == 64)
        multiply<false, 64>(rows, left, depth, right, vectors, depth, scores, Columns);
    else if (depth == 128)
        multiply<false, 128>(rows, left, depth, right, vectors, depth, scores, Columns);
    else
        multiply<false>(rows, left, depth, right, vectors, depth, scores, Columns);
}

// The keys of a head that a block begins with; head counts both attentions' heads.
inline const float* block_keys(const CosineBank& bank, const Block& block, int64_t head) {
    const int64_t row = (block.slot * kAttentions * bank.heads + head) * bank.capacity + block.first;
    return bank.keys + row * bank.head_dim;
}

// Logarithms to base 2 of a head's softmax terms; head counts both attentions' heads.
template <int Columns>
void score_rows(const CosineBank& bank, int64_t rows, const float* query, const Block& block, int64_t head,
                float* scores) {
    multiply_panels<Columns>(rows, query, bank.head_dim, block_keys(bank, block, head), block, scores);
}

// to [rows][head_dim] = weights [rows][Columns] times `count` rows of a head's values.
template <int Columns>
void sum_values(const CosineBank& bank, int64_t rows, const float* weights, const float* values, int64_t count,
                float* to) {
    const Right<float> right = {values, kPanel, bank.head_dim};
    multiply<false, Columns>(rows, weights, Columns, right, bank.head_dim / kLanes, count, to, bank.head_dim);
}

// The values of a head that a block begins with.
inline const float* block_values(const CosineBank& bank, const Block& block, int64_t head) {
    return bank.values + ((block.slot * bank.heads + head) * bank.capacity + block.first) * bank.head_dim;
}

// sums += times * values, `count` of them, a multiple of kLanes; whether all are finite. `times` is 1 or -1, so that
// the product is exact.
inline bool add_times(double times, const float* values, int64_t count, double* sums) {
    const Doubles factor = times - Doubles{};
    Floats wrong = {};
    for (int64_t i = 0; i < count; i += kLanes) {
        wrong = fused(load(values + i), Floats{}, wrong);
#pragma GCC unroll 2
        for (int64_t j = i; j < i + kLanes; j += kDoubles)
            store(sums + j, fused(load_doubles(values + j), factor, load_doubles(sums + j)));
    }
    return sum(wrong) == 0.0f;
}

// Asks the second-level cache for what is read soon: a window fits none. Always inlined, because GCC leaves out calls
// of functions that do nothing else.
template <class T>
RDN_HD void ask(const T* data, int64_t count) {
    constexpr int64_t kLine = 64 / sizeof(T);
    for (int64_t i = 0; i < count; i += kLine)
        __builtin_prefetch(data + i, 0, 2);
}

// Keys and values of a head, which counts both attentions' heads.
RDN_HD void ask_block(const CosineBank& bank, const Block& block, int64_t head) {
    ask(block_keys(bank, block, head), block.panels() * kPanel * bank.head_dim);
    ask(block_values(bank, block, head % bank.heads), block.count * bank.head_dim);
}

// All ones in the lanes that hold a proposal.
inline Ints taken_lanes(int64_t left) {
    Ints lane;
    for (int i = 0; i < kLanes; ++i)
        lane[i] = i;
    return lane < static_cast<int32_t>(smaller(left, kLanes));
}

inline bool any_lane(Ints lanes) {
#if defined(__AVX512F__)
    return _mm512_test_epi32_mask((__m512i)lanes, (__m512i)lanes) != 0;
#elif defined(__AVX__)
    return _mm256_testz_si256((__m256i)lanes, (__m256i)lanes) == 0;
#else
    return (lanes[0] | lanes[1] | lanes[2] | lanes[3]) != 0;
#endif
}

inline Floats only(Ints lanes, Floats x) {
    return bits_as<Floats>(bits_as<Ints>(x) & lanes);
}

}  // namespace
}  // namespace rdn::cpu
