// What the cosine attention's kernels share: tiles of query rows against blocks of a frame's proposals.
#pragma once

#include "blocks.h"
#include "product.h"
#include "rdn/cosine.h"
#include "scratch.h"

namespace rdn::cpu {
namespace {

constexpr int64_t kColumns = 128;             // most proposals of a block
constexpr int64_t kTileRows = 8 * kMostRows;  // most query rows of one task

// Rows of a task, such that all threads find one, and whole tiles of the products.
inline int64_t tile_height(int64_t rows, int threads) {
    return ceil_div(even_part(rows, smaller(kTileRows, ceil_div(rows, threads))), kMostRows) * kMostRows;
}

// Queries of a tile, [kAttentions][heads][kTileRows][head_dim], so that a head's rows follow each other.
inline void load_query(const CosineBank& bank, int64_t row, int64_t r, float* query) {
    const float* from = bank.query + row * kAttentions * bank.width();
    for (int64_t head = 0; head < kAttentions * bank.heads; ++head)
        memcpy(query + (head * kTileRows + r) * bank.head_dim, from + head * bank.head_dim,
               sizeof(float) * bank.head_dim);
}

// scores [rows][kColumns] = rows [rows][depth] times a block's panels of that depth.
inline void multiply_panels(int64_t rows, const float* left, int64_t depth, const float* panels, const Block& block,
                            float* scores) {
    const Right<float> right = {panels + block.first * depth, depth * kPanel, kPanel};
    if (depth == 32)
        multiply<false, 32>(rows, left, depth, right, block.vectors(), depth, scores, kColumns);
    else if (depth == 64)
        multiply<false, 64>(rows, left, depth, right, block.vectors(), depth, scores, kColumns);
    else
        multiply<false>(rows, left, depth, right, block.vectors(), depth, scores, kColumns);
}

// Logarithms to base 2 of a head's softmax terms; head counts both attentions' heads.
inline void score_rows(const CosineBank& bank, int64_t rows, const float* query, const Block& block, int64_t head,
                       float* scores) {
    const int64_t at = (block.slot * kAttentions * bank.heads + head) * bank.capacity * bank.head_dim;
    multiply_panels(rows, query, bank.head_dim, bank.keys + at, block, scores);
}

// to [rows][head_dim] = weights [rows][kColumns] times a block's rows of a head of `values`, laid out as the bank's.
inline void sum_values(const CosineBank& bank, int64_t rows, const float* weights, const float* values,
                       const Block& block, int64_t head, float* to) {
    const int64_t at = ((block.slot * bank.heads + head) * bank.capacity + block.first) * bank.head_dim;
    const Right<float> right = {values + at, kPanel, bank.head_dim};
    multiply<false, kColumns>(rows, weights, kColumns, right, bank.head_dim / kLanes, block.count, to, bank.head_dim);
}

// All ones in the lanes that hold a proposal.
inline Ints taken_lanes(int64_t left) {
    Ints lane;
    for (int i = 0; i < kLanes; ++i)
        lane[i] = i;
    return lane < static_cast<int32_t>(smaller(left, kLanes));
}

inline Floats only(Ints lanes, Floats x) {
    return bits_as<Floats>(bits_as<Ints>(x) & lanes);
}

}  // namespace
}  // namespace rdn::cpu
