// The tables of geometry.h, made once for a module's weights.
#include "geometry.h"

#include <cmath>

#include "prepare_geometry.h"
#include "scratch.h"

namespace rdn::cpu {
namespace {

// Coefficients of the cubics that are 1 at one of the Chebyshev nodes of -0.5..0.5 and 0 at the others.
struct Cubics {
    Cubics() {
        for (int i = 0; i < kCoefficients; ++i)
            node[i] = 0.5 * std::cos(M_PI * (i + 0.5) / kCoefficients);
        for (int i = 0; i < kCoefficients; ++i) {
            double product[kCoefficients + 1] = {1.0};
            int degree = 0;
            for (int j = 0; j < kCoefficients; ++j) {
                if (j == i) continue;
                ++degree;
                for (int d = degree; d >= 0; --d)
                    product[d] = ((d > 0 ? product[d - 1] : 0.0) - node[j] * product[d]) / (node[i] - node[j]);
            }
            for (int d = 0; d < kCoefficients; ++d)
                coefficient[d][i] = product[d];
        }
    }

    double node[kCoefficients], coefficient[kCoefficients][kCoefficients];
};

// Sines and cosines of a logarithm's phases -> [kTermChannels]
void embed(double log2_ratio, double* embedding) {
    constexpr Frequencies turns = make_frequencies();
    for (int k = 0; k < kFrequencies; ++k) {
        const double phase = 2.0 * M_PI * turns.exact[k] * log2_ratio;
        embedding[k] = std::sin(phase);
        embedding[kFrequencies + k] = std::cos(phase);
    }
}

// Coefficients of one head -> words, `padded` apart.
void write_coefficients(const PrepareGeometry& args, const double* coefficient, float* out, int64_t padded) {
    for (int d = 0; d < kCoefficients; ++d) {
        const float c = static_cast<float>(coefficient[d]);
        if (args.bfloat16)
            reinterpret_cast<uint16_t*>(out + d / 2 * padded)[d % 2] = bfloat16_bits(c);
        else
            out[d * padded] = c;
    }
}

void fill_segment(const PrepareGeometry& args, const Cubics& cubics, int term, int segment) {
    const Geometry geometry = {args.out, padded_heads(args.heads), args.bfloat16};
    double embedding[kCoefficients][kTermChannels];
    for (int i = 0; i < kCoefficients; ++i)
        embed(kLowest[term] + (segment + cubics.node[i]) / segments(args.bfloat16), embedding[i]);
    float* out = args.out + kTableRow * geometry.padded +
                 (first_segment(term, args.bfloat16) + segment) * geometry.segment_size();
    for (int64_t head = 0; head < args.heads; ++head) {
        double coefficient[kCoefficients] = {};
        for (int i = 0; i < kCoefficients; ++i) {
            double at_node = 0.0;
            for (int c = 0; c < kTermChannels; ++c)
                at_node += args.weight[head * kGeometryChannels + term * kTermChannels + c] * embedding[i][c];
            for (int d = 0; d < kCoefficients; ++d)
                coefficient[d] += cubics.coefficient[d][i] * at_node;
        }
        write_coefficients(args, coefficient, out + head, geometry.padded);
    }
}

}  // namespace

void prepare_geometry(const PrepareGeometry& args) {
    const int64_t padded = padded_heads(args.heads);
    memset(args.out, 0, sizeof(float) * geometry_rows(args.bfloat16) * padded);
    for (int64_t head = 0; head < args.heads; ++head)
        args.out[kBiasRow * padded + head] = args.bias[head];
    const Cubics cubics;
    for (int term = 0; term < kTerms; ++term)
        for (int segment = 0; segment <= kOctaves[term] * segments(args.bfloat16); ++segment)
            fill_segment(args, cubics, term, segment);
}

}  // namespace rdn::cpu
