// Fully connected layers whose products and sums are float64: of few rows, where every later stage has their error.
#include "doubles.h"
#include "isa.h"
#include "parallel.h"
#include "product.h"
#include "rdn/cosine.h"
#include "scratch.h"

namespace rdn::cpu::RDN_ISA {
namespace {

constexpr int64_t kTask = 4;  // panels of a task

// kLanes columns of Rows rows; x [depth][Rows].
template <int Rows>
void multiply_tile(const double* x, int64_t depth, const float* weight, double* out) {
    Doubles total[Rows][2] = {};
    for (int64_t k = 0; k < depth; ++k) {
        // Of the next panel, which else would come out of memory while nothing is computed.
        __builtin_prefetch(weight + (depth + k) * kPanel, 0, 2);
        const Doubles first = load_doubles(weight + k * kPanel), second = load_doubles(weight + k * kPanel + kDoubles);
#pragma GCC unroll 12
        for (int r = 0; r < Rows; ++r) {
            const Doubles left = x[k * Rows + r] - Doubles{};
            total[r][0] = fused(left, first, total[r][0]);
            total[r][1] = fused(left, second, total[r][1]);
        }
    }
    for (int r = 0; r < Rows; ++r)
        memcpy(out + r * kLanes, total[r], sizeof total[r]);
}

template <int Rows>
void multiply_rows(int64_t rows, const double* x, int64_t depth, const float* weight, double* out) {
    if (rows == Rows) {
        multiply_tile<Rows>(x, depth, weight, out);
    } else if constexpr (Rows > 1) {
        multiply_rows<Rows - 1>(rows, x, depth, weight, out);
    }
}

// Tile after tile of `height` rows, each [depth][rows]: rows side by side would be as far apart as the depth, and often
// in the same few cache lines.
void load_tiles(const LinearExact& args, int64_t height, double* x) {
    for (int64_t row = 0; row < args.rows; row += height) {
        const int64_t rows = smaller(height, args.rows - row);
        for (int64_t r = 0; r < rows; ++r)
            for (int64_t k = 0; k < args.depth; ++k)
                x[row * args.depth + k * rows + r] = args.x[(row + r) * args.depth + k];
    }
}

void multiply_panel(const LinearExact& args, int64_t height, const double* x, int64_t panel) {
    double sums[kMostRows * kLanes];
    for (int64_t lane = 0; lane < kPanel; lane += kLanes) {
        const int64_t first = panel * kPanel + lane, columns = smaller(kLanes, args.columns - first);
        const float* weight = args.weight + panel * kPanel * args.depth + lane;
        for (int64_t row = 0; row < args.rows && columns > 0; row += height) {
            const int64_t rows = smaller(height, args.rows - row);
            multiply_rows<kMostRows>(rows, x + row * args.depth, args.depth, weight, sums);
            for (int64_t r = 0; r < rows; ++r)
                for (int64_t c = 0; c < columns; ++c)
                    args.out[(row + r) * args.columns + first + c] = sums[r * kLanes + c] + args.bias[first + c];
        }
    }
}

}  // namespace

void linear_exact(const LinearExact& args) {
    if (args.rows == 0) return;
    const int threads = worth_waking(args.threads, 4.0 * args.rows * args.depth * args.columns);
    const int64_t panels = ceil_div(args.columns, kPanel);
    const int64_t height = even_part(args.rows, kMostRows);
    Array<double> x(args.rows * args.depth);
    load_tiles(args, height, x);
    parallel_for(ceil_div(panels, kTask), threads, [&](int64_t task, int) {
        for (int64_t panel = task * kTask; panel < smaller((task + 1) * kTask, panels); ++panel)
            multiply_panel(args, height, x, panel);
    });
}

}  // namespace rdn::cpu::RDN_ISA
