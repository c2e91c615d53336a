// Where what a box shows has gone to in a later picture.
#pragma once

#include <cstdint>

namespace rdn {

struct Follow {
    const uint8_t* before;  // [height, width, 3] colours of the picture that the boxes lie on
    const uint8_t* after;   // [height, width, 3] of the one in which they are looked for
    int64_t height, width;
    const float* boxes;  // [rows, 4] x1, y1, x2, y2: edges, in pixels of the pictures; wider and higher than 0
    const float* guess;  // [rows, 2] x, y: where each is looked for first, pixels from where it was
    int64_t rows;
    float* moved;     // [rows, 2] x, y, pixels from where it was
    float* likeness;  // [rows] -1..1
};

// A box and its margin, kAround times as wide and high, is cut into kCells x kCells cells, and the means of the picture
// over each are compared with those of as many cells elsewhere: in steps of a cell up to kReach from the guess, and
// between them by the parabola through three of them.
constexpr int64_t kCells = 12, kReach = 8;
constexpr float kAround = 1.2f;

}  // namespace rdn
