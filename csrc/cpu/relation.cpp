// Relation attention on the CPU: one pass over the supports, with the geometry computed where it is used (attention.h).
//
// Where the lengths of query and keys bound a row's scores, its weights need no maximum (shift 0); elsewhere the
// running maximum is subtracted.
#include "rdn/relation.h"

#include "attention.h"
#include "isa.h"
#include "parallel.h"

namespace rdn::cpu::RDN_ISA {
namespace {

// The softmax of every (row, head), [rows, heads]: the values' sum lies in the tile until the end.
struct Softmax {
    explicit Softmax(int64_t size) : shift(size), normaliser(size), fixed(size) {}

    Array<float> shift;       // what is subtracted from the scores
    Array<float> normaliser;  // sum of the weights
    Array<uint8_t> fixed;     // whether the shift stays 0
};

// Longest key of each head in the call's frames; not a number where one is none.
void longest_keys(const RelationAttention& args, float* longest) {
    for (int64_t head = 0; head < args.heads; ++head) {
        longest[head] = 0.0f;
        for (int64_t f = 0; f < args.support.frames; ++f) {
            const float length = args.bank.key_length[args.support.slot[f] * args.heads + head];
            if (args.support.count[f] > 0) longest[head] = larger_or_nan(longest[head], length);
        }
    }
}

// Raises the shift to the largest score of the row; what was summed before is scaled to it.
void raise_shift(const float* scores, int64_t count, float* shift, float* normaliser, float* values, int64_t head_dim) {
    const float raised = largest_score(scores, count, *shift);
    if (!(raised > *shift)) return;
    const float shrink = exp2_clamped(*shift - raised);
    *shift = raised;
    *normaliser *= shrink;
    for (int64_t d = 0; d < head_dim; ++d)
        values[d] *= shrink;
}

// A tile of query rows: the call's rows first .. first + rows.
struct Task {
    int64_t first, rows;
};

void load_tile(const RelationAttention& args, const Module& module, const float* longest, const Task& task, Tile& tile,
               Softmax& softmax) {
    const int64_t dim = args.heads * args.head_dim;
    for (int64_t r = 0; r < task.rows; ++r) {
        const int64_t row = task.first + r;
        load_row(module, args.query + row * dim, args.boxes + 4 * row, r, tile);
        for (int64_t head = 0; head < args.heads; ++head) {
            const int64_t state = row * args.heads + head;
            softmax.fixed[state] = query_length(module, tile, r, head) * longest[head] <= kBounded;
            softmax.shift[state] = softmax.fixed[state] ? 0.0f : kNone;
            softmax.normaliser[state] = 0.0f;
        }
        if (module.pairs) pair_row(module, r, tile);
    }
}

void attend(const RelationAttention& args, const Module& module, const Blocks& blocks, const Task& task, Tile& tile,
            Softmax& softmax) {
    for (int64_t head = 0; head < args.heads; ++head)
        memset(tile.values + tile.row(head, 0) * args.head_dim, 0, sizeof(float) * task.rows * args.head_dim);
    for (int64_t b = 0; b < blocks.count; ++b) {
        const Block& block = blocks.block[b];
        gate_rows(module, blocks, b, 0, task.rows, tile);
        score_rows(module, blocks, b, 0, task.rows, tile, [&](int64_t head, int64_t first, int64_t rows) {
            for (int64_t r = 0; r < rows; ++r) {
                const int64_t state = (task.first + first + r) * args.heads + head;
                float* scores = tile.scores + r * kBlock;
                if (!softmax.fixed[state])
                    raise_shift(scores, block.count, &softmax.shift[state], &softmax.normaliser[state],
                                tile.values + tile.row(head, first + r) * args.head_dim, args.head_dim);
                softmax.normaliser[state] += weigh_row(module, tile.gates + tile.row(head, first + r) * kBlock,
                                                       block.count, softmax.shift[state], scores);
            }
            sum_values<true>(module, block, head, first, rows, tile);
        });
    }
}

// Second pass, over the wanted supports alone, when the softmax is complete.
void average_weights(const RelationAttention& args, const Module& module, const Blocks& blocks, const Task& task,
                     Tile& tile, const Softmax& softmax) {
    const int64_t wanted = args.omega_end - args.omega_begin;
    for (int64_t b = 0; b < blocks.count; ++b) {
        const Block& block = blocks.block[b];
        const int64_t begin = larger(args.omega_begin - block.position, 0);
        const int64_t end = smaller(args.omega_end - block.position, block.count);
        if (begin >= end) continue;
        gate_rows(module, blocks, b, 0, task.rows, tile);
        score_rows(module, blocks, b, 0, task.rows, tile, [&](int64_t head, int64_t first, int64_t rows) {
            for (int64_t r = 0; r < rows; ++r) {
                const int64_t row = task.first + first + r, state = row * args.heads + head;
                float* scores = tile.scores + r * kBlock;
                weigh_row<Single>(tile.gates + tile.row(head, first + r) * kBlock, block.count, softmax.shift[state],
                                  scores);
                const float share = 1.0f / (softmax.normaliser[state] * static_cast<float>(args.heads));
                float* omega = args.omega + row * wanted + block.position - args.omega_begin;
                for (int64_t j = begin; j < end; ++j)
                    omega[j] += scores[j] * share;
            }
        });
    }
}

// Softmax weights add up to 1, so the bias of every value is the bias of their mean.
void finish(const RelationAttention& args, const Task& task, const Tile& tile, const Softmax& softmax) {
    for (int64_t r = 0; r < task.rows; ++r) {
        for (int64_t head = 0; head < args.heads; ++head) {
            const int64_t state = (task.first + r) * args.heads + head, channel = head * args.head_dim;
            const float* values = tile.values + tile.row(head, r) * args.head_dim;
            const float* residual = args.residual + state * args.head_dim;
            for (int64_t d = 0; d < args.head_dim; ++d)
                args.out[state * args.head_dim + d] =
                    residual[d] + (values[d] / softmax.normaliser[state] + args.value_bias[channel + d]);
        }
    }
}

// A pair costs each head its channels twice (keys, values), and some ninety for geometry and softmax.
double operations(const RelationAttention& args, const Blocks& blocks) {
    const double pairs = static_cast<double>(args.rows) * blocks.count * kBlock * args.heads;
    return pairs * (4.0 * args.head_dim + 90.0);
}

}  // namespace

void relation_attention(const RelationAttention& args) {
    const int64_t size = args.rows * args.heads * args.head_dim;
    memset(args.omega, 0, sizeof(float) * args.rows * (args.omega_end - args.omega_begin));
    const Module module = module_of(args);
    Blocks blocks(args.support);
    if (args.rows == 0 || blocks.count == 0) {
        memcpy(args.out, args.residual, sizeof(float) * size);
        return;
    }
    fill_blocks(args.support, module, args.multiplicity, blocks);
    const int threads = worth_waking(args.threads, operations(args, blocks));
    // Fewer rows where the threads would not all find a tile.
    const int64_t height = tile_height(args.rows, threads);
    const int64_t tiles = ceil_div(args.rows, height), tile_size = Tile::size(module);
    Softmax softmax(args.rows * args.heads);
    Array<float> longest(args.heads), scratch(smaller(threads, tiles) * tile_size);
    longest_keys(args, longest);
    parallel_for(tiles, threads, [&](int64_t index, int worker) {
        Tile tile(module, scratch + worker * tile_size);
        const Task task = {index * height, smaller(height, args.rows - index * height)};
        load_tile(args, module, longest, task, tile, softmax);
        attend(args, module, blocks, task, tile, softmax);
        if (args.omega_begin < args.omega_end) average_weights(args, module, blocks, task, tile, softmax);
        finish(args, task, tile, softmax);
    });
}

}  // namespace rdn::cpu::RDN_ISA
