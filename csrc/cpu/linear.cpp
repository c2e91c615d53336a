// Fully connected layers and the packing of support proposals.
#include "isa.h"
#include "parallel.h"
#include "product.h"
#include "rdn/relation.h"
#include "scratch.h"

namespace rdn::cpu::RDN_ISA {
namespace {

constexpr int64_t kDepth = 512;           // of a product: its two operands fit the second-level cache
constexpr int64_t kColumns = 2 * kPanel;  // of a product
constexpr int64_t kTask = 4 * kColumns;   // columns of a task

// A row stride that is a multiple of 4096 bytes would put all rows of a tile in the same few cache lines.
int64_t row_stride(int64_t depth) {
    return depth + kPanel;
}

void copy_rows(const Linear& args, float* rows) {
    parallel_for(args.rows, args.threads, [&](int64_t row, int) {
        memcpy(rows + row * row_stride(args.depth), args.x + row * args.depth, sizeof(float) * args.depth);
    });
}

void write_columns(const Linear& args, int64_t first, const float* sums) {
    const int64_t columns = smaller(kColumns, args.columns - first);
    for (int64_t row = 0; row < args.rows; ++row) {
        float* out = args.out + row * args.columns + first;
        for (int64_t c = 0; c < columns; ++c) {
            const float y = sums[row * kColumns + c] + args.bias[first + c];
            out[c] = args.relu && y < 0.0f ? 0.0f : y;
        }
    }
}

void multiply_columns(const Linear& args, int64_t first, const float* x, float* sums) {
    const int64_t stride = row_stride(args.depth), height = even_part(args.rows, kMostRows);
    const int64_t vectors = ceil_div(smaller(kColumns, args.columns - first), kPanel) * kPanel / kLanes;
    for (int64_t k = 0; k < args.depth; k += kDepth) {
        const int64_t depth = smaller(kDepth, args.depth - k);
        const Right weight = {args.weight + first * args.depth + k * kPanel, args.depth * kPanel, kPanel};
        for (int64_t row = 0; row < args.rows; row += height) {
            const int64_t rows = smaller(height, args.rows - row);
            const float* left = x + row * stride + k;
            float* to = sums + row * kColumns;
            if (k == 0)
                multiply<false>(rows, left, stride, weight, vectors, depth, to, kColumns);
            else
                multiply<true>(rows, left, stride, weight, vectors, depth, to, kColumns);
        }
    }
}

}  // namespace

void linear(const Linear& asked) {
    Linear args = asked;
    if (args.rows == 0) return;
    args.threads = worth_waking(asked.threads, 2.0 * args.rows * args.depth * args.columns);
    const int64_t tasks = ceil_div(args.columns, kTask);
    Array<float> rows(args.rows * row_stride(args.depth));
    Array<float> sums(smaller(args.threads, tasks) * args.rows * kColumns);
    copy_rows(args, rows);
    parallel_for(tasks, args.threads, [&](int64_t task, int worker) {
        float* mine = sums + worker * args.rows * kColumns;
        for (int64_t first = task * kTask; first < smaller((task + 1) * kTask, args.columns); first += kColumns) {
            multiply_columns(args, first, rows, mine);
            write_columns(args, first, mine);
        }
    });
}

void pack_supports(const PackSupports& args) {
    const int64_t dim = args.heads * args.head_dim;
    for (int64_t head = 0; head < args.heads; ++head) {
        float longest = 0.0f;
        for (int64_t row = 0; row < args.capacity; ++row) {
            const int64_t from = row * dim + head * args.head_dim;
            float* value = args.packed_values + (head * args.capacity + row) * args.head_dim;
            float* key =
                args.packed_keys + (head * args.capacity + row / kPanel * kPanel) * args.head_dim + row % kPanel;
            float squares = 0.0f;
            for (int64_t d = 0; d < args.head_dim; ++d) {
                const float k = row < args.rows ? args.keys[from + d] : 0.0f;
                key[d * kPanel] = k;
                squares += k * k;
                value[d] = row < args.rows ? args.values[from + d] : 0.0f;
            }
            longest = larger_or_nan(longest, sqrtf(squares));
        }
        args.key_length[head] = longest;
    }
}

}  // namespace rdn::cpu::RDN_ISA
