// RoIAlign (Mask R-CNN, section 3; aligned=False, adaptive sampling) and RoI max pooling: the cells of a bin.
#pragma once

#include <cstdint>

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

// Cells first..stop-1 of one side of the map.
struct CellRange {
    int first, stop;
};

// Weights of the cells of one side in one bin: the sum of the bilinear weights of the bin's samples. The weight of a
// cell of the map is the product of its row's and its column's, so a cell is read once however many samples touch it.
// weights [extent] is set on the cells returned.
RDN_HD CellRange bin_weights(RoiAxis axis, float index, int extent, float* weights) {
    CellRange cells = {extent, 0};
    const float offset = axis.start + index * axis.bin, step = axis.bin / axis.samples;
    // A RoI may be far larger than the map: only samples that can fall on it are visited, with two to spare.
    const float begin = greater(floorf((-1.0f - offset) / step) - 2.0f, 0.0f);
    const float end = lesser(ceilf((static_cast<float>(extent) - offset) / step) + 2.0f, axis.samples);
    const int64_t visits =
        begin < end ? static_cast<int64_t>(lesser(end - begin, 4.0f * static_cast<float>(extent + 4))) : 0;
    for (int64_t k = 0; k < visits; ++k) {
        const Taps taps = bilinear_taps(sample_position(axis, index, begin + static_cast<float>(k)), extent);
        if (taps.low_weight == 0.0f && taps.high_weight == 0.0f) continue;
        if (taps.low < cells.first && cells.stop == 0) cells.first = cells.stop = taps.low;
        for (; cells.stop <= taps.high; ++cells.stop)
            weights[cells.stop] = 0.0f;
        weights[taps.low] += taps.low_weight;
        weights[taps.high] += taps.high_weight;
    }
    const float share = 1.0f / axis.samples;
    for (int cell = cells.first; cell < cells.stop; ++cell)
        weights[cell] *= share;
    return cells;
}

RDN_HD int64_t round_cell(float position) {
    const float most = 1e9f;
    return static_cast<int64_t>(roundf(greater(lesser(position, most), -most)));
}

// Cells of bin `index` of `size` of one side in RoI max pooling; the RoI's ends are rounded to cells.
RDN_HD CellRange max_range(float low, float high, float scale, int64_t index, int64_t size, int64_t extent) {
    const int64_t start = round_cell(low * scale), stop = round_cell(high * scale);
    const int64_t length = stop - start + 1 > 1 ? stop - start + 1 : 1;
    const float bin = static_cast<float>(length) / static_cast<float>(size);
    const int64_t first = start + static_cast<int64_t>(floorf(static_cast<float>(index) * bin));
    const int64_t last = start + static_cast<int64_t>(ceilf(static_cast<float>(index + 1) * bin));
    return {static_cast<int>(first < 0 ? 0 : (first > extent ? extent : first)),
            static_cast<int>(last < 0 ? 0 : (last > extent ? extent : last))};
}

}  // namespace rdn
