// Checks, dispatch and call of the cosine attention's kernels; their faces and documentation are in
// rdn_engine/kernels/cpu/cosine.py.
#include "rdn/cosine.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <tuple>

#include "checks.h"
#include "cpu/isa.h"

namespace rdn {

void bind_cosine(py::module_& module);

namespace {

// Messages are made where something is wrong alone: to name a dtype is slow, and calls are many.

// query, keys, values, unit, unit_panels
using BankArrays = std::tuple<py::array, py::array, py::array, py::array, py::array>;
// values, normaliser, peak
using SumsArrays = std::tuple<py::array, py::array, py::array>;

std::string named(const std::string& name, int64_t size) {
    return name + " = " + std::to_string(size);
}

CosineBank check_bank(BankArrays& arrays) {
    auto& [query, keys, values, unit, unit_panels] = arrays;
    CosineBank bank{};
    if (values.ndim() != 4 || values.shape(1) < 1 || values.shape(2) % kPanel != 0 || values.shape(3) < 1 ||
        values.shape(3) % 16 != 0)
        throw py::value_error("wanted values [slots, M >= 1, C, d], C and d multiples of 16, got " + describe(values));
    bank.slots = values.shape(0), bank.heads = values.shape(1), bank.capacity = values.shape(2);
    bank.head_dim = values.shape(3);
    if (unit.ndim() != 4 || unit.shape(1) < 1 || unit.shape(1) > 2)
        throw py::value_error("wanted unit [slots, 1 or 2 masks, C, M d], got " + describe(unit));
    bank.masks = unit.shape(1);
    const int64_t width = bank.width(), panels = bank.capacity / kPanel;
    const std::string slots = "[" + named("slots", bank.slots), heads = named("M", bank.heads);
    const std::string room = named("C", bank.capacity), dim = named("d", bank.head_dim), md = named("M d", width);
    const std::string masks = named("masks", bank.masks);
    bank.values = written<float>(values, {bank.slots, bank.heads, bank.capacity, bank.head_dim},
                                 "values " + slots + ", " + heads + ", " + room + ", " + dim + "]");
    bank.query = written<float>(query, {bank.slots, kAttentions, bank.heads, bank.capacity, bank.head_dim},
                                "query " + slots + ", 2, " + heads + ", " + room + ", " + dim + "]");
    bank.keys = written<float>(keys, {bank.slots, kAttentions, bank.heads, panels, bank.head_dim, kPanel},
                               "keys " + slots + ", 2, " + heads + ", C / 16 with " + room + ", " + dim + ", 16]");
    bank.unit = written<float>(unit, {bank.slots, bank.masks, bank.capacity, width},
                               "unit " + slots + ", " + masks + ", " + room + ", " + md + "]");
    bank.unit_panels =
        written<float>(unit_panels, {bank.slots, bank.masks, panels, width, kPanel},
                       "unit_panels " + slots + ", " + masks + ", C / 16 with " + room + ", " + md + ", 16]");
    return bank;
}

CosineSums check_sums(SumsArrays& arrays, const CosineBank& bank) {
    auto& [values, normaliser, peak] = arrays;
    const int64_t rows = bank.slots * bank.capacity;
    const std::string of_rows = "[2, " + named("M", bank.heads) + ", " + named("R", rows);
    CosineSums sums{};
    sums.values = written<double>(values, {kAttentions, bank.heads, rows, bank.head_dim},
                                  "values " + of_rows + ", " + named("d", bank.head_dim) + "]");
    sums.normaliser = written<double>(normaliser, {kAttentions, bank.heads, rows}, "normaliser " + of_rows + "]");
    sums.peak = written<double>(peak, {kAttentions, bank.heads, rows}, "peak " + of_rows + "]");
    return sums;
}

void check_slot(int64_t slot, const CosineBank& bank) {
    if (slot < 0 || slot >= bank.slots)
        throw py::value_error("slot must lie in 0..slots-1 with slots = " + std::to_string(bank.slots) + ", got " +
                              std::to_string(slot));
}

void check_counts(const char* name, const int64_t* counts, int64_t size, const CosineBank& bank) {
    for (int64_t i = 0; i < size; ++i)
        if (counts[i] < 0 || counts[i] > bank.capacity)
            throw py::value_error(std::string(name) + " must lie in 0..C with C = " + std::to_string(bank.capacity) +
                                  ", got " + std::to_string(counts[i]) + " at " + std::to_string(i));
}

// Frames of the bank; the number of their proposals in *total.
SupportFrames check_frames(const py::array& slots, const py::array& counts, const CosineBank& bank, int64_t* total) {
    SupportFrames frames{};
    frames.slot = checked<int64_t>(slots, {kAny}, "slots [F]");
    frames.frames = slots.shape(0);
    frames.count = checked<int64_t>(counts, {frames.frames}, "counts [" + named("F", frames.frames) + "]");
    check_counts("counts", frames.count, frames.frames, bank);
    *total = 0;
    for (int64_t f = 0; f < frames.frames; ++f) {
        check_slot(frames.slot[f], bank);
        *total += frames.count[f];
    }
    return frames;
}

py::array_t<double> linear_exact(const py::array& x, const py::array& weight, const py::array& bias, int threads) {
    LinearExact args{};
    args.weight = checked<float>(weight, {kAny, kAny, kPanel}, "weight [panels, K, 16]");
    args.depth = weight.shape(1);
    args.x = checked<float>(x, {kAny, args.depth}, "x [n, " + named("K", args.depth) + "]");
    args.rows = x.shape(0);
    args.bias = checked<double>(bias, {kAny}, "bias [columns]");
    args.columns = bias.shape(0);
    if ((args.columns + kPanel - 1) / kPanel != weight.shape(0) || args.depth <= 0)
        throw py::value_error("weight must have the panels that " + std::to_string(args.columns) +
                              " columns fill, got " + describe(weight));
    args.threads = checked_threads(threads);
    py::array_t<double> out({args.rows, args.columns});
    args.out = out.mutable_data();
    {
        py::gil_scoped_release release;
        cpu::kernels().linear_exact(args);
    }
    return out;
}

void pack_cosine(const py::array& projected_cls, const py::array& projected_reg, const py::array& score_cls,
                 const py::array& score_reg, BankArrays bank, int64_t slot, bool values_of_reg) {
    PackCosine args{};
    args.bank = check_bank(bank);
    check_slot(slot, args.bank);
    const int64_t columns = 3 * args.bank.width();
    const std::string wide = named("3 M d", columns) + "]";
    args.projected[0] = checked<double>(projected_cls, {kAny, columns}, "projected_cls [n, " + wide);
    args.rows = projected_cls.shape(0);
    if (args.rows > args.bank.capacity)
        throw py::value_error("projected_cls [n, " + wide + ": n must be at most C = " +
                              std::to_string(args.bank.capacity) + ", got " + describe(projected_cls));
    const std::string n = "[" + named("n", args.rows);
    args.projected[1] = checked<double>(projected_reg, {args.rows, columns}, "projected_reg " + n + ", " + wide);
    args.score[0] = checked<float>(score_cls, {args.rows}, "score_cls " + n + "]");
    args.score[1] = checked<float>(score_reg, {args.rows}, "score_reg " + n + "]");
    for (const float* score : args.score)
        require_each(score, args.rows, "scores must lie in 0..1", [](float s) { return s >= 0.0f && s <= 1.0f; });
    args.slot = slot, args.values_of = values_of_reg;
    py::gil_scoped_release release;
    cpu::kernels().pack_cosine(args);
}

void cosine_refine(const py::array& slots, const py::array& counts, BankArrays bank, SumsArrays sums, py::array summed,
                   py::array included, int threads) {
    CosineRefine args{};
    args.bank = check_bank(bank);
    args.sums = check_sums(sums, args.bank);
    args.slot = checked<int64_t>(slots, {kAny}, "slots [F]");
    args.frames = slots.shape(0);
    for (int64_t i = 0; i < args.frames; ++i) {
        check_slot(args.slot[i], args.bank);
        for (int64_t j = 0; j < i; ++j)
            if (args.slot[i] == args.slot[j])
                throw py::value_error("slots must be distinct, got " + std::to_string(args.slot[i]) + " at " +
                                      std::to_string(j) + " and " + std::to_string(i));
    }
    const std::string every = "[" + named("slots", args.bank.slots);
    args.count = checked<int64_t>(counts, {args.bank.slots}, "counts " + every + "]");
    args.summed = written<int64_t>(summed, {args.bank.slots}, "summed " + every + "]");
    args.included = written<int8_t>(included, {args.bank.slots, args.bank.slots}, "included " + every + ", slots]");
    check_counts("counts", args.count, args.bank.slots, args.bank);
    check_counts("summed", args.summed, args.bank.slots, args.bank);
    require_each(args.included, args.bank.slots * args.bank.slots, "included must be 0 or 1",
                 [](int8_t whether) { return whether == 0 || whether == 1; });
    args.threads = checked_threads(threads);
    py::gil_scoped_release release;
    cpu::kernels().cosine_refine(args);
}

py::tuple cosine_average(int64_t slot, int64_t rows, BankArrays bank, SumsArrays sums, const py::array& slots,
                         const py::array& counts, const py::array& thresholds, std::pair<int64_t, int64_t> omega_range,
                         bool whole, int threads) {
    CosineAverage args{};
    args.bank = check_bank(bank);
    args.sums = check_sums(sums, args.bank);
    check_slot(slot, args.bank);
    RDN_REQUIRE(
        rows >= 0 && rows <= args.bank.capacity,
        "rows must lie in 0..C with C = " + std::to_string(args.bank.capacity) + ", got " + std::to_string(rows));
    args.slot = slot, args.rows = rows;
    args.support = check_frames(slots, counts, args.bank, &args.supports);
    args.thresholds =
        checked<float>(thresholds, {args.bank.masks}, "thresholds [" + named("masks", args.bank.masks) + "]");
    args.threads = checked_threads(threads);
    std::tie(args.omega_begin, args.omega_end) = omega_range;
    RDN_REQUIRE(0 <= args.omega_begin && args.omega_begin <= args.omega_end && args.omega_end <= args.supports,
                "omega_range (a, b) must satisfy 0 <= a <= b <= S = " + std::to_string(args.supports) + ", got (" +
                    std::to_string(args.omega_begin) + ", " + std::to_string(args.omega_end) + ")");
    py::array_t<float> out({rows, 4 * args.bank.width()}), omega({rows, args.omega_end - args.omega_begin});
    py::array_t<float> weights({rows, whole ? args.supports : int64_t{0}});
    args.out = out.mutable_data();
    args.omega = omega.mutable_data();
    args.weights = whole ? weights.mutable_data() : nullptr;
    {
        py::gil_scoped_release release;
        cpu::kernels().cosine_average(args);
    }
    return py::make_tuple(out, omega, weights);
}

py::tuple local_average(const py::array& x, const py::array& boxes, const py::array& score, const py::array& past,
                        const py::array& past_length, const py::array& past_boxes, const py::array& past_score,
                        const py::array& counts, bool whole, int threads) {
    LocalAverage args{};
    args.x = checked<float>(x, {kAny, kAny}, "x [n, D]");
    args.rows = x.shape(0), args.width = x.shape(1);
    const std::string n = "[" + named("n", args.rows), d = named("D", args.width) + "]";
    args.boxes = checked<float>(boxes, {args.rows, 4}, "boxes " + n + ", 4]");
    args.score = checked<float>(score, {args.rows}, "score " + n + "]");
    args.past = checked<float>(past, {kAny, kAny, args.width}, "past [F, C, " + d);
    args.frames = past.shape(0), args.capacity = past.shape(1);
    const std::string fc = "[" + named("F", args.frames) + ", " + named("C", args.capacity);
    args.past_length = checked<double>(past_length, {args.frames, args.capacity}, "past_length " + fc + "]");
    args.past_boxes = checked<float>(past_boxes, {args.frames, args.capacity, 4}, "past_boxes " + fc + ", 4]");
    args.past_score = checked<float>(past_score, {args.frames, args.capacity}, "past_score " + fc + "]");
    args.count = checked<int64_t>(counts, {args.frames}, "counts [" + named("F", args.frames) + "]");
    int64_t supports = 0;
    for (int64_t f = 0; f < args.frames; supports += args.count[f++])
        RDN_REQUIRE(args.count[f] >= 0 && args.count[f] <= args.capacity,
                    "counts must lie in 0..C with C = " + std::to_string(args.capacity) + ", got " +
                        std::to_string(args.count[f]) + " at " + std::to_string(f));
    args.threads = checked_threads(threads);
    py::array_t<float> out({args.rows, args.width}), weights({args.rows, whole ? supports : int64_t{0}});
    args.out = out.mutable_data();
    args.weights = whole ? weights.mutable_data() : nullptr;
    {
        py::gil_scoped_release release;
        cpu::kernels().local_average(args);
    }
    return py::make_tuple(out, weights);
}

}  // namespace

void bind_cosine(py::module_& module) {
    module.def("linear_exact", &linear_exact);
    module.def("pack_cosine", &pack_cosine);
    module.def("cosine_refine", &cosine_refine);
    module.def("cosine_average", &cosine_average);
    module.def("local_average", &local_average);
}

}  // namespace rdn
