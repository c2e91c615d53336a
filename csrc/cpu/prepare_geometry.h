// The geometry of one relation module as the kernels read it (geometry.h). Compiled once.
#pragma once

#include <cstdint>

namespace rdn::cpu {

struct PrepareGeometry {
    const float* weight;  // [heads, 64]
    const float* bias;    // [heads]
    int64_t heads;
    bool bfloat16;
    float* out;  // [geometry_rows(bfloat16)][heads, padded to a multiple of kPanel]
};

void prepare_geometry(const PrepareGeometry& args);

}  // namespace rdn::cpu
