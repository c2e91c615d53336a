// The tables of geometry.h, made once for a module's weights.
#include "geometry.h"

#include <cmath>

#include "prepare_geometry.h"
#include "scratch.h"

namespace rdn::cpu {
namespace {

// What makes a wave of samples at whole numbers the spline whose mean error is zero: a B-spline of order n weighs a
// wave of w radians a segment with (sin(w / 2) / (w / 2))^n.
double sharpened(double radians) {
    return std::pow(0.5 * radians / std::sin(0.5 * radians), kOrder);
}

// Of a term: what sines and cosines of each frequency add to coefficient `number` -> [kTermChannels]
void embed(int term, int number, int octave, double* embedding) {
    constexpr Frequencies turns = make_frequencies();
    // The coefficients of a segment lie at -1.5, -0.5, 0.5 and 1.5 of it.
    const double log2_ratio = kLowest[term] + (number - 0.5 * (kOrder - 1)) / octave;
    for (int k = 0; k < kFrequencies; ++k) {
        const double radians = 2.0 * M_PI * turns.exact[k], scale = sharpened(radians / octave);
        embedding[k] = scale * std::sin(radians * log2_ratio);
        embedding[kFrequencies + k] = scale * std::cos(radians * log2_ratio);
    }
}

void fill_coefficients(const PrepareGeometry& args, int term, int number) {
    const int64_t padded = padded_heads(args.heads);
    float* row = args.out + (kTableRow + first_coefficient(term, args.bfloat16) + number) * padded;
    const bool few = args.heads <= kFewHeads;
    double embedding[kTermChannels];
    embed(term, number, segments(args.bfloat16), embedding);
    for (int64_t head = 0; head < args.heads; ++head) {
        double coefficient = 0.0;
        for (int c = 0; c < kTermChannels; ++c)
            coefficient += args.weight[head * kGeometryChannels + term * kTermChannels + c] * embedding[c];
        const float single = static_cast<float>(coefficient);
        if (few) {
            for (int i = 0; i < kOrder && i <= number; ++i)
                row[kOrder * head + i - i * padded] = single;
            continue;
        }
        if (!args.bfloat16) {
            row[head] = single;
            continue;
        }
        reinterpret_cast<uint16_t*>(row + head)[0] = bfloat16_bits(single);
        if (number > 0) reinterpret_cast<uint16_t*>(row + head - padded)[1] = bfloat16_bits(single);
    }
}

}  // namespace

void prepare_geometry(const PrepareGeometry& args) {
    const int64_t padded = padded_heads(args.heads);
    memset(args.out, 0, sizeof(float) * geometry_rows(args.bfloat16) * padded);
    const int64_t times = args.heads <= kFewHeads ? kOrder : 1;
    for (int64_t i = 0; i < args.heads * times; ++i)
        args.out[kBiasRow * padded + i] = args.bias[i / times];
    for (int term = 0; term < kTerms; ++term)
        for (int number = 0; number < num_coefficients(term, args.bfloat16); ++number)
            fill_coefficients(args, term, number);
}

}  // namespace rdn::cpu
