// Fully connected layers and the packing of support proposals.
#include "isa.h"
#include "parallel.h"
#include "product.h"
#include "rdn/relation.h"
#include "scratch.h"
#include "transpose.h"

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
        const Right<float> weight = {args.weight + first * all + begin * kPanel, all * kPanel, kPanel};
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

// A panel of one head: supports row .. row + kPanel. Zeros where there is none, so no key.
struct PanelRows {
    const float* data;  // of the first
    int64_t stride, count;

    Floats at(int64_t row, int64_t channel) const {
        return row < count ? load(data + row * stride + channel) : Floats{};
    }
};

// Keys: channels become rows. Returns the squared lengths' largest, or no number.
template <class Element>
float pack_keys(const PanelRows& keys, int64_t head_dim, typename Element::Word* to) {
    float longest = 0.0f;
    for (int64_t lane = 0; lane < kPanel; lane += kLanes) {
        Floats squares = {};
        for (int64_t channel = 0; channel < head_dim; channel += kLanes) {
            Floats row[kLanes];
            for (int64_t i = 0; i < kLanes; ++i)
                row[i] = keys.at(lane + i, channel);
            transpose(row);
            for (int64_t i = 0; i < kLanes; ++i) {
                squares = fused(row[i], row[i], squares);
                if constexpr (Element::kNumbers == 1)
                    store(to + (channel + i) * kPanel + lane, row[i]);
                else if (i % 2 == 0)
                    store(to + (channel + i) / 2 * kPanel + lane, bits_as<Floats>(pair_up(row[i], row[i + 1])));
            }
        }
        for (int64_t i = 0; i < kLanes; ++i)
            longest = larger_or_nan(longest, squares[i]);
    }
    return longest;
}

template <class Element>
void pack_values(const PanelRows& values, int64_t head_dim, typename Element::Word* to) {
    for (int64_t row = 0; row < kPanel; row += Element::kNumbers) {
        for (int64_t channel = 0; channel < head_dim; channel += kLanes) {
            const Floats first = values.at(row, channel);
            if constexpr (Element::kNumbers == 2)
                store(to + row / 2 * head_dim + channel, bits_as<Floats>(pair_up(first, values.at(row + 1, channel))));
            else
                store(to + row * head_dim + channel, first);
        }
    }
}

template <class Element>
void pack(const PackSupports& args) {
    using Word = typename Element::Word;
    const int64_t dim = args.heads * args.head_dim;
    for (int64_t head = 0; head < args.heads; ++head) {
        float longest = 0.0f;
        for (int64_t row = 0; row < args.capacity; row += kPanel) {
            const int64_t from = row * dim + head * args.head_dim, count = larger(0, args.rows - row);
            const int64_t to = (head * args.capacity + row) * args.head_dim / Element::kNumbers;
            longest = larger_or_nan(longest, pack_keys<Element>({args.keys + from, dim, count}, args.head_dim,
                                                                static_cast<Word*>(args.packed_keys) + to));
            pack_values<Element>({args.values + from, dim, count}, args.head_dim,
                                 static_cast<Word*>(args.packed_values) + to);
        }
        args.key_length[head] = sqrtf(longest);
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
    if (args.stored == Stored::kBfloat16)
        pack<Pair>(args);
    else if (args.stored == Stored::kFloat16)
        pack<Mixed>(args);
    else
        pack<Single>(args);
}

}  // namespace rdn::cpu::RDN_ISA
