// Launchers of the CUDA kernels: raw device pointers, sizes, a stream. No framework's headers, none of CUDA's either.
//
// run(args, stream) starts the kernels on the stream and returns at once: 0, or the cudaError_t that the launch gave
// (1, cudaErrorInvalidValue, where sizes are beyond a kernel's limits, which stand beside them). Nothing is allocated,
// copied to the host or waited for, so every call can be captured in a CUDA graph; what changes from frame to frame is
// read from device memory (counts, rows, multiplicities). workspace_bytes(args) looks at the sizes alone.
//
// Arrays are dense, row-major, 16-byte aligned, float32 unless said otherwise. Boxes are x1, y1, x2, y2 in pixels of
// the network input; a side is x2 - x1 + 1. Pointers named `optional` may be null.
#pragma once

#include <cstddef>
#include <cstdint>

struct CUstream_st;

namespace rdn::cuda {

using Stream = CUstream_st*;  // cudaStream_t
using Status = int;           // cudaError_t

const char* status_text(Status status);

enum class Type : int32_t { kFloat32 = 0, kFloat16 = 1, kBFloat16 = 2 };

struct RoiPool {
    const void* feature_map;  // [batch, height, width, channels]
    const float* boxes;       // [rois, 4], the first rois_per_image of image 0, and so on; finite up to the count
    const int32_t* counts;    // [batch] RoIs of an image past its count give zeros
    Type type;                // of feature_map and out
    int64_t height, width, channels, rois, rois_per_image;
    float scale;   // map cells per pixel
    int64_t size;  // bins per side
    bool max;      // RoI max pooling instead of RoIAlign
    int64_t row;   // elements from a RoI of out to the next, size * size * channels or more
    void* out;     // [rois, row]: [size, size, channels]; what follows stays as it is
};
Status run(const RoiPool& args, Stream stream);

// Two steps: the filter depends on the sizes alone, so it is prepared once for a stream and stays in the workspace.
struct Resize {
    const uint8_t* image;   // [batch, height, row_bytes]: 3 bytes a pixel, RGB; NV12: luma
    const uint8_t* chroma;  // null, or NV12: [batch, (height + 1) / 2, row_bytes] of alternating u and v
    int64_t image_bytes, chroma_bytes, row_bytes;  // from one image to the next, from one row to the next
    int32_t yuv_matrix;                            // YuvMatrix, of NV12
    bool yuv_full;                                 // whether its bytes are 0..255
    int64_t batch, height, width, out_height, out_width;
    float mean[3], std[3];  // in the order of the output's channels
    bool bgr;               // whether the output's first channel is blue
    Type type;              // of out
    void* out;              // [batch, 3, out_height, out_width]
    void* workspace;
};
std::size_t workspace_bytes(const Resize& args);
Status prepare(const Resize& args, Stream stream);
Status run(const Resize& args, Stream stream);

struct Propose {
    const void* objectness;     // [batch, grid_height * grid_width * anchors]
    const void* deltas;         // [batch, grid_height * grid_width * anchors, 4]
    const float* cell_anchors;  // [anchors, 4] around the first cell
    Type type;                  // of objectness and deltas
    int64_t batch, grid_height, grid_width, anchors;
    float stride;
    float image_height, image_width;
    int64_t pre_nms_top_n;  // 1..8192
    int64_t max_proposals;  // 1..2048
    float nms_threshold;
    float* boxes;     // [batch, max_proposals, 4] zero past the count
    float* scores;    // [batch, max_proposals] likewise
    int32_t* counts;  // [batch]
    void* workspace;
};
std::size_t workspace_bytes(const Propose& args);
Status run(const Propose& args, Stream stream);

// A ring of encoded frames, frame n in slot n % slots, and the window that reference frame t looks at: t - T .. t + L.
struct Ring {
    const int64_t* frame;                              // [1] t, counted from 0
    const int64_t* newest;                             // [1] number of the last frame in the ring
    const int32_t* counts;                             // [slots] proposals of each frame
    int64_t slots, stride;                             // proposal k of a slot is row slot * stride + k of the storage
    int64_t frames_before, frames_ahead, num_support;  // T, L, K; T + L + 1 <= slots
    bool replicate;  // at the edges the first and the newest frame stand in for those that are not there
};

// Where a stream stands, put into device memory by value: the host may be any number of frames ahead.
struct SetNumbers {
    int64_t frame, newest;
    int64_t* numbers;  // [2] frame, newest
};
Status run(const SetNumbers& args, Stream stream);

// The rows of one frame in a ring: store copies them into the slot of frame `number`, otherwise out of it.
constexpr int kRingItems = 8;
struct RingItem {
    void* dense;                  // [planes, rows, width]
    void* ring;                   // [planes, slots, stride, width]
    Type dense_type, ring_type;   // a type that differs is rounded to
    int64_t planes, dense_plane;  // elements from one plane of `dense` to the next
    int64_t rows, stride, width;  // rows at most stride
};
struct RingCopy {
    const int64_t* number;  // [1]
    int64_t slots;
    bool store;
    int32_t* dense_count;  // [1] rows that there are; what is copied out is at most `most`
    int32_t* ring_counts;  // [slots]
    int64_t most;
    int64_t count;  // of items
    RingItem items[kRingItems];
};
Status run(const RingCopy& args, Stream stream);

// out[i] = source[rows[i]]
struct TakeRows {
    const float* source;  // [., width]
    const int32_t* rows;  // [count]
    int64_t count, width;
    float* out;  // [count, width]
};
Status run(const TakeRows& args, Stream stream);

// x + bias, in place, and its positive part where `relu`.
struct AddBias {
    void* x;  // [rows, width]
    Type type;
    const float* bias;  // [width]
    bool relu;
    int64_t rows, width;
};
Status run(const AddBias& args, Stream stream);

// The support proposals of the window in a layout that does not depend on how many there are: frame f, oldest first,
// proposal k of it, at f * frame_stride + k, with multiplicity 0 where there is none.
struct Window {
    Ring ring;
    int64_t frame_stride;  // at least K
    int32_t* rows;         // [T + L + 1, frame_stride]
    float* multiplicity;   // [T + L + 1, frame_stride]
};
Status run(const Window& args, Stream stream);

// The lists of the sliding refinement, in the order of the slots, which does not move: what the newest frame adds is
// one split of every row and every split of its own rows, and the window is a count for each split (docs/gpu.md).
struct Slide {
    Ring ring;
    int64_t frame_stride;               // at least K
    int64_t advanced, advanced_stride;  // int(K r), and room for it
    int32_t* rows;                      // [slots, frame_stride]
    float* multiplicity;                // [slots, frame_stride] 1, or 0 where there is no proposal
    float* slot_repeats;                // [slots] how often the window of t counts each frame
    int32_t* advanced_rows;             // [slots, advanced_stride]
    float* advanced_multiplicity;       // [slots, advanced_stride] how often the window of t counts each
    int32_t* new_slot;                  // [1] of the newest frame, as the next four
    int32_t* new_rows;                  // [frame_stride]
    float* new_multiplicity;            // [frame_stride]
    int32_t* new_advanced_rows;         // [advanced_stride]
    int32_t* new_places;                // [advanced_stride] slot * advanced_stride + k
};
Status run(const Slide& args, Stream stream);

// The support proposals that the advanced stage refines (paper, section 3.3): the best of the whole pool, repeats
// counted, of a window in the layout above. What is not taken, past the last one, has position 0 and counts 0.
struct SampleAdvanced {
    const float* objectness;    // [storage] by row
    const int32_t* rows;        // [frames, frame_stride]
    const float* multiplicity;  // [frames, frame_stride] whole numbers; 0 leaves one out
    int64_t frames, frame_stride, num_support;
    double ratio;
    int64_t capacity;     // of the outputs: advanced_capacity(args), a multiple of 16
    int32_t* positions;   // [capacity] into rows; ascending
    int32_t* taken_rows;  // [capacity] rows[positions]
    float* counted;       // [capacity] how often each counts
};
int64_t advanced_capacity(const SampleAdvanced& args);
Status run(const SampleAdvanced& args, Stream stream);

struct Detect {
    const void* logits;            // [batch, rows, classes + 1] background first
    const void* deltas;            // [batch, rows, 4 * (classes + 1)]
    const float* boxes;            // [batch, rows, 4]
    const int32_t* row_counts;     // [batch] rows of an image past its count do not take part
    Type type;                     // of logits and deltas
    int64_t batch, rows, classes;  // rows 1..8192
    float image_height, image_width;
    float box_weights[4];  // of dx, dy, dw, dh
    float score_threshold, nms_threshold;
    int64_t max_detections;   // 1..2048
    double scale_x, scale_y;  // from pixels of the network input to those that xyxy is wanted in
    float* xyxy;              // [batch, max_detections, 4] zero past the count, as the others
    float* confidence;        // [batch, max_detections] descending
    int32_t* class_id;        // [batch, max_detections] 0 is the first foreground class
    int32_t* proposal;        // [batch, max_detections] row that each comes from
    int32_t* counts;          // [batch]
    void* workspace;
};
std::size_t workspace_bytes(const Detect& args);
Status run(const Detect& args, Stream stream);

// ---- the relation module (paper, eq. 1 to 4; DESIGN, section 2), in steps
//
// RelationAttention attends to its supports in splits, so that few rows fill the machine, or so that what one frame of
// the window contributes can be kept (the sliding refinement). CombineRelation adds the splits up. Float32 is computed
// in float32, with the geometry found in the kernel. Float16 is computed on tensor cores with float32 sums;
// RelationGates finds its geometry beforehand, once for modules that share boxes.

// What the supports of a window are, to all of these.
struct Supports {
    const float* boxes;         // [storage, 4]
    const int32_t* rows;        // [count] in 0..storage-1; null: 0, 1, 2, ...
    const float* multiplicity;  // [count] how often each counts; 0 leaves it out
    int64_t count;
};

// The rows that look at them.
struct Queries {
    const float* boxes;   // [storage, 4]
    const int32_t* rows;  // [count] in 0..storage-1; null: 0, 1, 2, ...
    int64_t count;
};

// 64 exp(log(relu(Wg.E + b) + 1e-6)) as float16: the factor keeps the smallest value a normal number.
struct RelationGates {
    Queries queries;
    Supports supports;             // count a multiple of 16; multiplicity is not read
    const float* geometry_weight;  // [modules, heads, 64]
    const float* geometry_bias;    // [modules, heads]
    int64_t modules, heads;        // modules 1 or 2
    void* gates;                   // float16 [modules, heads, queries, supports]
    void* workspace;
};
std::size_t workspace_bytes(const RelationGates& args);  // of queries.count and supports.count
Status run(const RelationGates& args, Stream stream);

struct RelationAttention {
    Queries queries;
    Supports supports;
    const void* query;             // [query storage, heads * head_dim] not yet divided by sqrt(head_dim)
    const void* keys;              // [support storage, heads * head_dim]
    const void* values;            // [support storage, heads * head_dim]
    const float* geometry_weight;  // [heads, 64] float32 only
    const float* geometry_bias;    // [heads] float32 only
    const void* gates;             // float16 only: [heads, queries, supports] of RelationGates
    Type type;                     // of query, keys and values: float32, or float16 with counts and splits in sixteens
    int64_t heads, head_dim;       // float32: head_dim a multiple of 16 up to 128; float16: 16, 32, 64 or 128
    int64_t split_size;            // supports of one split
    const int32_t* query_places;   // [queries] rows of the partial results; null: 0, 1, 2, ...
    const int32_t* split_places;   // [splits] likewise
    int64_t places;                // rows of a split in the partial results
    float* partial;                // [split places, places, heads * head_dim] softmax average of the split
    float* partial_weight;         // [split places, places, heads, 2] base-2 maximum, sum relative to it
    void* workspace;               // float32 only: as RelationGates'
};
Status run(const RelationAttention& args, Stream stream);

struct CombineRelation {
    const float* partial;         // [splits, rows, heads * head_dim]
    const float* partial_weight;  // [splits, rows, heads, 2]
    const float* split_count;     // [splits] how often each counts, 0: not read at all; null: once
    int64_t splits, rows, heads, head_dim;
    const float* value_bias;       // [heads * head_dim] added where there is a support
    const void* residual;          // [residual storage, heads * head_dim] optional
    const int32_t* residual_rows;  // [rows] optional
    Type type;                     // of residual and out
    void* out;                     // [rows, heads * head_dim]; zeros (and the residual) where there is no support
    float* weight;                 // [rows, heads, 2] optional: maximum and sum of all splits, for RelationOmega
};
Status run(const CombineRelation& args, Stream stream);

// The softmax weights themselves, averaged over the heads, multiplicity included.
struct RelationOmega {
    RelationAttention attention;  // its outputs are not read
    const float* weight;          // [queries, heads, 2] of CombineRelation
    int64_t begin, end;           // supports whose weights are wanted; float16: both multiples of 16
    float* omega;                 // [queries, end - begin]
};
Status run(const RelationOmega& args, Stream stream);

}  // namespace rdn::cuda
