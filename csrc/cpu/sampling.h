// Choice of the advanced support proposals.
#pragma once

#include <cstdint>

namespace rdn::cpu {

struct SampleAdvanced {
    const float* objectness;     // [supports]
    const float* multiplicity;   // [supports] positive
    const int64_t* frame_start;  // [frames + 1] ascending from 0 to supports
    int64_t supports, frames;
    double ratio;  // double, so that int(K r) is what Python computes
    int64_t num_support;
    bool global;
    uint64_t* keys;      // [supports] scratch
    int64_t* positions;  // [supports] ascending
    float* counted;      // [supports]
};

// How many of positions and counted were written. Objectness that is NaN is never among the highest.
int64_t sample_advanced(const SampleAdvanced& args);

}  // namespace rdn::cpu
