// The geometry's part of the logits, Wg.E + b, for a row of boxes and a panel of supports.
//
// Every head's share of one of the four terms of E is a function of one logarithm. The sines and cosines of its two
// highest frequencies are computed; the other six, which together are smooth, are a cubic in each of kSegments pieces
// of an octave, looked up for all heads at once: heads lie in the lanes. Error of a looked-up share: 1.5e-6 times the
// weights of its lowest k, 6e-8 of rounding; so no more than that of the logarithm itself.
#pragma once

#include <utility>

#include "product.h"
#include "rdn/relation.h"

namespace rdn::cpu {
namespace {

constexpr int kExact = 2;  // frequencies whose sine and cosine are computed
constexpr int kTerms = 4;  // of E: x, y, width, height
constexpr int kTermExact = 2 * kExact;
constexpr int kHalfExact = 2 * kTermExact;  // exact channels of the two centre terms, and of the two size terms
constexpr int kSegments = 48;               // of an octave
constexpr int kCoefficients = 4;
constexpr Frequencies kTurns = make_frequencies();

// Logarithms to base 2 that the tables hold, of |c - c'| / w + 1e-3 and of w / w'; beyond, their ends stand.
constexpr int kLowest[kTerms] = {-10, -10, -20, -20};
constexpr int kOctaves[kTerms] = {30, 30, 40, 40};

// First segment of a term; of the fourth, their number. Segments are centred on whole numbers.
constexpr int first_segment(int term) {
    int first = 0;
    for (int t = 0; t < term; ++t)
        first += kOctaves[t] * kSegments + 1;
    return first;
}

// Rows of kPanel-padded heads: bias, the exact channels of each term (sines, then cosines), coefficients by segment.
constexpr int kBiasRow = 0;
constexpr int kExactRow = 1;
constexpr int kTableRow = kExactRow + kTerms * kTermExact;
static_assert(kTableRow + kCoefficients * first_segment(kTerms) == kGeometryRows, "relation.h says how many");

inline int64_t padded_heads(int64_t heads) {
    return ceil_div(heads, kPanel) * kPanel;
}

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

inline Place<float> place_side(float low, float high) {
    const double segments = kSegments * log2(relation_side(low, high)), whole = nearbyint(segments);
    return {static_cast<float>(whole), static_cast<float>(segments - whole)};
}

// Sines and cosines of both sides' own phases, exact frequencies -> [kHalfExact], `stride` apart.
inline void embed_sides(const float* box, float* embedding, int64_t stride) {
    for (int axis = 0; axis < 2; ++axis) {
        const double log2_side = log2(relation_side(box[axis], box[axis + 2]));
        for (int k = 0; k < kExact; ++k) {
            float* to = embedding + (axis * kTermExact + k) * stride;
            sincos_turns(side_turns(log2_side, kTurns, k), to, to + kExact * stride);
        }
    }
}

inline RowBox row_box(const float* box) {
    RowBox row;
    for (int axis = 0; axis < 2; ++axis) {
        row.centre[axis] = centre(box[axis], box[axis + 2]);
        row.inverse_side[axis] = inverse_side(box[axis], box[axis + 2]);
        row.side[axis] = place_side(box[axis], box[axis + 2]);
    }
    return row;
}

// Weights of the supports' sides, exact frequencies: the row's own sides are turned into them. -> [kHalfExact][padded]
inline void turn_sides(const float* geometry, const float* box, int64_t padded, float* weight) {
    float side[kHalfExact];
    embed_sides(box, side, 1);
    for (int axis = 0; axis < 2; ++axis) {
        for (int k = 0; k < kExact; ++k) {
            const int sine = axis * kTermExact + k, cosine = sine + kExact;
            const float* from = geometry + (kExactRow + kHalfExact) * padded;
            for (int64_t head = 0; head < padded; ++head)
                turn_weight(from[sine * padded + head], from[cosine * padded + head], side[sine], side[cosine],
                            &weight[sine * padded + head], &weight[cosine * padded + head]);
        }
    }
}

// What the geometry reads of kBlock supports, [kColumnRows][kBlock].
constexpr int64_t kBlock = 96;                      // most supports whose gates are held at once
constexpr int kCentreRow = 0;                       // x, x's low part, y, y's low part
constexpr int kSideRow = 4;                         // width in segments, its part, height, its part
constexpr int kBasisRow = 8;                        // sines and cosines of both sides
constexpr int kWeightRow = kBasisRow + kHalfExact;  // multiplicity
constexpr int kColumnRows = kWeightRow + 1;

inline void fill_column(const float* box, float multiplicity, float* column) {
    for (int axis = 0; axis < 2; ++axis) {
        const Split<float> c = centre(box[axis], box[axis + 2]);
        const Place<float> side = place_side(box[axis], box[axis + 2]);
        float* to = column + (kCentreRow + 2 * axis) * kBlock;
        to[0] = c.high, to[kBlock] = c.low;
        to = column + (kSideRow + 2 * axis) * kBlock;
        to[0] = side.whole, to[kBlock] = side.part;
    }
    embed_sides(box, column + kBasisRow * kBlock, kBlock);
    column[kWeightRow * kBlock] = multiplicity;
}

// Between one box and a panel of supports.
struct Pairs {
    alignas(64) float exact[kHalfExact][kPanel];  // sines and cosines of the centre terms
    alignas(64) float part[kTerms][kPanel];       // of a segment, -0.5..0.5
    alignas(64) int32_t row[kTerms][kPanel];      // of the geometry: the segment's first coefficient
};

inline void place(Floats whole, Floats part, int term, int64_t padded, int lane, Pairs& pairs) {
    const Floats nearest = nearest_integer(part);
    Floats segment = whole + nearest - static_cast<float>(kLowest[term] * kSegments);
    const float last = static_cast<float>(kOctaves[term] * kSegments);
    segment = segment < last ? segment : broadcast<Floats>(last);
    segment = segment > 0.0f ? segment : Floats{};
    // Where it is no number the first segment is as good as any: the part is none either.
    const Floats known = part == part ? segment : Floats{};
    store(pairs.part[term] + lane, part - nearest);
    const Ints index = bits_as<Ints>(known + kRounder) - kRounderBits;
    const Ints row = (index + first_segment(term)) * static_cast<int32_t>(kCoefficients * padded);
    memcpy(pairs.row[term] + lane, &row, sizeof row);
}

inline void place_pairs(const RowBox& row, const float* columns, int64_t padded, Pairs& pairs) {
    for (int lane = 0; lane < kPanel; lane += kLanes) {
        for (int axis = 0; axis < 2; ++axis) {
            const float* centre = columns + (kCentreRow + 2 * axis) * kBlock + lane;
            const Split<float> c = row.centre[axis], inverse = row.inverse_side[axis];
            const Log2<Floats> offset = log2_offset<Floats>(
                {broadcast<Floats>(c.high), broadcast<Floats>(c.low)}, {load(centre), load(centre + kBlock)},
                {broadcast<Floats>(inverse.high), broadcast<Floats>(inverse.low)});
            for (int k = 0; k < kExact; ++k) {
                Floats sine, cosine;
                sincos_turns(offset_turns(offset, kTurns, k), &sine, &cosine);
                store(pairs.exact[axis * kTermExact + k] + lane, sine);
                store(pairs.exact[axis * kTermExact + kExact + k] + lane, cosine);
            }
            constexpr float segments = kSegments;
            place(offset.exponent * segments, offset.fraction * segments, axis, padded, lane, pairs);
            const float* side = columns + (kSideRow + 2 * axis) * kBlock + lane;
            place(row.side[axis].whole - load(side), row.side[axis].part - load(side + kBlock), 2 + axis, padded, lane,
                  pairs);
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

inline Floats share(const float* table, Floats part, int64_t padded) {
    Floats y = load(table + 3 * padded);
    y = fused(y, part, load(table + 2 * padded));
    y = fused(y, part, load(table + padded));
    return fused(y, part, load(table));
}

// Gates of kLanes heads with a panel of supports, multiplicity included -> [kLanes][kPanel], rows `stride` apart.
inline void gate_heads(const float* geometry, const float* sides, const float* columns, const Pairs& pairs,
                       int64_t padded, int64_t heads, float* gates, int64_t stride) {
    Floats centre[kHalfExact], side[kHalfExact];
    for (int c = 0; c < kHalfExact; ++c) {
        centre[c] = load(geometry + (kExactRow + c) * padded);
        side[c] = load(sides + c * padded);
    }
    const Floats bias = load(geometry + kBiasRow * padded);
    const float* table = geometry + kTableRow * padded;
    for (int first = 0; first < kPanel; first += kLanes) {
        alignas(64) float pair[kLanes][kLanes];  // [support][head]
        for (int j = 0; j < kLanes; ++j) {
            const int at = first + j;
            Floats g = bias, of_sides = {};
#pragma GCC unroll 8
            for (int c = 0; c < kHalfExact; ++c) {
                g = fused(centre[c], broadcast<Floats>(pairs.exact[c][at]), g);
                of_sides = fused(side[c], broadcast<Floats>(columns[(kBasisRow + c) * kBlock + at]), of_sides);
            }
            Floats looked_up[kTerms];
#pragma GCC unroll 4
            for (int term = 0; term < kTerms; ++term)
                looked_up[term] = share(table + pairs.row[term][at], broadcast<Floats>(pairs.part[term][at]), padded);
            g += of_sides + ((looked_up[0] + looked_up[1]) + (looked_up[2] + looked_up[3]));
            store(pair[j], gate(g));
        }
        Floats row[kLanes];
#pragma GCC unroll 16
        for (int j = 0; j < kLanes; ++j)
            row[j] = load(pair[j]);
        transpose_step<kLanes / 2>(row);
        const Floats multiplicity = load(columns + kWeightRow * kBlock + first);
        for (int head = 0; head < smaller(kLanes, heads); ++head)
            store(gates + head * stride + first, row[head] * multiplicity);
    }
}

}  // namespace
}  // namespace rdn::cpu
