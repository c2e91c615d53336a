// The CUDA kernels as a module of their own, so that rdn_engine imports where there is no driver: one class for each
// struct of rdn/cuda_ops.h, made from keywords that name every field. Pointers are integers, None is a null pointer.
// Types, shapes and devices are checked in rdn_engine/kernels/cuda/; here nothing is known of them.
#include <pybind11/pybind11.h>

#include <functional>
#include <string>
#include <vector>

#include "rdn/cuda_ops.h"
#ifdef RDN_EMULATED
#include "emulator/emulator.h"
#endif

#ifndef RDN_MODULE
#define RDN_MODULE _cuda
#endif

namespace py = pybind11;

namespace rdn::cuda {
namespace {

template <class T>
void assign(T& field, const py::handle& value) {
    if constexpr (std::is_pointer_v<T>) {
        field = value.is_none() ? nullptr : reinterpret_cast<T>(value.cast<std::uintptr_t>());
    } else if constexpr (std::is_array_v<T>) {
        // Of structs there may be fewer than there is room for; another field says how many.
        constexpr bool numbers = std::is_arithmetic_v<std::remove_extent_t<T>>;
        std::size_t k = 0;
        if (numbers ? py::len(value) != std::size(field) : py::len(value) > std::size(field))
            throw py::value_error("wanted " + std::to_string(std::size(field)) + " values");
        for (const py::handle one : value)
            assign(field[k++], one);
    } else if constexpr (std::is_enum_v<T>) {
        field = static_cast<T>(value.cast<std::underlying_type_t<T>>());
    } else {
        field = value.cast<T>();
    }
}

// A class whose constructor takes every field by keyword.
template <class Args>
class Record {
  public:
    Record(py::module_& module, const char* name) : class_(module, name), name_(name) {}

    template <class T>
    Record& field(const char* name, T Args::* member) {
        setters_.push_back({name, [member](Args& args, const py::handle& value) { assign(args.*member, value); }});
        return *this;
    }

    py::class_<Args>& done() {
        class_.def(py::init([setters = setters_, name = name_](const py::kwargs& values) {
            Args args{};
            for (const Setter& setter : setters) {
                if (!values.contains(setter.name)) throw py::type_error(name + " wants " + setter.name);
                setter.set(args, values[setter.name]);
            }
            if (values.size() != setters.size())
                throw py::type_error(name + " has " + std::to_string(setters.size()) + " fields, got " +
                                     std::to_string(values.size()));
            return args;
        }));
        return class_;
    }

  private:
    struct Setter {
        const char* name;
        std::function<void(Args&, const py::handle&)> set;
    };

