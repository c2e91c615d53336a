// Checks, dispatch and calls of the kernels; their faces and documentation are in rdn_engine/kernels/cpu/.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "checks.h"
#include "cpu/isa.h"
#include "cpu/sampling.h"
#include "recycle.h"

namespace rdn {

void bind_following(py::module_& module);  // following.cpp
void bind_linking(py::module_& module);    // linking.cpp
void bind_cosine(py::module_& module);     // cosine.cpp
void bind_relation(py::module_& module);   // relation.cpp

namespace {

using Size = std::pair<int64_t, int64_t>;  // height, width
using Floats = py::array_t<float>;
using Indices = py::array_t<int64_t>;

template <class T>
py::array_t<T> empty(std::vector<py::ssize_t> shape) {
    return py::array_t<T>(std::move(shape));
}

template <class Args>
void call(void (*kernel)(const Args&), const Args& args) {
    py::gil_scoped_release release;
    kernel(args);
}

void require_length(const std::vector<float>& values, std::size_t length, const char* name) {
    RDN_REQUIRE(values.size() == length, std::string(name) + " must have " + std::to_string(length) + " values, got " +
                                             std::to_string(values.size()));
}

void require_size(Size size, const char* name) {
    // float32 counts pixels exactly up to here
    const bool fits = size.first >= 1 && size.second >= 1 && size.first <= 1 << 24 && size.second <= 1 << 24;
    RDN_REQUIRE(fits, std::string(name) + " must lie in 1..2^24, got (" + std::to_string(size.first) + ", " +
                          std::to_string(size.second) + ")");
}

Floats resize_normalize(const py::array& image, Size size, const std::vector<float>& mean,
                        const std::vector<float>& std, bool bgr, int threads) {
    ResizeNormalize args{};
    args.image = checked<uint8_t>(image, {kAny, kAny, 3}, "image [H, W, 3]");
    args.height = image.shape(0), args.width = image.shape(1);
    require_size({args.height, args.width}, "sides of the image");
    require_size(size, "size");
    args.out_height = size.first, args.out_width = size.second;
    require_length(mean, 3, "mean");
    require_length(std, 3, "std");
    for (int c = 0; c < 3; ++c) {
        RDN_REQUIRE(std::isfinite(mean[c]), "mean must be finite, got " + std::to_string(mean[c]));
        RDN_REQUIRE(std::isfinite(std[c]) && std[c] > 0, "std must be positive, got " + std::to_string(std[c]));
        args.mean[c] = mean[c], args.std[c] = std[c];
    }
    args.bgr = bgr;
    args.threads = checked_threads(threads);
    Floats out = empty<float>({3, size.first, size.second});
    args.out = out.mutable_data();
    call(cpu::kernels().resize_normalize, args);
    return out;
}

Floats block_means(const py::array& image, Size side, int64_t most_rows) {
    BlockMeans args{};
    args.image = checked<uint8_t>(image, {kAny, kAny, 3}, "image [H, W, 3]");
    args.height = image.shape(0), args.width = image.shape(1);
    require_size({args.height, args.width}, "sides of the image");
    args.tall = side.first, args.wide = side.second;
    const bool fits = args.tall >= 1 && args.tall <= args.height && args.wide >= 1 && args.wide <= args.width;
    RDN_REQUIRE(fits, "sides of a block must lie in 1..those of the image, (" + std::to_string(args.height) + ", " +
                          std::to_string(args.width) + "), got (" + std::to_string(args.tall) + ", " +
                          std::to_string(args.wide) + ")");
    // So many bytes of 255 are the largest sum of 16 bits.
    RDN_REQUIRE(most_rows >= 1 && most_rows <= 257, "most_rows must lie in 1..257, got " + std::to_string(most_rows));
    args.most_rows = most_rows;
    Floats out = empty<float>({(args.height + args.tall - 1) / args.tall, (args.width + args.wide - 1) / args.wide, 3});
    args.out = out.mutable_data();
    call(cpu::kernels().block_means, args);
    return out;
}

py::tuple propose(const py::array& objectness, const py::array& deltas, Size grid, const py::array& cell_anchors,
                  int64_t stride, Size image_size, int64_t pre_nms_top_n, double nms_threshold, int64_t max_proposals,
                  int threads) {
    Propose args{};
    require_size(grid, "grid");
    require_size(image_size, "image_size");
    require_positive(stride, "stride");
    require_positive(pre_nms_top_n, "pre_nms_top_n");
    require_positive(max_proposals, "max_proposals");
    require_fraction(nms_threshold, "nms_threshold");
    args.cell_anchors = checked<float>(cell_anchors, {kAny, 4}, "cell_anchors [A, 4]");
    args.anchors = cell_anchors.shape(0);
    args.grid_height = grid.first, args.grid_width = grid.second;
    const int64_t per_image = grid.first * grid.second * args.anchors;
    RDN_REQUIRE(per_image < int64_t{1} << 32, "at most 2^32 anchors an image, got " + std::to_string(per_image));
    args.objectness =
        checked<float>(objectness, {kAny, per_image}, "objectness [B, H*W*A = " + std::to_string(per_image) + "]");
    args.batch = objectness.shape(0);
    args.deltas =
        checked<float>(deltas, {args.batch, per_image, 4},
                       "deltas [B = " + std::to_string(args.batch) + ", H*W*A = " + std::to_string(per_image) + ", 4]");
    args.stride = static_cast<float>(stride);
    args.image_height = static_cast<float>(image_size.first), args.image_width = static_cast<float>(image_size.second);
    args.pre_nms_top_n = pre_nms_top_n, args.max_proposals = max_proposals;
    args.nms_threshold = static_cast<float>(nms_threshold);
    args.threads = checked_threads(threads);
    Floats boxes = empty<float>({args.batch, max_proposals, 4}), scores = empty<float>({args.batch, max_proposals});
    Indices counts = empty<int64_t>({args.batch});
    args.boxes = boxes.mutable_data(), args.scores = scores.mutable_data(), args.counts = counts.mutable_data();
    call(cpu::kernels().propose, args);
    return py::make_tuple(boxes, scores, counts);
}

Floats roi_pool(const py::array& feature_map, const py::array& boxes, const py::array& image_index, double scale,
                int64_t size, bool max, int64_t row, int threads) {
    RoiPool args{};
    args.feature_map = checked<float>(feature_map, {kAny, kAny, kAny, kAny}, "feature_map [B, H, W, C]");
    args.height = feature_map.shape(1), args.width = feature_map.shape(2), args.channels = feature_map.shape(3);
    require_size({args.height, args.width}, "sides of the feature map");
    args.boxes = checked<float>(boxes, {kAny, 4}, "boxes [R, 4]");
    args.rois = boxes.shape(0);
    args.image_index =
        checked<int64_t>(image_index, {args.rois}, "image_index [R = " + std::to_string(args.rois) + "]");
    const int64_t batch = feature_map.shape(0);
    require_each(args.image_index, args.rois, ("image_index must lie in 0.." + std::to_string(batch - 1)).c_str(),
                 [&](int64_t index) { return index >= 0 && index < batch; });
    require_each(args.boxes, 4 * args.rois, "boxes must be finite", [](float value) { return std::isfinite(value); });
    RDN_REQUIRE(std::isfinite(scale) && scale > 0, "scale must be positive, got " + std::to_string(scale));
    RDN_REQUIRE(size >= 1 && size <= 1024, "size must lie in 1..1024, got " + std::to_string(size));
    RDN_REQUIRE(row >= size * size * args.channels,
                "row must hold size * size * C = " + std::to_string(size * size * args.channels) + " floats, got " +
                    std::to_string(row));
    args.scale = static_cast<float>(scale), args.size = size, args.max = max, args.row = row;
    args.threads = checked_threads(threads);
    // Never destroyed: arrays may outlive the module.
    static Recycler& recycler = *new Recycler;
    Floats out = recycler.array({args.rois, row});
    args.out = out.mutable_data();
    call(cpu::kernels().roi_pool, args);
    return out;
}

py::tuple sample_advanced(const py::array& objectness, const py::array& multiplicity, const py::array& frame_start,
                          double ratio, int64_t num_support, bool global) {
    cpu::SampleAdvanced args{};
    args.objectness = checked<float>(objectness, {kAny}, "objectness [S]");
    args.supports = objectness.shape(0);
    args.multiplicity =
        checked<float>(multiplicity, {args.supports}, "multiplicity [S = " + std::to_string(args.supports) + "]");
    args.frame_start = checked<int64_t>(frame_start, {kAny}, "frame_start [F + 1]");
    args.frames = frame_start.shape(0) - 1;
    // Arrays are printed only where a check fails: that is slow, and this runs for every frame.
    const auto got = [&] { return ", got " + py::str(frame_start).cast<std::string>(); };
    if (args.frames < 0 || args.frame_start[0] != 0 || args.frame_start[args.frames] != args.supports)
        throw py::value_error("frame_start must begin with 0 and end with S = " + std::to_string(args.supports) +
                              got());
    if (!std::is_sorted(args.frame_start, args.frame_start + args.frames + 1))
        throw py::value_error("frame_start must ascend" + got());
    require_each(args.multiplicity, args.supports, "multiplicity must be positive",
                 [](float count) { return std::isfinite(count) && count > 0; });
    require_fraction(ratio, "ratio");
    RDN_REQUIRE(num_support >= 0, "num_support must not be negative, got " + std::to_string(num_support));
    args.ratio = ratio, args.num_support = num_support, args.global = global;
    std::vector<uint64_t> keys(args.supports);
    std::vector<int64_t> positions(args.supports);
    std::vector<float> counted(args.supports);
    args.keys = keys.data(), args.positions = positions.data(), args.counted = counted.data();
    const int64_t taken = cpu::sample_advanced(args);
    return py::make_tuple(Indices(taken, positions.data()), Floats(taken, counted.data()));
}

py::tuple detect(const py::array& logits, const py::array& deltas, const py::array& boxes, Size image_size,
                 const std::vector<float>& box_weights, double score_threshold, double nms_threshold,
                 int64_t max_detections, int threads) {
    Detect args{};
    args.logits = checked<float>(logits, {kAny, kAny}, "logits [n, C + 1]");
    args.rows = logits.shape(0), args.classes = logits.shape(1) - 1;
    RDN_REQUIRE(args.classes >= 1, "logits must have a background and a foreground class, got " + describe(logits));
    RDN_REQUIRE(args.rows * args.classes < int64_t{1} << 32, "at most 2^32 scores, got logits " + describe(logits));
    const std::string rows = "n = " + std::to_string(args.rows);
    const int64_t width = 4 * (args.classes + 1);
    args.deltas =
        checked<float>(deltas, {args.rows, width}, "deltas [" + rows + ", 4 (C + 1) = " + std::to_string(width) + "]");
    args.boxes = checked<float>(boxes, {args.rows, 4}, "boxes [" + rows + ", 4]");
    require_size(image_size, "image_size");
    args.image_height = static_cast<float>(image_size.first), args.image_width = static_cast<float>(image_size.second);
    require_length(box_weights, 4, "box_weights");
    for (int k = 0; k < 4; ++k) {
        RDN_REQUIRE(std::isfinite(box_weights[k]) && box_weights[k] > 0,
                    "box_weights must be positive, got " + std::to_string(box_weights[k]));
        args.box_weights[k] = box_weights[k];
    }
    require_fraction(score_threshold, "score_threshold");
    require_fraction(nms_threshold, "nms_threshold");
    require_positive(max_detections, "max_detections");
    args.score_threshold = static_cast<float>(score_threshold), args.nms_threshold = static_cast<float>(nms_threshold);
    args.max_detections = std::min(max_detections, args.rows * args.classes);
    args.threads = checked_threads(threads);
    std::vector<float> xyxy(4 * args.max_detections), confidence(args.max_detections);
    std::vector<int64_t> class_id(args.max_detections), proposal(args.max_detections);
    int64_t count = 0;
    args.xyxy = xyxy.data(), args.confidence = confidence.data();
    args.class_id = class_id.data(), args.proposal = proposal.data(), args.count = &count;
    call(cpu::kernels().detect, args);
    return py::make_tuple(Floats(std::vector<py::ssize_t>{count, 4}, xyxy.data()), Floats(count, confidence.data()),
                          Indices(count, class_id.data()), Indices(count, proposal.data()));
}

Indices suppress(const py::array& boxes, const py::array& scores, const py::array& labels, int64_t classes,
                 int64_t top_n, double nms_threshold, int64_t most, int threads) {
    Suppress args{};
    args.boxes = checked<float>(boxes, {kAny, 4}, "boxes [n, 4]");
    args.rows = boxes.shape(0);
    RDN_REQUIRE(args.rows < int64_t{1} << 32, "at most 2^32 boxes, got " + std::to_string(args.rows));
    const std::string rows = "n = " + std::to_string(args.rows);
    args.scores = checked<float>(scores, {args.rows}, "scores [" + rows + "]");
    args.labels = checked<int64_t>(labels, {args.rows}, "labels [" + rows + "]");
    RDN_REQUIRE(classes >= 1 && classes <= 1 << 24, "classes must lie in 1..2^24, got " + std::to_string(classes));
    args.classes = classes;
    require_each(args.labels, args.rows, ("labels must lie in 0.." + std::to_string(classes - 1)).c_str(),
                 [&](int64_t label) { return label >= 0 && label < classes; });
    require_positive(top_n, "top_n");
    require_positive(most, "most");
    require_fraction(nms_threshold, "nms_threshold");
    args.top_n = top_n, args.most = std::min(most, args.rows);
    args.nms_threshold = static_cast<float>(nms_threshold);
    args.threads = checked_threads(threads);
    std::vector<int64_t> kept(args.most);
    int64_t count = 0;
    args.kept = kept.data(), args.count = &count;
    call(cpu::kernels().suppress, args);
    return Indices(count, kept.data());
}

}  // namespace

PYBIND11_MODULE(_C, module) {
    module.attr("isa") = cpu::isa_name();
    module.attr("cuda_built") = static_cast<bool>(RDN_CUDA_BUILT);
    module.def("resize_normalize", &resize_normalize);
    module.def("block_means", &block_means);
    module.def("propose", &propose);
    module.def("roi_pool", &roi_pool);
    module.def("sample_advanced", &sample_advanced);
    module.def("detect", &detect);
    module.def("suppress", &suppress);
    bind_cosine(module);
    bind_following(module);
    bind_linking(module);
    bind_relation(module);
}

}  // namespace rdn
