// Cosine attention with the score on the key (YOLOV, Shi et al. 2023; DESIGN section 2): arguments of its kernels.
//
// A proposal has two descriptions, cls and reg, and each an attention of `heads` heads over the proposals of a window:
//     A_ij = softmax_j(25 s_j q_i.k_j / (|q_i| |k_j|)),    s_j the key's confidence (cls) or objectness (reg)
//     X_i  = 1/2 sum_j (A^cls_ij + A^reg_ij) v_j           one set of values for both
// and of a second round, with B the mean of both over heads and S the mean over heads of the values' cosines,
//     W_ij = [S_ij > threshold] exp(B_ij) / sum_j [S_ij > threshold] exp(B_ij)
// A logarithm to base 2 of a softmax term is at most 25 log2(e) in size, so no maximum is subtracted.
#pragma once

#include <cstdint>

#include "rdn/relation.h"

namespace rdn {

constexpr int kAttentions = 2;  // cls, reg
constexpr double kSharpness = 25.0;

// Proposals, packed for the products: `slots` frames of room for `capacity` each, a multiple of kPanel; `head_dim` is
// padded with zeros to a multiple of 16, and width = heads * head_dim. Rows of no proposal are zero.
struct CosineBank {
    float* query;        // [slots][kAttentions][heads][capacity][head_dim] of length 1
    float* keys;         // [slots][kAttentions][heads][capacity / kPanel][head_dim][kPanel] times 25 log2(e) s_j
    float* values;       // [slots][heads][capacity][head_dim]
    float* unit;         // [slots][masks][capacity][width] values of length 1 a head
    float* unit_panels;  // [slots][masks][capacity / kPanel][width][kPanel] the same over heads
    int64_t slots, capacity, heads, head_dim, masks;

    int64_t width() const { return heads * head_dim; }
};

// What the rows of a bank have summed over a window, R = slots * capacity.
struct CosineSums {
    double* values;      // [kAttentions][heads][R][head_dim] sums of softmax term times value
    double* normaliser;  // [kAttentions][heads][R] sums of softmax terms
    double* peak;        // [kAttentions][heads][R] largest normaliser since the restart
};

// out = x W^T + bias with products and sums in float64.
struct LinearExact {
    const float* x;       // [rows, depth]
    const float* weight;  // [panels][depth][kPanel] rows of W, zeros past the last one
    const double* bias;   // [columns]
    int64_t rows, depth, columns;
    double* out;  // [rows, columns]
    int threads;
};

// The proposals of one frame into a slot of a bank.
struct PackCosine {
    const double* projected[kAttentions];  // [rows, 3 width] queries, keys, values
    const float* score[kAttentions];       // [rows] s_j
    int64_t rows, slot;
    int values_of;  // 0: the values of cls are summed, 1: those of reg; the second mask is of those
    CosineBank bank;
};

// Rows whose sums over the window are kept from step to step: what a frame that left had added is computed again, to
// the same bits, and subtracted. A row of which too little is left is summed anew.
struct CosineRefine {
    CosineBank bank;
    CosineSums sums;
    const int64_t* slot;  // [frames] of the window, distinct
    int64_t frames;
    const int64_t* count;  // [slots] proposals of a slot that take part, its first
    int64_t* summed;       // [slots] those that the sums hold, where they hold any
    int8_t* included;      // [slots, slots] 1: the sums of a slot's rows hold another's; none where one is not finite
    int threads;
};

// The second round of the rows of one slot, whose sums are complete.
struct CosineAverage {
    CosineBank bank;
    CosineSums sums;
    int64_t slot, rows;
    SupportFrames support;
    int64_t supports;                // of all frames
    const float* thresholds;         // [bank.masks]
    int64_t omega_begin, omega_end;  // part of the supports whose B is wanted
    float* out;                      // [rows, 4 width]: W X, W V, X, V
    float* omega;                    // [rows, omega_end - omega_begin] B
    float* weights;                  // [rows, supports] W; null where it is not wanted
    int threads;
};

// The mean of rows with what stood in the same place before: weights exp(25 cos pass) IoU, renormalised.
struct LocalAverage {
    const float* x;      // [rows, width]
    const float* boxes;  // [rows, 4]
    const float* score;  // [rows]
    int64_t rows, width;
    const float* past;          // [frames, capacity, width]
    const double* past_length;  // [frames, capacity]
    const float* past_boxes;    // [frames, capacity, 4]
    const float* past_score;    // [frames, capacity]
    int64_t frames, capacity;
    const int64_t* count;  // [frames]
    float* out;            // [rows, width]
    float* weights;        // [rows, sum of count]; null where it is not wanted
    int threads;
};

}  // namespace rdn
