// The tables of geometry.h, made once for a module's weights.
#include "geometry.h"

#include <cmath>

#include "prepare_geometry.h"
#include "scratch.h"

namespace rdn::cpu {
namespace {

// What coefficients of a wave of so many radians a segment are multiplied with, so that their weighted sums come
// nearest to the wave itself, by least squares over a segment.
double sharpened(double radians) {
    constexpr int kPoints = 64;
    double along = 0.0, length = 0.0;
    for (int i = 0; i < kPoints; ++i) {
        const double t = (i + 0.5) / kPoints - 0.5, turned = radians * t;
        float weight[kOrder];
        weigh_coefficients(static_cast<float>(t), weight);
        double cosine = 0.0, sine = 0.0;
        for (int k = 0; k < kOrder; ++k) {
            const double angle = radians * (k - 0.5 * (kOrder - 1));
            cosine += weight[k] * std::cos(angle);
            sine += weight[k] * std::sin(angle);
        }
        along += cosine * std::cos(turned) + sine * std::sin(turned);
        length += cosine * cosine + sine * sine;
    }
    return along / length;
}

// Radians of each frequency in an octave, and its sharpened().
struct Waves {
    explicit Waves(int octave) {
        constexpr Frequencies turns = make_frequencies();
        for (int k = 0; k < kFrequencies; ++k) {
            radians[k] = 2.0 * M_PI * turns.exact[k];
            scale[k] = sharpened(radians[k] / octave);
        }
    }

    double radians[kFrequencies], scale[kFrequencies];
};

// Of a term: what sines and cosines of each frequency add to coefficient `number` -> [kTermChannels]
void embed(const Waves& waves, int term, int number, int octave, double* embedding) {
    // The coefficients of a segment lie at -1.5, -0.5, 0.5 and 1.5 of it.
    const double log2_ratio = kLowest[term] + (number - 0.5 * (kOrder - 1)) / octave;
    for (int k = 0; k < kFrequencies; ++k) {
        const double angle = waves.radians[k] * log2_ratio;
        embedding[k] = waves.scale[k] * std::sin(angle);
        embedding[kFrequencies + k] = waves.scale[k] * std::cos(angle);
    }
}

void fill_coefficients(const PrepareGeometry& args, const Waves& waves, int term, int number) {
    const int64_t padded = padded_heads(args.heads);
    float* row = args.out + (kTableRow + first_coefficient(term, args.bfloat16) + number) * padded;
    const bool few = args.heads <= kFewHeads;
    double embedding[kTermChannels];
    embed(waves, term, number, segments(args.bfloat16), embedding);
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
    const Waves waves(segments(args.bfloat16));
    for (int term = 0; term < kTerms; ++term)
        for (int number = 0; number < num_coefficients(term, args.bfloat16); ++number)
            fill_coefficients(args, waves, term, number);
}

}  // namespace rdn::cpu
