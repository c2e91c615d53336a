// Checks and calls of what follows boxes; the face and its documentation are rdn_engine/kernels/cpu/following.py.
#include "rdn/following.h"

#include <pybind11/pybind11.h>

#include <cmath>
#include <string>

#include "checks.h"
#include "cpu/isa.h"

namespace rdn {

namespace {

constexpr py::ssize_t kColours = 3;

py::tuple follow(const py::array& before, const py::array& after, const py::array& boxes, const py::array& guess) {
    Follow args{};
    args.before = checked<uint8_t>(before, {kAny, kAny, kColours}, "before [h, w, 3]");
    args.height = before.shape(0), args.width = before.shape(1);
    const std::string same = "[h = " + std::to_string(args.height) + ", w = " + std::to_string(args.width) + ", 3]";
    args.after = checked<uint8_t>(after, {args.height, args.width, kColours}, "after " + same);
    RDN_REQUIRE(args.height >= 1 && args.width >= 1, "sides of the pictures must be positive, got " + same);
    args.boxes = checked<float>(boxes, {kAny, 4}, "boxes [n, 4]");
    args.rows = boxes.shape(0);
    args.guess = checked<float>(guess, {args.rows, 2}, "guess [n = " + std::to_string(args.rows) + ", 2]");
    const auto finite = [](float number) { return std::isfinite(number); };
    require_each(args.boxes, 4 * args.rows, "boxes must be finite", finite);
    require_each(args.guess, 2 * args.rows, "guess must be finite", finite);
    for (int64_t k = 0; k < args.rows; ++k) {
        const float* box = args.boxes + 4 * k;
        RDN_REQUIRE(box[2] > box[0] && box[3] > box[1], "box " + std::to_string(k) + " must have positive sides");
    }
    py::array_t<float> moved({args.rows, static_cast<int64_t>(2)}), likeness(args.rows);
    args.moved = moved.mutable_data(), args.likeness = likeness.mutable_data();
    {
        py::gil_scoped_release release;
        cpu::kernels().follow(args);
    }
    return py::make_tuple(moved, likeness);
}

}  // namespace

void bind_following(py::module_& module) {
    module.def("follow", &follow);
}

}  // namespace rdn
