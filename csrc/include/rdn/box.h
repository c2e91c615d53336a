// Box arithmetic (paper's detector; Faster R-CNN's parametrisation). A side is x2 - x1 + 1.
#pragma once

#include <cstdint>

#include "rdn/host_device.h"

namespace rdn {

constexpr float kLargestLogScale = 4.135166556742356f;  // log(1000 / 16): a decoded side grows at most 62.5 times

struct Box {
    float x1, y1, x2, y2;
};

RDN_HD float side(float low, float high) {
    return high - low + 1.0f;
}

// A NaN stays a NaN.
RDN_HD float clamp(float value, float low, float high) {
    return value < low ? low : (value > high ? high : value);
}

// Comparing is false for NaN, so this is too where any coordinate is one.
RDN_HD bool is_number(Box b) {
    return b.x1 == b.x1 && b.y1 == b.y1 && b.x2 == b.x2 && b.y2 == b.y2;
}

RDN_HD Box clip(Box b, float image_width, float image_height) {
    return {clamp(b.x1, 0.0f, image_width - 1.0f), clamp(b.y1, 0.0f, image_height - 1.0f),
            clamp(b.x2, 0.0f, image_width - 1.0f), clamp(b.y2, 0.0f, image_height - 1.0f)};
}

// The anchor of `cell`, counted row by row: corner [4] is the one around the first cell.
RDN_HD Box shifted_anchor(const float* corner, int64_t cell, int64_t grid_width, float stride) {
    const float x = static_cast<float>(cell % grid_width) * stride, y = static_cast<float>(cell / grid_width) * stride;
    return {corner[0] + x, corner[1] + y, corner[2] + x, corner[3] + y};
}

// delta and weights: dx, dy, dw, dh
RDN_HD Box decode(Box anchor, const float* delta, const float* weights) {
    const float width = side(anchor.x1, anchor.x2), height = side(anchor.y1, anchor.y2);
    const float cx = delta[0] / weights[0] * width + (anchor.x1 + 0.5f * width);
    const float cy = delta[1] / weights[1] * height + (anchor.y1 + 0.5f * height);
    const float dw = delta[2] / weights[2], dh = delta[3] / weights[3];
    const float half_width = 0.5f * (expf(dw > kLargestLogScale ? kLargestLogScale : dw) * width);
    const float half_height = 0.5f * (expf(dh > kLargestLogScale ? kLargestLogScale : dh) * height);
    return {cx - half_width, cy - half_height, cx + half_width - 1.0f, cy + half_height - 1.0f};
}

RDN_HD float area(Box b) {
    return side(b.x1, b.x2) * side(b.y1, b.y2);
}

// NaN, which exceeds no threshold, where both areas are zero.
RDN_HD float iou(Box a, float area_a, Box b, float area_b) {
    const float width = greater(side(greater(a.x1, b.x1), lesser(a.x2, b.x2)), 0.0f);
    const float height = greater(side(greater(a.y1, b.y1), lesser(a.y2, b.y2)), 0.0f);
    const float overlap = width * height;
    return overlap / (area_a + area_b - overlap);
}

}  // namespace rdn
