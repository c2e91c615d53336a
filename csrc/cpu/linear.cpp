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
constexpr int kRowStride = kDepth + kPanel;

// x cut in parts of the depth -> [parts][rows][kRowStride] words: floats, or pairs of bfloat16.
int64_t words(const Linear& args) {
    return args.bfloat16 ? args.depth / 2 : args.depth;
}

int64_t parts(const Linear& args) {
    return ceil_div(words(args), kDepth);
}

// Rounded to nearest, ties to even; NaN stays NaN.
uint32_t bfloat16_bits(float x) {
    const uint32_t bits = bits_as<uint32_t>(x);
    return x == x ? (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16 : bits >> 16 | 0x40u;
}

void copy_row(const Linear& args, int64_t row, float* to) {
    const float* from = args.x + row * args.depth;
    for (int64_t part = 0; part < parts(args); ++part, to += args.rows * kRowStride) {
        const int64_t begin = part * kDepth, count = smaller(kDepth, words(args) - begin);
        if (!args.bfloat16) {
            memcpy(to + row * kRowStride, from + begin, sizeof(float) * count);
            continue;
        }
        for (int64_t k = 0; k < count; ++k) {
            const float* pair = from + 2 * (begin + k);
            to[row * kRowStride + k] = bits_as<float>(bfloat16_bits(pair[0]) | bfloat16_bits(pair[1]) << 16);
        }
    }
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

template <class Element>
void multiply_columns(const Linear& args, int64_t first, const float* x, float* sums) {
    const int64_t height = even_part(args.rows, kMostRows), all = words(args);
    const int64_t vectors = ceil_div(smaller(kColumns, args.columns - first), kPanel) * kPanel / kLanes;
    for (int64_t part = 0; part < parts(args); ++part, x += args.rows * kRowStride) {
        const int64_t begin = part * kDepth, depth = smaller(kDepth, all - begin);
        const Right weight = {args.weight + first * all + begin * kPanel, all * kPanel, kPanel};
        for (int64_t row = 0; row < args.rows; row += height) {
            const int64_t rows = smaller(height, args.rows - row);
            const float* left = x + row * kRowStride;
            float* to = sums + row * kColumns;
            if (part == 0)
                multiply<false, kRowStride, Element>(rows, left, kRowStride, weight, vectors, depth, to, kColumns);
            else
                multiply<true, kRowStride, Element>(rows, left, kRowStride, weight, vectors, depth, to, kColumns);
        }
    }
}

}  // namespace

void linear(const Linear& asked) {
    Linear args = asked;
    if (args.rows == 0) return;
    args.threads = worth_waking(asked.threads, 2.0 * args.rows * args.depth * args.columns);
    const int64_t tasks = ceil_div(args.columns, kTask);
    Array<float> rows(parts(args) * args.rows * kRowStride);
    Array<float> sums(smaller(args.threads, tasks) * args.rows * kColumns);
    parallel_for(args.rows, args.threads, [&](int64_t row, int) { copy_row(args, row, rows); });
    parallel_for(tasks, args.threads, [&](int64_t task, int worker) {
        float* mine = sums + worker * args.rows * kColumns;
        for (int64_t first = task * kTask; first < smaller((task + 1) * kTask, args.columns); first += kColumns) {
            if (args.bfloat16)
                multiply_columns<Pair>(args, first, rows, mine);
            else
                multiply_columns<Single>(args, first, rows, mine);
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
