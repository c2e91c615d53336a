// The geometry's part of the logits, Wg.E + b, for a row of boxes and a panel of supports.
//
// Every head's share of one of the four terms of E is a function of one logarithm: a cubic in each of the segments of
// an octave, looked up for all heads at once: heads lie in the lanes. In float32 the fit's error is 5.6e-6 times the
// weights of the highest frequency, 2e-7 times those of the next, and 6e-9 and less times the others'; a logarithm in
// float32 brings the highest frequency as much. In bfloat16 the coefficients are rounded to it, 4e-3 of a share.
#pragma once

#include <utility>

#include "product.h"
#include "rdn/relation.h"

namespace rdn::cpu {
namespace {

constexpr int kTerms = 4;  // of E: x, y, width, height
constexpr int kCoefficients = 4;

// Logarithms to base 2 that the tables hold, of |c - c'| / w + 1e-3 and of w / w'; beyond, their ends stand.
constexpr int kLowest[kTerms] = {-10, -10, -20, -20};
constexpr int kOctaves[kTerms] = {30, 30, 40, 40};

// Of an octave.
constexpr int segments(bool bfloat16) {
    return bfloat16 ? 64 : 192;
}

// First segment of a term; of the fourth, their number. Segments are centred on whole numbers.
constexpr int first_segment(int term, bool bfloat16) {
    int first = 0;
    for (int t = 0; t < term; ++t)
        first += kOctaves[t] * segments(bfloat16) + 1;
    return first;
}
static_assert(first_segment(kTerms, false) == geometry_segments(false), "relation.h says how many");
static_assert(first_segment(kTerms, true) == geometry_segments(true), "relation.h says how many");

// Rows of kPanel-padded heads: bias, then the coefficients by segment, from that of the 0th power on; in bfloat16 two
// to a word.
constexpr int kBiasRow = 0;
constexpr int kTableRow = 1;

inline int64_t padded_heads(int64_t heads) {
    return ceil_div(heads, kPanel) * kPanel;
}

// A module's geometry as prepared (geometry.cpp).
struct Geometry {
    const float* rows;  // [geometry_rows][padded]
    int64_t padded;     // heads
    bool bfloat16;

