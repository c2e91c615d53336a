// Arguments of the launchers: raw pointers, sizes, threads. Shapes and ranges are checked by the callers
// (csrc/bindings/).
//
// Arrays are dense, row-major, float32 unless said otherwise. Boxes are x1, y1, x2, y2 in pixels of the network input;
// a side is x2 - x1 + 1.
#pragma once

#include <cstdint>

namespace rdn {

struct ResizeNormalize {
    const uint8_t* image;  // [height, width, 3] RGB
    int64_t height, width;
    int64_t out_height, out_width;
    float mean[3], std[3];  // in the order of the output's channels
    bool bgr;               // whether the output's first channel is blue
    float* out;             // [3, out_height, out_width]
    int threads;
};

struct BlockMeans {
    const uint8_t* image;  // [height, width, 3]
    int64_t height, width;
    int64_t tall, wide;  // of a block; the last ones end with the image
    int64_t most_rows;   // of a block that are read
    float* out;          // [ceil(height / tall), ceil(width / wide), 3]
};

struct Propose {
    const float* objectness;    // [batch, grid_height * grid_width * anchors]
    const float* deltas;        // [batch, grid_height * grid_width * anchors, 4]
    const float* cell_anchors;  // [anchors, 4] around the first cell
    int64_t batch, grid_height, grid_width, anchors;
    float stride;
    float image_height, image_width;
    int64_t pre_nms_top_n, max_proposals;
    float nms_threshold;
    float* boxes;     // [batch, max_proposals, 4] zero past the count
    float* scores;    // [batch, max_proposals] likewise
    int64_t* counts;  // [batch]
    int threads;
};

struct RoiPool {
    const float* feature_map;    // [batch, height, width, channels]
    const float* boxes;          // [rois, 4] finite
    const int64_t* image_index;  // [rois] in 0..batch-1
    int64_t height, width, channels, rois;
    float scale;   // map cells per pixel
    int64_t size;  // bins per side
    bool max;      // RoI max pooling instead of RoIAlign
    int64_t row;   // floats of a row of out, size * size * channels or more
    float* out;    // [rois, row]: [size, size, channels], then zeros
    int threads;
};

struct Detect {
    const float* logits;  // [rows, classes + 1] background first
    const float* deltas;  // [rows, 4 * (classes + 1)]
    const float* boxes;   // [rows, 4]
    int64_t rows, classes;
    float image_height, image_width;
    float box_weights[4];  // of dx, dy, dw, dh
    float score_threshold, nms_threshold;
    int64_t max_detections;
    float* xyxy;        // [max_detections, 4]
    float* confidence;  // [max_detections] descending
    int64_t* class_id;  // [max_detections] 0 is the first foreground class
    int64_t* proposal;  // [max_detections] row that it comes from
    int64_t* count;     // [1] detections written
    int threads;
};

struct Suppress {
    const float* boxes;     // [rows, 4]
    const float* scores;    // [rows] NaN: no candidate
    const int64_t* labels;  // [rows] in 0..classes-1; only boxes of one class suppress each other
    int64_t rows, classes;
    int64_t top_n, most;  // candidates, and rows kept
    float nms_threshold;
    int64_t* kept;   // [most] best first
    int64_t* count;  // [1] rows written
    int threads;
};

// rdn/relation.h
struct Linear;
struct Narrow;
struct PackSupports;
struct RelationAttention;
struct RelationRefine;
struct Widen;

// rdn/following.h
struct Follow;

// rdn/cosine.h
struct LinearExact;
struct PackCosine;
struct CosineRefine;
struct CosineAverage;
struct LocalAverage;

}  // namespace rdn