    py::class_<Args> class_;
    std::string name_;
    std::vector<Setter> setters_;
};

void check(Status status) {
    if (status != 0) throw std::runtime_error(std::string("CUDA: ") + status_text(status));
}

template <class Args>
void runs(py::class_<Args>& type) {
    type.def("run",
             [](const Args& args, std::uintptr_t stream) { check(run(args, reinterpret_cast<Stream>(stream))); });
}

void bind_boxes(py::module_& module) {
    auto roi_pool = Record<RoiPool>(module, "RoiPool");
    roi_pool.field("feature_map", &RoiPool::feature_map).field("boxes", &RoiPool::boxes);
    roi_pool.field("counts", &RoiPool::counts).field("type", &RoiPool::type).field("height", &RoiPool::height);
    roi_pool.field("width", &RoiPool::width).field("channels", &RoiPool::channels).field("rois", &RoiPool::rois);
    roi_pool.field("rois_per_image", &RoiPool::rois_per_image).field("scale", &RoiPool::scale);
    roi_pool.field("size", &RoiPool::size)
        .field("max", &RoiPool::max)
        .field("row", &RoiPool::row)
        .field("out", &RoiPool::out);
    runs(roi_pool.done());

    auto propose = Record<Propose>(module, "Propose");
    propose.field("objectness", &Propose::objectness).field("deltas", &Propose::deltas).field("type", &Propose::type);
    propose.field("cell_anchors", &Propose::cell_anchors).field("batch", &Propose::batch);
    propose.field("grid_height", &Propose::grid_height).field("grid_width", &Propose::grid_width);
    propose.field("anchors", &Propose::anchors).field("stride", &Propose::stride);
    propose.field("image_height", &Propose::image_height).field("image_width", &Propose::image_width);
    propose.field("pre_nms_top_n", &Propose::pre_nms_top_n).field("max_proposals", &Propose::max_proposals);
    propose.field("nms_threshold", &Propose::nms_threshold).field("boxes", &Propose::boxes);
    propose.field("scores", &Propose::scores).field("counts", &Propose::counts).field("workspace", &Propose::workspace);
    runs(propose.done());
    module.def("propose_bytes", [](int64_t batch, int64_t pre_nms_top_n) {
        Propose sizes{};
        sizes.batch = batch, sizes.pre_nms_top_n = pre_nms_top_n;
        return workspace_bytes(sizes);
    });

    auto detect = Record<Detect>(module, "Detect");
    detect.field("logits", &Detect::logits).field("deltas", &Detect::deltas).field("boxes", &Detect::boxes);
    detect.field("row_counts", &Detect::row_counts).field("type", &Detect::type).field("batch", &Detect::batch);
    detect.field("rows", &Detect::rows).field("classes", &Detect::classes);
    detect.field("image_height", &Detect::image_height).field("image_width", &Detect::image_width);
    detect.field("box_weights", &Detect::box_weights).field("score_threshold", &Detect::score_threshold);
    detect.field("nms_threshold", &Detect::nms_threshold).field("max_detections", &Detect::max_detections);
    detect.field("scale_x", &Detect::scale_x).field("scale_y", &Detect::scale_y);
    detect.field("xyxy", &Detect::xyxy).field("confidence", &Detect::confidence).field("class_id", &Detect::class_id);
    detect.field("proposal", &Detect::proposal).field("counts", &Detect::counts).field("workspace", &Detect::workspace);
    runs(detect.done());
    module.def("detect_bytes", [](int64_t batch, int64_t rows, int64_t classes, int64_t max_detections) {
        Detect sizes{};
        sizes.batch = batch, sizes.rows = rows, sizes.classes = classes, sizes.max_detections = max_detections;
        return workspace_bytes(sizes);
    });
}

void bind_resize(py::module_& module) {
    auto resize = Record<Resize>(module, "Resize");
    resize.field("image", &Resize::image).field("chroma", &Resize::chroma).field("image_bytes", &Resize::image_bytes);
    resize.field("chroma_bytes", &Resize::chroma_bytes).field("row_bytes", &Resize::row_bytes);
    resize.field("yuv_matrix", &Resize::yuv_matrix).field("yuv_full", &Resize::yuv_full);
    resize.field("batch", &Resize::batch).field("height", &Resize::height);
    resize.field("width", &Resize::width).field("out_height", &Resize::out_height);
    resize.field("out_width", &Resize::out_width).field("mean", &Resize::mean).field("std", &Resize::std);
    resize.field("bgr", &Resize::bgr).field("type", &Resize::type).field("out", &Resize::out);
    resize.field("workspace", &Resize::workspace);
    auto& type = resize.done();
    runs(type);
    type.def("workspace_bytes", [](const Resize& args) { return workspace_bytes(args); });
    type.def("prepare",
             [](const Resize& args, std::uintptr_t stream) { check(prepare(args, reinterpret_cast<Stream>(stream))); });
}

void bind_ring(py::module_& module) {
    auto numbers = Record<SetNumbers>(module, "SetNumbers");
    numbers.field("frame", &SetNumbers::frame).field("newest", &SetNumbers::newest);
    runs(numbers.field("numbers", &SetNumbers::numbers).done());

    auto item = Record<RingItem>(module, "RingItem");
    item.field("dense", &RingItem::dense).field("ring", &RingItem::ring);
    item.field("dense_type", &RingItem::dense_type).field("ring_type", &RingItem::ring_type);
    item.field("planes", &RingItem::planes).field("dense_plane", &RingItem::dense_plane);
    item.field("rows", &RingItem::rows).field("stride", &RingItem::stride).field("width", &RingItem::width).done();

    auto copy = Record<RingCopy>(module, "RingCopy");
    copy.field("number", &RingCopy::number).field("slots", &RingCopy::slots).field("store", &RingCopy::store);
    copy.field("dense_count", &RingCopy::dense_count).field("ring_counts", &RingCopy::ring_counts);
    copy.field("most", &RingCopy::most).field("count", &RingCopy::count);
    runs(copy.field("items", &RingCopy::items).done());

    auto take = Record<TakeRows>(module, "TakeRows");
    take.field("source", &TakeRows::source).field("rows", &TakeRows::rows).field("count", &TakeRows::count);
    runs(take.field("width", &TakeRows::width).field("out", &TakeRows::out).done());

    auto bias = Record<AddBias>(module, "AddBias");
    bias.field("x", &AddBias::x).field("type", &AddBias::type).field("bias", &AddBias::bias);
    runs(bias.field("relu", &AddBias::relu).field("rows", &AddBias::rows).field("width", &AddBias::width).done());
}

void bind_window(py::module_& module) {
    auto ring = Record<Ring>(module, "Ring");
    ring.field("frame", &Ring::frame).field("newest", &Ring::newest).field("counts", &Ring::counts);
    ring.field("slots", &Ring::slots).field("stride", &Ring::stride).field("frames_before", &Ring::frames_before);
    ring.field("frames_ahead", &Ring::frames_ahead).field("num_support", &Ring::num_support);
    ring.field("replicate", &Ring::replicate).done();

    auto window = Record<Window>(module, "Window");
    window.field("ring", &Window::ring).field("frame_stride", &Window::frame_stride).field("rows", &Window::rows);
    runs(window.field("multiplicity", &Window::multiplicity).done());

    auto slide = Record<Slide>(module, "Slide");
    slide.field("ring", &Slide::ring).field("frame_stride", &Slide::frame_stride).field("advanced", &Slide::advanced);
    slide.field("advanced_stride", &Slide::advanced_stride).field("rows", &Slide::rows);
    slide.field("multiplicity", &Slide::multiplicity).field("slot_repeats", &Slide::slot_repeats);
    slide.field("advanced_rows", &Slide::advanced_rows).field("advanced_multiplicity", &Slide::advanced_multiplicity);
    slide.field("new_slot", &Slide::new_slot).field("new_rows", &Slide::new_rows);
    slide.field("new_multiplicity", &Slide::new_multiplicity).field("new_advanced_rows", &Slide::new_advanced_rows);
    runs(slide.field("new_places", &Slide::new_places).done());

    auto sample = Record<SampleAdvanced>(module, "SampleAdvanced");
    sample.field("objectness", &SampleAdvanced::objectness).field("rows", &SampleAdvanced::rows);
    sample.field("multiplicity", &SampleAdvanced::multiplicity).field("frames", &SampleAdvanced::frames);
    sample.field("frame_stride", &SampleAdvanced::frame_stride).field("num_support", &SampleAdvanced::num_support);
    sample.field("ratio", &SampleAdvanced::ratio);
    sample.field("capacity", &SampleAdvanced::capacity).field("positions", &SampleAdvanced::positions);
    sample.field("taken_rows", &SampleAdvanced::taken_rows).field("counted", &SampleAdvanced::counted);
    runs(sample.done());
    module.def("advanced_capacity", [](int64_t frames, int64_t num_support, double ratio) {
        SampleAdvanced sizes{};
        sizes.frames = frames, sizes.num_support = num_support, sizes.ratio = ratio;
        return advanced_capacity(sizes);
    });
}

void bind_relation(py::module_& module) {
    auto supports = Record<Supports>(module, "Supports");
    supports.field("boxes", &Supports::boxes).field("rows", &Supports::rows);
    supports.field("multiplicity", &Supports::multiplicity).field("count", &Supports::count).done();
    auto queries = Record<Queries>(module, "Queries");
    queries.field("boxes", &Queries::boxes).field("rows", &Queries::rows).field("count", &Queries::count).done();

    auto gates = Record<RelationGates>(module, "RelationGates");
    gates.field("queries", &RelationGates::queries).field("supports", &RelationGates::supports);
    gates.field("geometry_weight", &RelationGates::geometry_weight)
        .field("geometry_bias", &RelationGates::geometry_bias);
    gates.field("modules", &RelationGates::modules).field("heads", &RelationGates::heads);
    auto& gates_type = gates.field("gates", &RelationGates::gates).field("workspace", &RelationGates::workspace).done();
    runs(gates_type);

    using Attention = RelationAttention;
    auto attention = Record<Attention>(module, "RelationAttention");
    attention.field("queries", &Attention::queries).field("supports", &Attention::supports);
    attention.field("query", &Attention::query).field("keys", &Attention::keys).field("values", &Attention::values);
    attention.field("geometry_weight", &Attention::geometry_weight).field("geometry_bias", &Attention::geometry_bias);
    attention.field("gates", &Attention::gates).field("type", &Attention::type).field("heads", &Attention::heads);
    attention.field("head_dim", &Attention::head_dim).field("split_size", &Attention::split_size);
    attention.field("query_places", &Attention::query_places).field("split_places", &Attention::split_places);
    attention.field("places", &Attention::places).field("partial", &Attention::partial);
    attention.field("partial_weight", &Attention::partial_weight).field("workspace", &Attention::workspace);
    auto& attention_type = attention.done();
    runs(attention_type);
    module.def("geometry_bytes", [](int64_t queries, int64_t supports) {
        RelationGates sizes{};
        sizes.queries.count = queries, sizes.supports.count = supports;
        return workspace_bytes(sizes);
    });

    using Combine = CombineRelation;
    auto combine = Record<Combine>(module, "CombineRelation");
    combine.field("partial", &Combine::partial).field("partial_weight", &Combine::partial_weight);
    combine.field("split_count", &Combine::split_count).field("splits", &Combine::splits).field("rows", &Combine::rows);
    combine.field("heads", &Combine::heads).field("head_dim", &Combine::head_dim);
    combine.field("value_bias", &Combine::value_bias).field("residual", &Combine::residual);
    combine.field("residual_rows", &Combine::residual_rows).field("type", &Combine::type).field("out", &Combine::out);
    runs(combine.field("weight", &Combine::weight).done());

    auto omega = Record<RelationOmega>(module, "RelationOmega");
    omega.field("attention", &RelationOmega::attention).field("weight", &RelationOmega::weight);
    omega.field("begin", &RelationOmega::begin).field("end", &RelationOmega::end);
    runs(omega.field("omega", &RelationOmega::omega).done());
}

}  // namespace

PYBIND11_MODULE(RDN_MODULE, module) {
    bind_boxes(module);
    bind_resize(module);
    bind_ring(module);
    bind_window(module);
    bind_relation(module);
#ifdef RDN_EMULATED
    module.def("set_descending", &emulator::set_descending);
#endif
}

}  // namespace rdn::cuda
