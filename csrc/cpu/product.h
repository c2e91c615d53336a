// A matrix product for sizes that fit the cache.
//
// Its right side lies in panels of kPanel columns. With `panel_stride` and `row_stride` it is either packed, panel
// after panel of [depth][kPanel] (panel_stride = depth * kPanel, row_stride = kPanel), or a plain matrix (panel_stride
// = kPanel, row_stride = its width). A row of the result has the same bits whatever other rows are computed with it.
#pragma once

#include "rdn/simd.h"

namespace rdn::cpu {
namespace {

constexpr int kMostRows = kLanes == 16 ? 12 : 6;  // so that kMostRows x 2 sums stay in registers

inline int64_t smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}
inline int64_t larger(int64_t a, int64_t b) {
    return a > b ? a : b;
}
// Once no number, no number it stays.
inline float larger_or_nan(float a, float b) {
    return a != a || a >= b ? a : b;
}
inline int64_t ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

// Parts of about equal size. A row's arithmetic does not depend on the part that it is in.
inline int64_t even_part(int64_t whole, int64_t most) {
    return whole == 0 ? 1 : ceil_div(whole, ceil_div(whole, most));
}

template <class Word>
struct Right {
    const Word* data;
    int64_t panel_stride, row_stride;

    // Column kLanes * vector of row 0.
    const Word* column(int64_t vector) const {
        constexpr int64_t kVectors = kPanel / kLanes;
        return data + vector / kVectors * panel_stride + vector % kVectors * kLanes;
    }
};

// What an element of the operands is: a float; two bfloat16 that follow each other along the depth; or a float of the
// left side and a float16 of the right one.
struct Single {
    using Word = float;
    static constexpr int kNumbers = 1;
    static constexpr int kExponential = 5;  // degree of exp2_clamped whose error is below its own
    static Floats add(const float* left, const float* right, Floats sum) {
        return fused(broadcast<Floats>(*left), load(right), sum);
    }
};
struct Mixed : Single {
    using Word = Half;
    static Floats add(const float* left, const Half* right, Floats sum) {
        return fused(broadcast<Floats>(*left), load(right), sum);
    }
};
struct Pair {
    using Word = float;
    static constexpr int kNumbers = 2;
    static constexpr int kExponential = 3;
    static Floats add(const float* left, const float* right, Floats sum) {
        int32_t pair;
        memcpy(&pair, left, sizeof pair);
        return dot_pairs(Ints{} + pair, bits_as<Ints>(load(right)), sum);
    }
};

// c = a b, or c += a b: a [Rows, depth], Vectors * kLanes columns of b from `vector` on, c [Rows, Vectors * kLanes].
// The sum over depth starts at zero even where it is added: sums of sums lose less than one long sum.
template <class Element, int Stride, int Rows, int Vectors, bool Add>
void multiply_tile(const float* a, int64_t a_stride, const Right<typename Element::Word>& b, int64_t vector,
                   int64_t depth, float* c, int64_t c_stride) {
    const int64_t stride = Stride != 0 ? Stride : a_stride;
    const typename Element::Word* column[Vectors];
    for (int v = 0; v < Vectors; ++v)
        column[v] = b.column(vector + v);
    Floats total[Rows][Vectors] = {};
    for (int64_t k = 0; k < depth; ++k) {
#pragma GCC unroll 12
        for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 2
            for (int v = 0; v < Vectors; ++v)
                total[r][v] = Element::add(a + r * stride + k, column[v] + k * b.row_stride, total[r][v]);
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

template <class Element, int Stride, int Rows, int Vectors, bool Add>
void multiply_rows(int64_t rows, const float* a, int64_t a_stride, const Right<typename Element::Word>& b,
                   int64_t vector, int64_t depth, float* c, int64_t c_stride) {
    if (rows == Rows) {
        multiply_tile<Element, Stride, Rows, Vectors, Add>(a, a_stride, b, vector, depth, c, c_stride);
    } else if constexpr (Rows > 1) {
        multiply_rows<Element, Stride, Rows - 1, Vectors, Add>(rows, a, a_stride, b, vector, depth, c, c_stride);
    }
}

// Calls of multiply_rows that `vectors` vectors of columns take.
inline int64_t count_tiles(int64_t vectors) {
    return ceil_div(vectors, 2);
}

struct Nothing {
    void operator()() const {}
};

// At most kMostRows rows, and the first `vectors` times kLanes columns of b. A stride of a that is known when this is
// compiled, Stride, saves the registers of a pointer to every row. `before` is called before each of count_tiles.
template <bool Add, int Stride = 0, class Element = Single, class Before = Nothing>
void multiply(int64_t rows, const float* a, int64_t a_stride, const Right<typename Element::Word>& b, int64_t vectors,
              int64_t depth, float* c, int64_t c_stride, const Before& before = {}) {
    int64_t v = 0;
    for (; v + 1 < vectors; v += 2) {
        before();
        multiply_rows<Element, Stride, kMostRows, 2, Add>(rows, a, a_stride, b, v, depth, c + v * kLanes, c_stride);
    }
    if (v < vectors) {
        before();
        multiply_rows<Element, Stride, kMostRows, 1, Add>(rows, a, a_stride, b, v, depth, c + v * kLanes, c_stride);
    }
}

}  // namespace
}  // namespace rdn::cpu
