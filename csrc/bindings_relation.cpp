// Checks, dispatch and call of the relation attention; its face and documentation are in rdn_engine/ops.py.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cmath>
#include <utility>

#include "checks.h"
#include "cpu/isa.h"
#include "rdn/relation.h"

namespace rdn {

void bind_relation(py::module_& module);

namespace {

using Array = py::array_t<float>;

std::string sized(const char* text, int64_t size) {
    return text + std::to_string(size) + "]";
}

// Sizes first: heads from the geometry, then the channels that they divide.
void check_query(RelationAttention& args, const py::array& query, const py::array& boxes, const py::array& weight,
                 const py::array& bias) {
    args.geometry_weight = checked<float>(weight, {kAny, kGeometryChannels}, "geometry_weight [M, 64]");
    args.heads = weight.shape(0);
    require(args.heads >= 1, "geometry_weight must have at least one head, got " + describe(weight));
    args.geometry_bias = checked<float>(bias, {args.heads}, sized("geometry_bias [M = ", args.heads));
    args.query = checked<float>(query, {kAny, kAny}, "query [n, D]");
    args.rows = query.shape(0);
    args.head_dim = query.shape(1) / args.heads;
    require(args.head_dim > 0 && args.head_dim % 16 == 0 && args.head_dim * args.heads == query.shape(1),
            "query [n, D]: D must be a multiple of 16 for each of the " + std::to_string(args.heads) +
                " heads of geometry_weight, got " + describe(query));
    args.boxes = checked<float>(boxes, {args.rows, 4}, "boxes [n = " + std::to_string(args.rows) + ", 4]");
}

void check_supports(RelationAttention& args, const py::array& keys, const py::array& values, const py::array& boxes,
                    const py::array& rows, const py::array& multiplicity) {
    const int64_t dim = args.heads * args.head_dim;
    args.keys = checked<float>(keys, {kAny, dim}, sized("keys [R, D = ", dim));
    const int64_t storage = keys.shape(0);
    const std::string stored = "R = " + std::to_string(storage);
    args.values = checked<float>(values, {storage, dim}, sized(("values [" + stored + ", D = ").c_str(), dim));
    args.support_boxes = checked<float>(boxes, {storage, 4}, "support_boxes [" + stored + ", 4]");
    args.support = checked<int64_t>(rows, {kAny}, "rows [S]");
    args.supports = rows.shape(0);
    args.multiplicity = checked<float>(multiplicity, {args.supports}, sized("multiplicity [S = ", args.supports));
    for (int64_t j = 0; j < args.supports; ++j) {
        const std::string at = std::to_string(j);
        const int64_t row = args.support[j];
        require(row >= 0 && row < storage,
                "rows must lie in 0..R-1 with " + stored + ", got " + std::to_string(row) + " at " + at);
        const float count = args.multiplicity[j];
        require(std::isfinite(count) && count >= 0,
                "multiplicity must be finite and not negative, got " + std::to_string(count) + " at " + at);
    }
}

py::tuple relation_attention(const py::array& query, const py::array& boxes, const py::array& keys,
                             const py::array& values, const py::array& support_boxes, const py::array& rows,
                             const py::array& multiplicity, const py::array& geometry_weight,
                             const py::array& geometry_bias, std::pair<int64_t, int64_t> omega_range, int threads) {
    RelationAttention args{};
    check_query(args, query, boxes, geometry_weight, geometry_bias);
    check_supports(args, keys, values, support_boxes, rows, multiplicity);
    const auto [begin, end] = omega_range;
    require(0 <= begin && begin <= end && end <= args.supports,
            "omega_range must be (a, b) with 0 <= a <= b <= S = " + std::to_string(args.supports) + ", got (" +
                std::to_string(begin) + ", " + std::to_string(end) + ")");
    args.omega_begin = begin, args.omega_end = end;
    args.threads = checked_threads(threads);
    Array out({args.rows, args.heads * args.head_dim}), omega({args.rows, end - begin});
    args.out = out.mutable_data(), args.omega = omega.mutable_data();
    {
        py::gil_scoped_release release;
        cpu::kernels().relation_attention(args);
    }
    return py::make_tuple(out, omega);
}

}  // namespace

void bind_relation(py::module_& module) {
    module.def("relation_attention", &relation_attention);
}

}  // namespace rdn
