// The geometry's part of the logits, Wg.E + b, for a row of boxes and a panel of supports.
//
// Every head's share of one of the four terms of E is a function of one logarithm, kept as a uniform spline: four
// coefficients that follow each other, looked up for all heads at once: heads lie in the lanes. Neighbouring segments
// share three of the four, so that what a frame touches of the tables fits the second-level cache. Its pieces are
// fitted to the eight frequencies of E, which takes half the segments of a cubic B-spline: in float32 the spline's
// error is at most 4.6e-6 of the weights of the two highest frequencies, 1e-6 and less of the others'; a logarithm in
// float32 brings the highest frequency as much. In bfloat16 coefficients and their weights are rounded to it, 4e-3 of a
// share. Where there are few heads, a segment has all four coefficients of each of them in one cache line: four times
// the table, a quarter of what is read.
#pragma once

#include <type_traits>

#include "doubles.h"
#include "product.h"
#include "rdn/relation.h"
#include "transpose.h"

namespace rdn::cpu {
namespace {

constexpr int kTerms = 4;  // of E: x, y, width, height
constexpr int kOrder = 4;  // coefficients that count at a point

// Logarithms to base 2 that the tables hold, of |c - c'| / w + 1e-3 and of w / w'; beyond, their ends stand.
constexpr int kLowest[kTerms] = {-10, -10, -20, -20};
constexpr int kOctaves[kTerms] = {30, 30, 40, 40};

// Of an octave.
constexpr int segments(bool bfloat16) {
    return bfloat16 ? 72 : 144;
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
    double centre[2], inverse_side[2];  // x, y
    Place<float> side[2];
};

inline Place<float> place_side(float low, float high, bool bfloat16) {
    const double place = segments(bfloat16) * log2(relation_side(low, high)), whole = nearbyint(place);
    return {static_cast<float>(whole), static_cast<float>(place - whole)};
}

inline double middle(float low, float high) {
    return 0.5 * (static_cast<double>(low) + high);
}

inline RowBox row_box(const float* box, bool bfloat16) {
    RowBox row;
    for (int axis = 0; axis < 2; ++axis) {
        row.centre[axis] = middle(box[axis], box[axis + 2]);
        row.inverse_side[axis] = 1.0 / relation_side(box[axis], box[axis + 2]);
        row.side[axis] = place_side(box[axis], box[axis + 2], bfloat16);
    }
    return row;
}

// What the geometry reads of kBlock supports, [kColumnRows][kBlock].
constexpr int64_t kBlock = 96;  // most supports whose gates are held at once
constexpr int kCentreRow = 0;   // x, y: float64, of two rows each
constexpr int kSideRow = 4;     // width in segments, its part, height, its part
constexpr int kWeightRow = 8;   // multiplicity
constexpr int kColumnRows = 9;

inline const double* centres(const float* columns, int axis) {
    return reinterpret_cast<const double*>(columns + (kCentreRow + 2 * axis) * kBlock);
}

inline void fill_column(const float* box, float multiplicity, bool bfloat16, int64_t j, float* columns) {
    for (int axis = 0; axis < 2; ++axis) {
        const double centre = middle(box[axis], box[axis + 2]);
        memcpy(columns + (kCentreRow + 2 * axis) * kBlock + 2 * j, &centre, sizeof centre);
        const Place<float> side = place_side(box[axis], box[axis + 2], bfloat16);
        float* to = columns + (kSideRow + 2 * axis) * kBlock + j;
        to[0] = side.whole, to[kBlock] = side.part;
    }
    columns[kWeightRow * kBlock + j] = multiplicity;
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

// How much the four coefficients around a segment count, at t in -0.5..0.5 of it. A cubic B-spline's are right for slow
// waves. These have its symmetry, and that constants and straight lines are exact; what that leaves open is fitted, by
// least squares, to the eight frequencies of E at 144 segments an octave. Root mean square of the error of all eight:
// 1.7e-6, and 3.0e-4 at 72 segments; of the B-spline 5.4e-5 and 1.1e-3.
template <class T>
RDN_HD void weigh_coefficients(T t, T* weight) {
    const T t2 = t * t;
    const T inner =
        fused(t2, fused(t2, broadcast<T>(4.70684608e-3f), broadcast<T>(-2.5100261e-1f)), broadcast<T>(4.66745436e-1f));
    const T slope = t * fused(t2, broadcast<T>(-4.90774423e-1f), broadcast<T>(5.48393309e-1f));
    const T outer = 0.5f - inner, outer_slope = (t - slope) * (1.0f / 3.0f);
    weight[0] = outer - outer_slope;
    weight[1] = inner - slope;
    weight[2] = inner + slope;
    weight[3] = outer + outer_slope;
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
    weigh_coefficients(part - nearest, value);
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

// Lanes 1, 3, 5, ...: what is more significant of every double.
RDN_HD Ints upper_halves(Longs low, Longs high) {
    return every_other<1>((Ints)low, (Ints)high, std::make_integer_sequence<int, kLanes>{});
}

// log2(|c - c'| / side + 1e-3) of kLanes supports. A phase is up to 100 times the logarithm, so that what is taken of
// it is a float64; its mantissa less 1 and plus 1 have as many bits as they need as floats.
RDN_HD Log2<Floats> log2_offset(double centre, double inverse_side, const double* others) {
    Doubles below[2], above[2];
    Longs octave[2];
    for (int half = 0; half < 2; ++half) {
        const Doubles difference = load_doubles(others + half * kDoubles) - centre;
        const Doubles distance = bits_as<Doubles>(bits_as<Longs>(difference) & INT64_MAX);
        const Doubles u = fused(distance, Doubles{} + inverse_side, Doubles{} + 1e-3);
        const Longs bits = bits_as<Longs>(u);
        octave[half] = bits - 0x3fe6a09e00000000;  // counted from the root of a half
        const Doubles mantissa = bits_as<Doubles>(bits - (octave[half] & static_cast<int64_t>(0xfff0000000000000u)));
        below[half] = fused(u, Doubles{}, mantissa - 1.0);  // 0 u is NaN where u is not finite
        above[half] = mantissa + 1.0;
    }
    const Ints exponent = upper_halves(octave[0], octave[1]) >> 20;
    return {bits_as<Floats>(exponent + kRounderBits) - kRounder,
            log2_quotient(round_doubles(below[0], below[1]) / round_doubles(above[0], above[1]))};
}

// Of one box and the supports of `panels` panels -> [panels]. Logarithms of all of them first: their chains are long,
// and hide behind one another.
template <class Element>
void place_pairs(const RowBox& row, const float* columns, int64_t panels, const Geometry& geometry, Pairs* pairs) {
    constexpr float octave = segments(Element::kNumbers == 2);
    alignas(64) float exponent[2][kBlock], fraction[2][kBlock];
    for (int64_t j = 0; j < panels * kPanel; j += kLanes) {
#pragma GCC unroll 2
        for (int axis = 0; axis < 2; ++axis) {
            const Log2<Floats> offset =
                log2_offset(row.centre[axis], row.inverse_side[axis], centres(columns, axis) + j);
            store(exponent[axis] + j, offset.exponent);
            store(fraction[axis] + j, offset.fraction);
        }
    }
    for (int64_t j = 0; j < panels * kPanel; j += kLanes) {
        const int lane = static_cast<int>(j % kPanel);
        Pairs& panel = pairs[j / kPanel];
#pragma GCC unroll 2
        for (int axis = 0; axis < 2; ++axis) {
            place<Element>(load(exponent[axis] + j) * octave, load(fraction[axis] + j) * octave, axis, geometry, lane,
                           panel);
            const float* side = columns + (kSideRow + 2 * axis) * kBlock + j;
            place<Element>(row.side[axis].whole - load(side), row.side[axis].part - load(side + kBlock), 2 + axis,
                           geometry, lane, panel);
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
