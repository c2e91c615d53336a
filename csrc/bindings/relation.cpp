// Checks, dispatch and call of the relation stage's kernels; their faces and documentation are in
// rdn_engine/kernels/cpu/relation.py.
#include "rdn/relation.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cmath>
#include <utility>

#include "checks.h"
#include "cpu/isa.h"
#include "cpu/prepare_geometry.h"

// numpy's float16.
template <>
struct pybind11::detail::npy_format_descriptor<rdn::Half> {
    static constexpr auto name = const_name("float16");
    static pybind11::dtype dtype() {
        static const auto* half = new pybind11::dtype("float16");  // never destroyed: it may outlive the interpreter
        return *half;
    }
};

namespace rdn {

void bind_relation(py::module_& module);

namespace {

using Floats = py::array_t<float>;

std::string sized(const std::string& text, int64_t size) {
    return text + std::to_string(size) + "]";
}

int64_t padded(int64_t heads) {
    return (heads + kPanel - 1) / kPanel * kPanel;
}

// bfloat16 comes as uint16, which numpy has.
bool is_bfloat16(const py::array& array) {
    return py::isinstance<py::array_t<uint16_t>>(array);
}

Stored stored_as(const py::array& array) {
    if (is_bfloat16(array)) return Stored::kBfloat16;
    return py::isinstance<py::array_t<Half>>(array) ? Stored::kFloat16 : Stored::kFloat32;
}

// The data of keys or values, of the shape that floats have or of the one that pairs of bfloat16 have.
using Shape = std::initializer_list<py::ssize_t>;
const void* check_stored(const py::array& array, Stored stored, const Shape& shape, const std::string& wanted,
                         const Shape& pairs, const std::string& wanted_pairs) {
    if (stored == Stored::kBfloat16) return checked<uint16_t>(array, pairs, wanted_pairs);
    if (stored == Stored::kFloat16) return checked<Half>(array, shape, wanted);
    return checked<float>(array, shape, wanted);
}

const float* words(const uint16_t* pairs) {
    return reinterpret_cast<const float*>(pairs);
}

// Of the bank's precision.
const float* check_geometry(const py::array& geometry, int64_t heads, bool bfloat16) {
    const std::string wanted = "geometry of prepare_geometry for M = " + std::to_string(heads);
    if (bfloat16_geometry(bfloat16, heads))
        return words(checked<uint16_t>(geometry, {geometry_rows(true), padded(heads), 2}, wanted));
    return checked<float>(geometry, {geometry_rows(false), padded(heads)}, wanted);
}

int64_t check_head_dim(const py::array& array, int64_t heads, const char* name) {
    RDN_REQUIRE(array.ndim() == 2 && array.shape(1) > 0 && array.shape(1) % (16 * heads) == 0,
                std::string(name) + ": D must be a multiple of 16 for each of the " + std::to_string(heads) +
                    " heads, got " + describe(array));
    return array.shape(1) / heads;
}

// keys, values, key_length, boxes
using Bank = std::tuple<py::array, py::array, py::array, py::array>;

// Its keys say how many heads there are.
int64_t check_heads(const Bank& arrays) {
    const py::array& keys = std::get<0>(arrays);
    RDN_REQUIRE(keys.ndim() == (is_bfloat16(keys) ? 6 : 5) && keys.shape(1) >= 1,
                "wanted keys [slots, M >= 1, C / 16, d, 16], or of uint16 [slots, M >= 1, C / 16, d / 2, 16, 2], got " +
                    describe(keys));
    return keys.shape(1);
}

SupportBank check_bank(const Bank& arrays, int64_t heads, int64_t dim) {
    const auto& [keys, values, key_length, boxes] = arrays;
    SupportBank bank;
    bank.stored = stored_as(keys);
    const std::string m = std::to_string(heads), d = std::to_string(dim);
    bank.keys =
        check_stored(keys, bank.stored, {kAny, heads, kAny, dim, kPanel},
                     "keys [slots, M = " + m + ", C / 16, d = " + d + ", 16]", {kAny, heads, kAny, dim / 2, kPanel, 2},
                     "keys [slots, M = " + m + ", C / 16, d / 2 with d = " + d + ", 16, 2]");
    bank.slots = keys.shape(0), bank.capacity = keys.shape(2) * kPanel;
    const std::string slots = std::to_string(bank.slots), c = std::to_string(bank.capacity);
    const std::string of = "values [slots = " + slots + ", M = " + m + ", C";
    bank.values =
        check_stored(values, bank.stored, {bank.slots, heads, bank.capacity, dim}, of + " = " + c + ", d = " + d + "]",
                     {bank.slots, heads, bank.capacity / 2, dim, 2}, of + " / 2 with C = " + c + ", d = " + d + ", 2]");
    bank.key_length =
        checked<float>(key_length, {bank.slots, heads}, "key_length [slots = " + slots + ", M = " + m + "]");
    bank.boxes =
        checked<float>(boxes, {bank.slots, bank.capacity, 4}, "boxes [slots = " + slots + ", C = " + c + ", 4]");
    return bank;
}

// Frames of the bank; the number of their supports in *total.
SupportFrames check_frames(const py::array& slots, const py::array& counts, const SupportBank& bank, int64_t* total) {
    SupportFrames frames;
    frames.slot = checked<int64_t>(slots, {kAny}, "slots [F]");
    frames.frames = slots.shape(0);
    frames.count = checked<int64_t>(counts, {frames.frames}, sized("counts [F = ", frames.frames));
    *total = 0;
    for (int64_t f = 0; f < frames.frames; ++f) {
        RDN_REQUIRE(frames.slot[f] >= 0 && frames.slot[f] < bank.slots,
                    "slots must lie in 0..slots-1 with slots = " + std::to_string(bank.slots) + ", got " +
                        std::to_string(frames.slot[f]) + " at " + std::to_string(f));
        RDN_REQUIRE(frames.count[f] >= 0 && frames.count[f] <= bank.capacity,
                    "counts must lie in 0..C with C = " + std::to_string(bank.capacity) + ", got " +
                        std::to_string(frames.count[f]) + " at " + std::to_string(f));
        *total += frames.count[f];
    }
    return frames;
}

py::tuple relation_attention(const py::array& query, const py::array& boxes, const py::array& residual,
                             const py::array& value_bias, const Bank& bank, const py::array& slots,
                             const py::array& counts, const py::array& multiplicity, const py::array& geometry,
                             std::pair<int64_t, int64_t> omega_range, int threads) {
    RelationAttention args{};
    args.heads = check_heads(bank);
    args.query = checked<float>(query, {kAny, kAny}, "query [n, D]");
    args.head_dim = check_head_dim(query, args.heads, "query [n, D]");
    args.rows = query.shape(0);
    const int64_t dim = query.shape(1);
    const std::string n = "[n = " + std::to_string(args.rows);
    args.boxes = checked<float>(boxes, {args.rows, 4}, "boxes " + n + ", 4]");
    args.residual = checked<float>(residual, {args.rows, dim}, sized("residual " + n + ", D = ", dim));
    args.value_bias = checked<float>(value_bias, {dim}, sized("value_bias [D = ", dim));
    args.bank = check_bank(bank, args.heads, args.head_dim);
    args.geometry = check_geometry(geometry, args.heads, args.bank.stored == Stored::kBfloat16);
    int64_t supports = 0;
    args.support = check_frames(slots, counts, args.bank, &supports);
    args.multiplicity = checked<float>(multiplicity, {supports}, sized("multiplicity [S = ", supports));
    for (int64_t j = 0; j < supports; ++j)
        RDN_REQUIRE(std::isfinite(args.multiplicity[j]) && args.multiplicity[j] > 0,
                    "multiplicity must be finite and positive, got " + std::to_string(args.multiplicity[j]) + " at " +
                        std::to_string(j));
    const auto [begin, end] = omega_range;
    RDN_REQUIRE(0 <= begin && begin <= end && end <= supports,
                "omega_range must be (a, b) with 0 <= a <= b <= S = " + std::to_string(supports) + ", got (" +
                    std::to_string(begin) + ", " + std::to_string(end) + ")");
    args.omega_begin = begin, args.omega_end = end;
    args.threads = checked_threads(threads);
    Floats out({args.rows, dim}), omega({args.rows, end - begin});
    args.out = out.mutable_data(), args.omega = omega.mutable_data();
    {
        py::gil_scoped_release release;
        cpu::kernels().relation_attention(args);
    }
    return py::make_tuple(out, omega);
}

py::tuple relation_refine(const py::array& query, const py::array& boxes, const py::array& residual,
                          const py::array& value_bias, const py::array& places, const Bank& bank,
                          const py::array& slots, const py::array& counts, const py::array& change,
                          const py::array& restart, const py::array& geometry, py::array values, py::array normaliser,
                          py::array peak, py::array shift, int threads) {
    RelationRefine args{};
    args.heads = check_heads(bank);
    args.query = checked<float>(query, {kAny, kAny}, "query [A, D]");
    args.head_dim = check_head_dim(query, args.heads, "query [A, D]");
    args.rows = query.shape(0);
    const int64_t dim = query.shape(1);
    const std::string a = "[A = " + std::to_string(args.rows);
    args.boxes = checked<float>(boxes, {args.rows, 4}, "boxes " + a + ", 4]");
    args.residual = checked<float>(residual, {args.rows, dim}, sized("residual " + a + ", D = ", dim));
    args.value_bias = checked<float>(value_bias, {dim}, sized("value_bias [D = ", dim));
    args.bank = check_bank(bank, args.heads, args.head_dim);
    args.geometry = check_geometry(geometry, args.heads, args.bank.stored == Stored::kBfloat16);
    args.values = written<double>(values, {kAny, dim}, sized("values [P, D = ", dim));
    const int64_t room = values.shape(0);
    const std::string p = "[P = " + std::to_string(room), m = sized(", M = ", args.heads);
    args.normaliser = written<double>(normaliser, {room, args.heads}, "normaliser " + p + m);
    args.peak = written<double>(peak, {room, args.heads}, "peak " + p + m);
    args.shift = written<float>(shift, {room, args.heads}, "shift " + p + m);
    args.place = checked<int64_t>(places, {args.rows}, "places " + a + "]");
    for (int64_t i = 0; i < args.rows; ++i)
        RDN_REQUIRE(args.place[i] >= 0 && args.place[i] < room && (i == 0 || args.place[i] != args.place[i - 1]),
                    "places must be distinct and lie in 0..P-1 with P = " + std::to_string(room) + ", got " +
                        std::to_string(args.place[i]) + " at " + std::to_string(i));
    int64_t supports = 0;
    args.support = check_frames(slots, counts, args.bank, &supports);
    args.change =
        checked<float>(change, {args.rows, args.support.frames}, sized("change " + a + ", F = ", args.support.frames));
    args.restart = checked<uint8_t>(restart, {args.rows}, "restart " + a + "]");
    args.threads = checked_threads(threads);
    Floats out({args.rows, dim});
    py::array_t<uint8_t> status(args.rows);
    args.out = out.mutable_data(), args.status = status.mutable_data();
    {
        py::gil_scoped_release release;
        cpu::kernels().relation_refine(args);
    }
    return py::make_tuple(out, status);
}

void pack_supports(const py::array& keys, const py::array& values, py::array packed_keys, py::array packed_values,
                   py::array key_length) {
    PackSupports args{};
    args.stored = stored_as(packed_keys);
    const int64_t pair = args.stored == Stored::kBfloat16 ? 2 : 1;
    RDN_REQUIRE(
        packed_keys.ndim() == (pair == 2 ? 5 : 4),
        "wanted packed_keys [M, C / 16, d, 16], or of uint16 [M, C / 16, d / 2, 16, 2], got " + describe(packed_keys));
    args.heads = packed_keys.shape(0), args.capacity = packed_keys.shape(1) * kPanel;
    args.head_dim = packed_keys.shape(2) * pair;
    const int64_t dim = args.heads * args.head_dim;
    check_stored(packed_keys, args.stored, {args.heads, kAny, args.head_dim, kPanel}, "packed_keys [M, C / 16, d, 16]",
                 {args.heads, kAny, args.head_dim / 2, kPanel, 2}, "packed_keys [M, C / 16, d / 2, 16, 2]");
    check_stored(packed_values, args.stored, {args.heads, args.capacity, args.head_dim}, "packed_values [M, C, d]",
                 {args.heads, args.capacity / 2, args.head_dim, 2}, "packed_values [M, C / 2, d, 2]");
    RDN_REQUIRE(packed_keys.writeable() && packed_values.writeable(), "wanted writable packed_keys and packed_values");
    args.packed_keys = packed_keys.mutable_data(), args.packed_values = packed_values.mutable_data();
    args.key_length = written<float>(key_length, {args.heads}, "key_length [M]");
    args.keys = checked<float>(keys, {kAny, dim}, sized("keys [n, D = ", dim));
    args.rows = keys.shape(0);
    RDN_REQUIRE(args.rows <= args.capacity,
                "keys [n, D]: n must be at most C = " + std::to_string(args.capacity) + ", got " + describe(keys));
    args.values =
        checked<float>(values, {args.rows, dim}, sized("values [n = " + std::to_string(args.rows) + ", D = ", dim));
    py::gil_scoped_release release;
    cpu::kernels().pack_supports(args);
}

void narrow(const py::array& x, py::array out) {
    Narrow args{};
    args.from = checked<float>(x, {kAny, kAny}, "x [n, D]");
    args.count = x.size();
    const std::string n = std::to_string(x.shape(0));
    args.out = written<Half>(out, {x.shape(0), x.shape(1)}, sized("out [n = " + n + ", D = ", x.shape(1)));
    py::gil_scoped_release release;
    cpu::kernels().narrow(args);
}

Floats widen(const py::array& x) {
    Widen args{};
    args.from = checked<Half>(x, {kAny, kAny}, "x [n, D]");
    args.count = x.size();
    Floats out({x.shape(0), x.shape(1)});
    args.out = out.mutable_data();
    {
        py::gil_scoped_release release;
        cpu::kernels().widen(args);
    }
    return out;
}

py::array prepare_geometry(const py::array& weight, const py::array& bias, bool bfloat16) {
    cpu::PrepareGeometry args{};
    args.weight = checked<float>(weight, {kAny, kGeometryChannels}, "weight [M, 64]");
    args.heads = weight.shape(0);
    RDN_REQUIRE(args.heads >= 1, "weight [M, 64] must have at least one head, got " + describe(weight));
    args.bias = checked<float>(bias, {args.heads}, sized("bias [M = ", args.heads));
    args.bfloat16 = bfloat16_geometry(bfloat16, args.heads);
    const int64_t rows = geometry_rows(args.bfloat16);
    py::array out = Floats({rows, padded(args.heads)});
    if (args.bfloat16) out = py::array_t<uint16_t>({rows, padded(args.heads), int64_t{2}});
    args.out = static_cast<float*>(out.mutable_data());
    py::gil_scoped_release release;
    cpu::prepare_geometry(args);
    return out;
}

// float32 weights [panels, K, 16], or bfloat16 ones [panels, K / 2, 16, 2] as uint16.
void check_weight(const py::array& weight, Linear& args) {
    args.bfloat16 = is_bfloat16(weight);
    if (args.bfloat16) {
        args.weight = words(checked<uint16_t>(weight, {kAny, kAny, kPanel, 2}, "weight [panels, K / 2, 16, 2]"));
    } else {
        args.weight = checked<float>(weight, {kAny, kAny, kPanel}, "weight [panels, K, 16]");
    }
    args.depth = weight.shape(1) * (args.bfloat16 ? 2 : 1);
}

Floats linear(const py::array& x, const py::array& weight, const py::array& bias, bool relu, int threads) {
    Linear args{};
    check_weight(weight, args);
    args.x = checked<float>(x, {kAny, args.depth}, sized("x [n, K = ", args.depth));
    args.rows = x.shape(0);
    args.bias = checked<float>(bias, {kAny}, "bias [columns]");
    args.columns = bias.shape(0);
    RDN_REQUIRE(
        (args.columns + kPanel - 1) / kPanel == weight.shape(0) && args.depth > 0,
        "weight must have the panels that " + std::to_string(args.columns) + " columns fill, got " + describe(weight));
    args.relu = relu;
    args.threads = checked_threads(threads);
    Floats out({args.rows, args.columns});
    args.out = out.mutable_data();
    {
        py::gil_scoped_release release;
        cpu::kernels().linear(args);
    }
    return out;
}

}  // namespace

void bind_relation(py::module_& module) {
    module.def("linear", &linear);
    module.def("narrow", &narrow);
    module.def("pack_supports", &pack_supports);
    module.def("prepare_geometry", &prepare_geometry);
    module.def("relation_attention", &relation_attention);
    module.def("relation_refine", &relation_refine);
    module.def("widen", &widen);
}

}  // namespace rdn
