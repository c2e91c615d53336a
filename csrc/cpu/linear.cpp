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

void copy_row(const Linear& args, int64_t row, float* to) {
    const float* from = args.x + row * args.depth;
    for (int64_t part = 0; part < parts(args); ++part, to += args.rows * kRowStride) {
        const int64_t begin = part * kDepth, count = smaller(kDepth, words(args) - begin);
        if (!args.bfloat16) {
            memcpy(to + row * kRowStride, from + begin, sizeof(float) * count);
            continue;
        }
        const float* numbers = from + 2 * begin;
        int64_t k = 0;
        for (; k + kLanes <= count; k += kLanes)
            store(to + row * kRowStride + k,
                  bits_as<Floats>(round_pairs(load(numbers + 2 * k), load(numbers + 2 * k + kLanes))));
        for (; k < count; ++k)
            to[row * kRowStride + k] = bits_as<float>(static_cast<uint32_t>(bfloat16_bits(numbers[2 * k])) |
                                                      static_cast<uint32_t>(bfloat16_bits(numbers[2 * k + 1])) << 16);
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

// One head of one support. Zeros where there is none: no key.
void pack_floats(const PackSupports& args, int64_t head, int64_t row, const float* key, const float* value) {
    const int64_t panel = head * args.capacity + row / kPanel * kPanel;
    float* packed_key = args.packed_keys + panel * args.head_dim + row % kPanel;
    float* packed_value = args.packed_values + (head * args.capacity + row) * args.head_dim;
    for (int64_t d = 0; d < args.head_dim; ++d) {
        packed_key[d * kPanel] = key ? key[d] : 0.0f;
        packed_value[d] = key ? value[d] : 0.0f;
    }
}

void pack_words(const PackSupports& args, int64_t head, int64_t row, const float* key, const float* value) {
    const int64_t panel = head * args.capacity + row / kPanel * kPanel;
    auto* packed_key = reinterpret_cast<uint16_t*>(args.packed_keys) + panel * args.head_dim + row % kPanel * 2;
    auto* packed_value = reinterpret_cast<uint16_t*>(args.packed_values) +
                         (head * args.capacity + row / 2 * 2) * args.head_dim + row % 2;
    for (int64_t d = 0; d < args.head_dim; ++d) {
        packed_key[d / 2 * 2 * kPanel + d % 2] = key ? bfloat16_bits(key[d]) : 0;
        packed_value[2 * d] = key ? bfloat16_bits(value[d]) : 0;
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
            const bool taken = row < args.rows;
            const float* key = args.keys + row * dim + head * args.head_dim;
            const float* value = args.values + row * dim + head * args.head_dim;
            if (args.bfloat16)
                pack_words(args, head, row, taken ? key : nullptr, value);
            else
                pack_floats(args, head, row, taken ? key : nullptr, value);
            float squares = 0.0f;
            for (int64_t d = 0; taken && d < args.head_dim; ++d)
                squares += key[d] * key[d];
            longest = larger_or_nan(longest, sqrtf(squares));
        }
        args.key_length[head] = longest;
    }
}

}  // namespace rdn::cpu::RDN_ISA
