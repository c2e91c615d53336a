// Sampling positions and weights of RoIAlign (Mask R-CNN, section 3; aligned=False, adaptive sampling).
#pragma once

#include "rdn/host_device.h"

namespace rdn {

// One side of a RoI on the map.
struct RoiAxis {
    float start, bin;  // in cells
    float samples;     // per bin, an integer
};

RDN_HD RoiAxis roi_axis(float low, float high, float scale, float bins) {
    const float start = low * scale;
    const float length = greater(high * scale - start, 1.0f);
    return {start, length / bins, ceilf(length / bins)};
}

RDN_HD float sample_position(RoiAxis axis, float bin, float sample) {
    return axis.start + bin * axis.bin + (sample + 0.5f) * axis.bin / axis.samples;
}

// Two neighbouring cells and the weight of each; outside the map by more than a cell, both weights are 0.
struct Taps {
    int low, high;
    float low_weight, high_weight;
};

RDN_HD Taps bilinear_taps(float position, int extent) {
    if (!(position >= -1.0f && position <= static_cast<float>(extent))) return {0, 0, 0.0f, 0.0f};
    const float inside = greater(position, 0.0f);
    const int low = static_cast<int>(inside);
    if (low >= extent - 1) return {extent - 1, extent - 1, 1.0f, 0.0f};
    const float fraction = inside - static_cast<float>(low);
    return {low, low + 1, 1.0f - fraction, fraction};
}

}  // namespace rdn
