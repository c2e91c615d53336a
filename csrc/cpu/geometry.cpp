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

// Sines and cosines of the looked-up frequencies at a logarithm -> [kTermChannels], zero at the exact ones.
void embed(double log2_ratio, double* embedding) {
    for (int k = 0; k < kFrequencies; ++k) {
        const double phase = 2.0 * M_PI * kTurns.exact[k] * log2_ratio;
        embedding[k] = k < kExact ? 0.0 : std::sin(phase);
        embedding[kFrequencies + k] = k < kExact ? 0.0 : std::cos(phase);
    }
}

void fill_segment(const PrepareGeometry& args, const Cubics& cubics, int term, int segment) {
    const int64_t padded = padded_heads(args.heads);
    double embedding[kCoefficients][kTermChannels];
    for (int i = 0; i < kCoefficients; ++i)
        embed(kLowest[term] + (segment + cubics.node[i]) / kSegments, embedding[i]);
    float* out = args.out + (kTableRow + kCoefficients * (first_segment(term) + segment)) * padded;
    for (int64_t head = 0; head < args.heads; ++head) {
        double at_node[kCoefficients] = {};
        for (int i = 0; i < kCoefficients; ++i)
            for (int c = 0; c < kTermChannels; ++c)
                at_node[i] += args.weight[head * kGeometryChannels + term * kTermChannels + c] * embedding[i][c];
        for (int d = 0; d < kCoefficients; ++d) {
            double coefficient = 0.0;
            for (int i = 0; i < kCoefficients; ++i)
                coefficient += cubics.coefficient[d][i] * at_node[i];
            out[d * padded + head] = static_cast<float>(coefficient);
        }
    }
}

}  // namespace

void prepare_geometry(const PrepareGeometry& args) {
    const int64_t padded = padded_heads(args.heads);
    memset(args.out, 0, sizeof(float) * kGeometryRows * padded);
    for (int64_t head = 0; head < args.heads; ++head) {
        args.out[kBiasRow * padded + head] = args.bias[head];
        for (int term = 0; term < kTerms; ++term) {
            for (int c = 0; c < kTermExact; ++c) {
                const int channel = term * kTermChannels + c / kExact * kFrequencies + c % kExact;
                args.out[(kExactRow + term * kTermExact + c) * padded + head] =
                    args.weight[head * kGeometryChannels + channel];
            }
        }
    }
    const Cubics cubics;
    for (int term = 0; term < kTerms; ++term)
        for (int segment = 0; segment <= kOctaves[term] * kSegments; ++segment)
            fill_segment(args, cubics, term, segment);
}

}  // namespace rdn::cpu
