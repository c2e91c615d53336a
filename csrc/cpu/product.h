// A matrix product for sizes that fit the cache.
//
// Its right side lies in panels of kLanes columns, [columns / kLanes][depth][kLanes], so that a row of a panel is one
// vector. A row of the result has the same bits whatever other rows are computed with it.
#pragma once

#include "rdn/simd.h"

namespace rdn::cpu {
namespace {

constexpr int kMostRows = kLanes == 16 ? 12 : 6;  // so that kMostRows x 2 sums stay in registers

inline int64_t smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}
inline int64_t ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

// c = a b, or c += a b: a [Rows, depth], b in Vectors panels of [depth, kLanes], c [Rows, Vectors * kLanes].
// The sum over depth starts at zero even where it is added: sums of sums lose less than one long sum.
template <int Rows, int Vectors, bool Add>
void multiply_tile(const float* a, int64_t a_stride, const float* b, int64_t panel_stride, int64_t depth, float* c,
                   int64_t c_stride) {
    Floats total[Rows][Vectors] = {};
    for (int64_t k = 0; k < depth; ++k) {
        Floats column[Vectors];
#pragma GCC unroll 2
        for (int v = 0; v < Vectors; ++v)
            column[v] = load(b + v * panel_stride + k * kLanes);
#pragma GCC unroll 12
        for (int r = 0; r < Rows; ++r) {
            const Floats left = broadcast<Floats>(a[r * a_stride + k]);
#pragma GCC unroll 2
            for (int v = 0; v < Vectors; ++v)
                total[r][v] = fused(left, column[v], total[r][v]);
        }
    }
#pragma GCC unroll 12
    for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 2
        for (int v = 0; v < Vectors; ++v) {
            float* to = c + r * c_stride + v * kLanes;
            store(to, Add ? load(to) + total[r][v] : total[r][v]);
        }
    }
}

template <int Rows, int Vectors, bool Add>
void multiply_rows(int64_t rows, const float* a, int64_t a_stride, const float* b, int64_t panel_stride, int64_t depth,
                   float* c, int64_t c_stride) {
    if (rows == Rows) {
        multiply_tile<Rows, Vectors, Add>(a, a_stride, b, panel_stride, depth, c, c_stride);
    } else if constexpr (Rows > 1) {
        multiply_rows<Rows - 1, Vectors, Add>(rows, a, a_stride, b, panel_stride, depth, c, c_stride);
    }
}

// The same for any number of rows and panels; `a` is cut into groups of rows of about equal height.
template <bool Add>
void multiply(int64_t rows, int64_t panels, const float* a, int64_t a_stride, const float* b, int64_t panel_stride,
              int64_t depth, float* c, int64_t c_stride) {
    const int64_t height = ceil_div(rows, ceil_div(rows, kMostRows));
    for (int64_t p = 0; p < panels; p += 2) {
        for (int64_t r = 0; r < rows; r += height) {
            const int64_t part = smaller(height, rows - r);
            const float *left = a + r * a_stride, *right = b + p * panel_stride;
            float* to = c + r * c_stride + p * kLanes;
            if (p + 1 < panels) {
                multiply_rows<kMostRows, 2, Add>(part, left, a_stride, right, panel_stride, depth, to, c_stride);
            } else {
                multiply_rows<kMostRows, 1, Add>(part, left, a_stride, right, panel_stride, depth, to, c_stride);
            }
        }
    }
}

}  // namespace
}  // namespace rdn::cpu
