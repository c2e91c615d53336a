// Greedy non-maximum suppression of one image or class. Included by kernel files (isa.h).
#pragma once

#include "rdn/box.h"
#include "scratch.h"

namespace rdn::cpu {

namespace {

// The boxes kept so far, one array a coordinate, so that a candidate meets a block of them in one vector loop.
struct Kept {
    explicit Kept(int64_t most) : capacity((most + kBlock - 1) / kBlock * kBlock), memory(5 * capacity) {}

    static constexpr int64_t kBlock = 32;

    int64_t capacity, count = 0;
    Array<float> memory;  // [5, capacity] x1, y1, x2, y2, area
};

// The rest of the last block repeats a box with which no overlap is possible.
constexpr float kFar = -1e30f;

void keep(Kept& kept, Box box, float box_area) {
    const float values[5] = {box.x1, box.y1, box.x2, box.y2, box_area};
    const bool fresh_block = kept.count % Kept::kBlock == 0;
    for (int64_t row = 0; row < 5; ++row) {
        float* start = kept.memory + row * kept.capacity + kept.count;
        start[0] = values[row];
        if (fresh_block)
            for (int64_t k = 1; k < Kept::kBlock; ++k)
                start[k] = row == 4 ? 1.0f : kFar;
    }
    ++kept.count;
}

bool overlaps_any(const Kept& kept, Box box, float box_area, float threshold) {
    const float *x1 = kept.memory, *y1 = x1 + kept.capacity, *x2 = y1 + kept.capacity, *y2 = x2 + kept.capacity,
                *areas = y2 + kept.capacity;
    for (int64_t start = 0; start < kept.count; start += Kept::kBlock) {
        int hit = 0;
        for (int64_t k = start; k < start + Kept::kBlock; ++k)
            hit |= iou(box, box_area, {x1[k], y1[k], x2[k], y2[k]}, areas[k]) > threshold;
        if (hit) return true;
    }
    return false;
}

}  // namespace

}  // namespace rdn::cpu
