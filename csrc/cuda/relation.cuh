// What the relation kernels share: the geometry of single boxes, found once for each, and where rows and supports are.
#pragma once

#include "common.cuh"
#include "rdn/relation.h"

namespace rdn::cuda {

// In the workspace: the geometry of the queries, then of the supports. (relation_steps.cu)
Status find_geometry(const Queries& queries, const Supports& supports, void* workspace, Stream stream);

namespace {

__constant__ Frequencies kTurns = make_frequencies();
constexpr int kCentreChannels = 2 * kTermChannels;  // the first half of a pair's channels
constexpr int kSides = kGeometryChannels - kCentreChannels;
constexpr float kNone = -1e30f;  // score of what takes no part

// Of one box, by axis: the centre, 1 / side, and the sines and cosines of the side's own phases.
struct alignas(16) BoxGeometry {
    Split<float> centre[2], inverse[2];
    float sides[kSides];
};

RDN_HD int64_t row_at(const int32_t* rows, int64_t i) {
    return rows != nullptr ? rows[i] : i;
}

RDN_HD bool takes_part(const Supports& supports, int64_t j) {
    return j < supports.count && supports.multiplicity[j] > 0.0f;
}

inline std::size_t geometry_bytes(const Queries& queries, const Supports& supports) {
    return static_cast<std::size_t>(queries.count + supports.count) * sizeof(BoxGeometry);
}

// The weight of the supports' sines and cosines of sides, for a query of these sides: weights [64] -> turned [32].
__device__ inline void turn_weights(const float* weights, const float* sides, int channel, float* of_sine,
                                    float* of_cosine) {
    turn_weight(weights[kCentreChannels + channel], weights[kCentreChannels + channel + kFrequencies], sides[channel],
                sides[channel + kFrequencies], of_sine, of_cosine);
}

}  // namespace
}  // namespace rdn::cuda
