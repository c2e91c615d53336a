// The geometry's part of the logits, Wg.E + b, for a row of boxes and a panel of supports.
//
// Every head's share of one of the four terms of E is a function of one logarithm, kept as a uniform cubic B-spline:
// four coefficients that follow each other, looked up for all heads at once: heads lie in the lanes. Neighbouring
// segments share three of the four, so that what a frame touches of the tables nearly fits the second-level cache. In
// float32 the spline's error is 4.4e-6 of the weights of the highest frequency, 1.3e-7 of those of the next, 4e-9 and
// less of the others'; a logarithm in float32 brings the highest frequency as much. In bfloat16 coefficients and
// B-splines are rounded to it, 4e-3 of a share. Where there are few heads, a segment has all four coefficients of each
// of them in one cache line: four times the table, a quarter of what is read.
#pragma once

#include <type_traits>

#include "product.h"
#include "rdn/relation.h"
#include "transpose.h"

namespace rdn::cpu {
namespace {

constexpr int kTerms = 4;  // of E: x, y, width, height
constexpr int kOrder = 4;  // B-splines that are not zero at a point

// Logarithms to base 2 that the tables hold, of |c - c'| / w + 1e-3 and of w / w'; beyond, their ends stand.
constexpr int kLowest[kTerms] = {-10, -10, -20, -20};
constexpr int kOctaves[kTerms] = {30, 30, 40, 40};

// Of an octave.
constexpr int segments(bool bfloat16) {
    return bfloat16 ? 96 : 288;
}

// Coefficients of a term. A segment is centred on a whole number, and its first coefficient has that number.
constexpr int num_coefficients(int term, bool bfloat16) {
    return kOctaves[term] * segments(bfloat16) + kOrder;
}

// First coefficient of a term; of the fourth, how many there are.
constexpr int first_coefficient(int term, bool bfloat16) {
    int first = 0;
    for (int t = 0; t < term; ++t)
        first += num_coefficients(t, bfloat16);
    return first;
}

// Rows of kPanel-padded heads: bias, then the coefficients; in bfloat16 words of a coefficient and of the next. Of
// kFewHeads or less, rows [kFewHeads][kOrder]: the bias, repeated, then the coefficients of the segment that begins
// with this one.
constexpr int kBiasRow = 0;
constexpr int kTableRow = 1;
static_assert(kTableRow + first_coefficient(kTerms, false) == geometry_rows(false), "relation.h says how many");
static_assert(kTableRow + first_coefficient(kTerms, true) == geometry_rows(true), "relation.h says how many");

inline int64_t padded_heads(int64_t heads) {
    return ceil_div(heads, kPanel) * kPanel;
}

// A module's geometry as prepared (geometry.cpp).
struct Geometry {
    const float* rows;  // [geometry_rows][padded]
    int64_t padded;     // heads
    bool bfloat16;
};

// A logarithm counted in segments: a whole number and what is left of it.
template <class T>
struct Place {
    T whole, part;
};

// What a row's box brings along.
struct RowBox {
    Split<float> centre[2], inverse_side[2];  // x, y
    Place<float> side[2];
};

inline Place<float> place_side(float low, float high, bool bfloat16) {
    const double place = segments(bfloat16) * log2(relation_side(low, high)), whole = nearbyint(place);
    return {static_cast<float>(whole), static_cast<float>(place - whole)};
}

inline RowBox row_box(const float* box, bool bfloat16) {
    RowBox row;
    for (int axis = 0; axis < 2; ++axis) {
        row.centre[axis] = centre(box[axis], box[axis + 2]);
        row.inverse_side[axis] = inverse_side(box[axis], box[axis + 2]);
        row.side[axis] = place_side(box[axis], box[axis + 2], bfloat16);
    }
    return row;
}

// What the geometry reads of kBlock supports, [kColumnRows][kBlock].
constexpr int64_t kBlock = 96;  // most supports whose gates are held at once
constexpr int kCentreRow = 0;   // x, x's low part, y, y's low part
constexpr int kSideRow = 4;     // width in segments, its part, height, its part
constexpr int kWeightRow = 8;   // multiplicity
constexpr int kColumnRows = 9;

inline void fill_column(const float* box, float multiplicity, bool bfloat16, float* column) {
    for (int axis = 0; axis < 2; ++axis) {
        const Split<float> c = centre(box[axis], box[axis + 2]);
        const Place<float> side = place_side(box[axis], box[axis + 2], bfloat16);
        float* to = column + (kCentreRow + 2 * axis) * kBlock;
        to[0] = c.high, to[kBlock] = c.low;
        to = column + (kSideRow + 2 * axis) * kBlock;
        to[0] = side.whole, to[kBlock] = side.part;
    }
    column[kWeightRow * kBlock] = multiplicity;
}

// Between one box and a panel of supports: where in the tables its logarithms lie.
struct Pairs {
    // Values there; in bfloat16 half as many words of two. Of few heads support 4 b + k has its four at [k][4 b].
    alignas(64) float spline[kTerms][kOrder][kPanel];
    alignas(64) int32_t at[kTerms][kPanel];  // the segment's first coefficient
};

// What tables of few heads hold.
struct Few : Single {};
static_assert(kFewHeads * kOrder == kPanel, "a segment is a line");

// The cubic B-splines that reach into a segment, at t in -0.5..0.5 of it.
inline void b_splines(Floats t, Floats* value) {
    const Floats right = t + 0.5f, left = 0.5f - t;
    const Floats right2 = right * right, left2 = left * left;
    const auto inner = [](Floats x, Floats x2) {
        return fused(x2, fused(x, broadcast<Floats>(0.5f), broadcast<Floats>(-1.0f)), broadcast<Floats>(2.0f / 3.0f));
    };
    value[0] = left * left2 * (1.0f / 6.0f);
    value[1] = inner(right, right2);
    value[2] = inner(left, left2);
    value[3] = right * right2 * (1.0f / 6.0f);
}

template <class Element>
RDN_HD void place(Floats whole, Floats part, int term, const Geometry& geometry, int lane, Pairs& pairs) {
    constexpr bool bfloat16 = Element::kNumbers == 2;
    constexpr int octave = segments(bfloat16);
    const Floats nearest = nearest_integer(part);
    Floats segment = whole + nearest - static_cast<float>(kLowest[term] * octave);
    const float last = static_cast<float>(kOctaves[term] * octave);
    segment = segment < last ? segment : broadcast<Floats>(last);
    segment = larger_else(segment, Floats{});
    // Where it is no number the first segment is as good as any: the part is none either.
    const Floats known = part == part ? segment : Floats{};
    Floats value[kOrder];
    b_splines(part - nearest, value);
    if constexpr (std::is_same_v<Element, Few>) transpose_fours(value);
    for (int i = 0; i < kOrder; ++i) {
        if (!bfloat16)
            store(pairs.spline[term][i] + lane, value[i]);
        else if (i % 2 == 0)
            store(pairs.spline[term][i / 2] + lane, bits_as<Floats>(pair_up(value[i], value[i + 1])));
    }
    const Ints index = bits_as<Ints>(known + kRounder) - kRounderBits;
    const Ints at = (index + first_coefficient(term, bfloat16)) * static_cast<int32_t>(geometry.padded);
    memcpy(pairs.at[term] + lane, &at, sizeof at);
}

template <class Element>
void place_pairs(const RowBox& row, const float* columns, const Geometry& geometry, Pairs& pairs) {
    constexpr float octave = segments(Element::kNumbers == 2);
    for (int lane = 0; lane < kPanel; lane += kLanes) {
#pragma GCC unroll 2
        for (int axis = 0; axis < 2; ++axis) {
            const float* centre = columns + (kCentreRow + 2 * axis) * kBlock + lane;
            const Split<float> c = row.centre[axis], inverse = row.inverse_side[axis];
            const Log2<Floats> offset = log2_offset<Floats>(
                {broadcast<Floats>(c.high), broadcast<Floats>(c.low)}, {load(centre), load(centre + kBlock)},
                {broadcast<Floats>(inverse.high), broadcast<Floats>(inverse.low)});
            place<Element>(offset.exponent * octave, offset.fraction * octave, axis, geometry, lane, pairs);
            const float* side = columns + (kSideRow + 2 * axis) * kBlock + lane;
            place<Element>(row.side[axis].whole - load(side), row.side[axis].part - load(side + kBlock), 2 + axis,
                           geometry, lane, pairs);
        }
    }
}

// Vectors of heads that are looked up together: what they share is then read once. AVX-512 has all 16 heads in one.
constexpr int kTogether = kLanes == 16 ? 1 : 2;

// Of kTogether vectors of heads: what a term adds to Wg.E for a support, whose `spline` are rows of kPanel.
template <class Element>
RDN_HD void share(const float* table, const float* spline, int64_t padded, Floats* sum) {
    for (int v = 0; v < kTogether; ++v)
        sum[v] = Floats{};
#pragma GCC unroll 4
    for (int i = 0; i < kOrder; i += Element::kNumbers)
#pragma GCC unroll 2
        for (int v = 0; v < kTogether; ++v)
            sum[v] = Element::add(spline + i / Element::kNumbers * kPanel, table + i * padded + v * kLanes, sum[v]);
}

// Gates of all heads with a panel of supports, where there are few, multiplicity included -> [heads][kPanel], rows
// `stride` apart. Every head has four lanes, one for each coefficient.
inline void gate_few(const Geometry& geometry, int64_t heads, const float* multiplicity, const Pairs& pairs,
                     float* gates, int64_t stride) {
    constexpr int kHeads = kLanes / kOrder;  // of a vector
    for (int v = 0; v < kPanel / kLanes; ++v) {
        const int64_t present = smaller(kHeads, heads - v * kHeads);
        float* to = gates + v * kHeads * stride;
        const Floats bias = load(geometry.rows + kBiasRow * kPanel + v * kLanes);
        const float* table = geometry.rows + kTableRow * kPanel + v * kLanes;
        for (int column = 0; column < kPanel; column += 4) {
            // From one address each, at distances known when this is compiled.
            const float* spline = pairs.spline[0][0] + column;
            const int32_t* at = pairs.at[0] + column;
            Floats shares[4];
#pragma GCC unroll 4
            for (int k = 0; k < 4; ++k) {
                shares[k] = Floats{};
#pragma GCC unroll 4
                for (int term = 0; term < kTerms; ++term)
                    shares[k] = fused(load_fours(spline + (term * kOrder + k) * kPanel),
                                      load(table + at[term * kPanel + k]), shares[k]);
            }
            transpose_fours(shares);
            const Floats sum = bias + ((shares[0] + shares[1]) + (shares[2] + shares[3]));
            alignas(64) float line[kLanes];  // [head][support]
            store(line, gate(sum) * load_fours(multiplicity + column));
#pragma GCC unroll 4
            for (int64_t h = 0; h < kHeads; ++h)
                if (h < present) memcpy(to + h * stride + column, line + 4 * h, 4 * sizeof(float));
        }
    }
}

// Gates of kTogether vectors of heads from `first` on with a panel of supports, multiplicity included ->
// [heads][kPanel], rows `stride` apart. Heads of which there are 16 have a row in a cache line, at distances known when
// this is compiled.
template <class Element, int Padded>
void gate_heads(const Geometry& geometry, int64_t first, int64_t heads, const float* multiplicity, const Pairs& pairs,
                float* gates, int64_t stride) {
    const int64_t padded = Padded != 0 ? Padded : geometry.padded;
    const float* bias = geometry.rows + kBiasRow * padded + first;
    const float* table = geometry.rows + kTableRow * padded + first;
    for (int column = 0; column < kPanel; column += kLanes) {
        alignas(64) float pair[kTogether][kLanes][kLanes];  // [][support][head]
        const float* spline = pairs.spline[0][0] + column;
        const int32_t* at = pairs.at[0] + column;
        for (int j = 0; j < kLanes; ++j) {
            Floats shares[kTerms][kTogether];
#pragma GCC unroll 4
            for (int term = 0; term < kTerms; ++term)
                share<Element>(table + at[term * kPanel + j], spline + term * kOrder * kPanel + j, padded,
                               shares[term]);
#pragma GCC unroll 2
            for (int v = 0; v < kTogether; ++v)
                store(pair[v][j],
                      gate(load(bias + v * kLanes) + ((shares[0][v] + shares[1][v]) + (shares[2][v] + shares[3][v]))));
        }
        const Floats times = load(multiplicity + column);
        for (int v = 0; v < kTogether; ++v) {
            Floats row[kLanes];
#pragma GCC unroll 16
            for (int j = 0; j < kLanes; ++j)
                row[j] = load(pair[v][j]);
            transpose(row);
            const int64_t head = first + v * kLanes, present = smaller(kLanes, heads - head);
            float* to = gates + head * stride + column;
#pragma GCC unroll 16
            for (int h = 0; h < kLanes; ++h)
                if (h < present) store(to + h * stride, row[h] * times);
        }
    }
}

}  // namespace
}  // namespace rdn::cpu
