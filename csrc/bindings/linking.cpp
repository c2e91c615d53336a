// Checks and calls of what box linking needs; the faces and their documentation are rdn_engine/kernels/cpu/linking.py.
#include "cpu/linking.h"

#include <pybind11/pybind11.h>

#include <cmath>
#include <string>
#include <vector>

#include "checks.h"

namespace rdn {

namespace {

// starts [boxes + 1] ascends from 0 to the length of what it divides.
void require_starts(const int64_t* starts, int64_t boxes, int64_t length, const char* name) {
    bool fits = starts[0] == 0 && starts[boxes] == length;
    for (int64_t box = 0; box < boxes && fits; ++box)
        fits = starts[box] <= starts[box + 1];
    RDN_REQUIRE(fits, std::string(name) + " must ascend from 0 to " + std::to_string(length));
}

py::tuple link_paths(const py::array& value, const py::array& link_start, const py::array& source,
                     const py::array& score, const py::array& rival_start, const py::array& rival) {
    cpu::LinkPaths args{};
    args.value = checked<double>(value, {kAny}, "value [n]");
    args.boxes = value.shape(0);
    const std::string starts = "[n + 1 = " + std::to_string(args.boxes + 1) + "]";
    args.link_start = checked<int64_t>(link_start, {args.boxes + 1}, "link_start " + starts);
    args.source = checked<int64_t>(source, {kAny}, "source [links]");
    args.links = source.shape(0);
    args.score = checked<double>(score, {args.links}, "score [links = " + std::to_string(args.links) + "]");
    args.rival_start = checked<int64_t>(rival_start, {args.boxes + 1}, "rival_start " + starts);
    args.rival = checked<int64_t>(rival, {kAny}, "rival [rivals]");
    const int64_t rivals = rival.shape(0), boxes = args.boxes;
    require_starts(args.link_start, boxes, args.links, "link_start");
    require_starts(args.rival_start, boxes, rivals, "rival_start");
    const auto finite = [](double number) { return std::isfinite(number); };
    require_each(args.value, boxes, "value must be finite", finite);
    require_each(args.score, args.links, "score must be finite", finite);
    require_each(args.rival, rivals, ("rival must lie in 0.." + std::to_string(boxes - 1)).c_str(),
                 [&](int64_t box) { return box >= 0 && box < boxes; });
    for (int64_t box = 0; box < boxes; ++box)
        for (int64_t k = args.link_start[box]; k < args.link_start[box + 1]; ++k) {
            const int64_t least = k > args.link_start[box] ? args.source[k - 1] + 1 : 0;
            if (args.source[k] < least || args.source[k] >= box)
                throw py::value_error("sources of box " + std::to_string(box) +
                                      " must ascend and be smaller than it, got " + std::to_string(args.source[k]));
        }
    py::array_t<int64_t> path(boxes);
    args.path = path.mutable_data();
    int64_t paths = 0;
    {
        py::gil_scoped_release release;
        paths = cpu::link_paths(args);
    }
    return py::make_tuple(path, paths);
}

template <class T>
py::array_t<T> as_array(const std::vector<T>& values) {
    return py::array_t<T>(static_cast<py::ssize_t>(values.size()), values.data());
}

py::tuple overlaps(const py::array& boxes, const py::array& classes, const py::array& other_boxes,
                   const py::array& other_classes, double limit) {
    cpu::Overlaps args{};
    args.boxes = checked<float>(boxes, {kAny, 4}, "boxes [n, 4]");
    args.rows = boxes.shape(0);
    args.classes = checked<int64_t>(classes, {args.rows}, "classes [n = " + std::to_string(args.rows) + "]");
    args.other_boxes = checked<float>(other_boxes, {kAny, 4}, "other_boxes [m, 4]");
    args.other_rows = other_boxes.shape(0);
    args.other_classes = checked<int64_t>(other_classes, {args.other_rows},
                                          "other_classes [m = " + std::to_string(args.other_rows) + "]");
    require_fraction(limit, "limit");
    args.limit = static_cast<float>(limit);
    {
        py::gil_scoped_release release;
        cpu::overlaps(args);
    }
    return py::make_tuple(as_array(args.row), as_array(args.other), as_array(args.iou));
}

py::array_t<double> group_means(const py::array& group, const py::array& score, int64_t groups, bool better_half) {
    cpu::GroupMeans args{};
    args.group = checked<int64_t>(group, {kAny}, "group [n]");
    args.count = group.shape(0);
    args.score = checked<float>(score, {args.count}, "score [n = " + std::to_string(args.count) + "]");
    RDN_REQUIRE(groups >= 0, "groups must not be negative, got " + std::to_string(groups));
    require_each(args.group, args.count, ("group must lie in 0.." + std::to_string(groups - 1)).c_str(),
                 [&](int64_t number) { return number >= 0 && number < groups; });
    require_each(args.score, args.count, "score must be finite", [](float number) { return std::isfinite(number); });
    args.groups = groups, args.better_half = better_half;
    py::array_t<double> mean(groups);
    args.mean = mean.mutable_data();
    {
        py::gil_scoped_release release;
        cpu::group_means(args);
    }
    return mean;
}

py::array_t<int64_t> assign(const py::array& gain) {
    cpu::Assignment args{};
    args.gain = checked<double>(gain, {kAny, kAny}, "gain [n, m]");
    args.rows = gain.shape(0), args.columns = gain.shape(1);
    require_each(args.gain, args.rows * args.columns, "gain must be finite",
                 [](double number) { return std::isfinite(number); });
    py::array_t<int64_t> column(args.rows);
    args.column = column.mutable_data();
    {
        py::gil_scoped_release release;
        cpu::assign(args);
    }
    return column;
}

}  // namespace

void bind_linking(py::module_& module) {
    module.def("assign", &assign);
    module.def("overlaps", &overlaps);
    module.def("group_means", &group_means);
    module.def("link_paths", &link_paths);
}

}  // namespace rdn