    int64_t segment_size() const { return padded * kCoefficients / (bfloat16 ? 2 : 1); }
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
    alignas(64) float part[kTerms][kPanel];    // of a segment, t in -0.5..0.5; in bfloat16 a word of 1 and t
    alignas(64) float powers[kTerms][kPanel];  // in bfloat16 a word of t^2 and t^3
    alignas(64) int32_t at[kTerms][kPanel];    // the segment's first coefficient
};

inline void place(Floats whole, Floats part, int term, const Geometry& geometry, int lane, Pairs& pairs) {
    const int octave = segments(geometry.bfloat16);
    const Floats nearest = nearest_integer(part);
    Floats segment = whole + nearest - static_cast<float>(kLowest[term] * octave);
    const float last = static_cast<float>(kOctaves[term] * octave);
    segment = segment < last ? segment : broadcast<Floats>(last);
    segment = segment > 0.0f ? segment : Floats{};
    // Where it is no number the first segment is as good as any: the part is none either.
    const Floats known = part == part ? segment : Floats{}, t = part - nearest;
    if (geometry.bfloat16) {
        store(pairs.part[term] + lane, bits_as<Floats>(pair_up(broadcast<Floats>(1.0f), t)));
        store(pairs.powers[term] + lane, bits_as<Floats>(pair_up(t * t, t * t * t)));
    } else {
        store(pairs.part[term] + lane, t);
    }
    const Ints index = bits_as<Ints>(known + kRounder) - kRounderBits;
    const Ints at = (index + first_segment(term, geometry.bfloat16)) * static_cast<int32_t>(geometry.segment_size());
    memcpy(pairs.at[term] + lane, &at, sizeof at);
}

inline void place_pairs(const RowBox& row, const float* columns, const Geometry& geometry, Pairs& pairs) {
    for (int lane = 0; lane < kPanel; lane += kLanes) {
        for (int axis = 0; axis < 2; ++axis) {
            const float* centre = columns + (kCentreRow + 2 * axis) * kBlock + lane;
            const Split<float> c = row.centre[axis], inverse = row.inverse_side[axis];
            const Log2<Floats> offset = log2_offset<Floats>(
                {broadcast<Floats>(c.high), broadcast<Floats>(c.low)}, {load(centre), load(centre + kBlock)},
                {broadcast<Floats>(inverse.high), broadcast<Floats>(inverse.low)});
            const float octave = static_cast<float>(segments(geometry.bfloat16));
            place(offset.exponent * octave, offset.fraction * octave, axis, geometry, lane, pairs);
            const float* side = columns + (kSideRow + 2 * axis) * kBlock + lane;
            place(row.side[axis].whole - load(side), row.side[axis].part - load(side + kBlock), 2 + axis, geometry,
                  lane, pairs);
        }
    }
}

// Heads in lanes -> pairs in lanes.
template <int Step, int... Lane>
Floats mixed(Floats a, Floats b, std::integer_sequence<int, Lane...>, std::true_type) {
    return __builtin_shufflevector(a, b, ((Lane & Step) == 0 ? Lane : kLanes + Lane - Step)...);
}
template <int Step, int... Lane>
Floats mixed(Floats a, Floats b, std::integer_sequence<int, Lane...>, std::false_type) {
    return __builtin_shufflevector(a, b, ((Lane & Step) == 0 ? Lane + Step : kLanes + Lane)...);
}

template <int Step>
void transpose_step(Floats* row) {
    using Lanes = std::make_integer_sequence<int, kLanes>;
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) {
        if (i & Step) continue;
        const Floats a = row[i], b = row[i + Step];
        row[i] = mixed<Step>(a, b, Lanes{}, std::true_type{});
        row[i + Step] = mixed<Step>(a, b, Lanes{}, std::false_type{});
    }
    if constexpr (Step > 1) transpose_step<Step / 2>(row);
}

// Of kLanes heads: what a term adds to Wg.E for support j.
template <class Element>
Floats share(const float* table, const Pairs& pairs, int term, int j, int64_t padded) {
    if constexpr (Element::kNumbers == 2)
        return Pair::add(pairs.powers[term] + j, table + padded, Pair::add(pairs.part[term] + j, table, Floats{}));
    const Floats t = broadcast<Floats>(pairs.part[term][j]);
    Floats y = load(table + 3 * padded);
    y = fused(y, t, load(table + 2 * padded));
    y = fused(y, t, load(table + padded));
    return fused(y, t, load(table));
}

// Gates of kLanes heads from `first` on with a panel of supports, multiplicity included -> [kLanes][kPanel], rows
// `stride` apart.
template <class Element>
void gate_heads(const Geometry& geometry, int64_t first, int64_t heads, const float* multiplicity, const Pairs& pairs,
                float* gates, int64_t stride) {
    const int64_t padded = geometry.padded;
    const Floats bias = load(geometry.rows + kBiasRow * padded + first);
    const float* table = geometry.rows + kTableRow * padded + first;
    for (int column = 0; column < kPanel; column += kLanes) {
        alignas(64) float pair[kLanes][kLanes];  // [support][head]
        for (int j = 0; j < kLanes; ++j) {
            Floats shares[kTerms];
#pragma GCC unroll 4
            for (int term = 0; term < kTerms; ++term)
                shares[term] = share<Element>(table + pairs.at[term][column + j], pairs, term, column + j, padded);
            store(pair[j], gate(bias + ((shares[0] + shares[1]) + (shares[2] + shares[3]))));
        }
        Floats row[kLanes];
#pragma GCC unroll 16
        for (int j = 0; j < kLanes; ++j)
            row[j] = load(pair[j]);
        transpose_step<kLanes / 2>(row);
        const Floats times = load(multiplicity + column);
        for (int head = 0; head < smaller(kLanes, heads - first); ++head)
            store(gates + (first + head) * stride + column, row[head] * times);
    }
}

}  // namespace
}  // namespace rdn::cpu
