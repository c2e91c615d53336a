// Sliding refinement: the advanced rows' sums over the window, of which a step changes what came and what went.
//
// A frame's part of a row's sums is computed in float32, always by the same operations, and added to sums in float64:
// what is added once and subtracted once leaves nothing behind. All parts of a row have one shift: 0 where the lengths
// of query and keys bound its scores, elsewhere the largest score that it began with. How many times more a frame
// counts is a factor of its part.
#include "attention.h"
#include "isa.h"
#include "parallel.h"

namespace rdn::cpu::RDN_ISA {
namespace {

constexpr double kLeft = 1e-6;  // part of the largest normaliser that must be left

// The call's rows first .. first + rows, in one tile.
struct Task {
    int64_t first, rows;
};

// Of a tile's rows.
struct Guard {
    bool bounded[kTileRows];  // no score is above kBounded, and the shift is 0
    bool over[kTileRows];     // some score is too far above the shift
};

bool row_bounded(const RelationRefine& args, const Module& module, int64_t position, int64_t r, const Tile& tile) {
    const float* change = args.change + position * args.support.frames;
    const float* shift = args.shift + args.place[position] * args.heads;
    for (int64_t head = 0; head < args.heads; ++head) {
        if (!args.restart[position] && shift[head] != 0.0f) return false;
        const float length = query_length(module, tile, r, head);
        for (int64_t f = 0; f < args.support.frames; ++f) {
            const float key_length = args.bank.key_length[args.support.slot[f] * args.heads + head];
            // Not `> kBounded`: a length may be no number.
            if (change[f] != 0.0f && args.support.count[f] > 0 && !(length * key_length <= kBounded)) return false;
        }
    }
    return true;
}

void load_tile(const RelationRefine& args, const Module& module, const Task& task, Tile& tile, Guard& guard) {
    const int64_t dim = args.heads * args.head_dim;
    for (int64_t r = 0; r < task.rows; ++r) {
        const int64_t position = task.first + r, place = args.place[position];
        load_row(module, args.query + position * dim, args.boxes + 4 * position, r, tile);
        guard.bounded[r] = row_bounded(args, module, position, r, tile);
        guard.over[r] = false;
        if (module.pairs) pair_row(module, r, tile);
        if (args.restart[position]) {
            memset(args.values + place * dim, 0, sizeof(double) * dim);
            memset(args.normaliser + place * args.heads, 0, sizeof(double) * args.heads);
            memset(args.peak + place * args.heads, 0, sizeof(double) * args.heads);
            for (int64_t head = 0; head < args.heads; ++head)
                args.shift[place * args.heads + head] = guard.bounded[r] ? 0.0f : kNone;
        }
    }
}

void add_part(const RelationRefine& args, const Module& module, const Block& block, const Task& task, int64_t head,
              int64_t first, int64_t rows, const float* normaliser, Tile& tile) {
    sum_values<false>(module, block, head, first, rows, tile);
    for (int64_t r = 0; r < rows; ++r) {
        const int64_t position = task.first + first + r, state = args.place[position] * args.heads + head;
        const double times = args.change[position * args.support.frames + block.frame];
        const float* values = tile.values + tile.row(head, first + r) * args.head_dim;
        double* sums = args.values + state * args.head_dim;
        for (int64_t d = 0; d < args.head_dim; ++d)
            sums[d] += times * values[d];
        args.normaliser[state] += times * normaliser[r];
    }
}

// Rows begin .. end of the tile, which all take part in the block.
void change_rows(const RelationRefine& args, const Module& module, const Blocks& blocks, int64_t b, const Task& task,
                 int64_t begin, int64_t end, Tile& tile, Guard& guard) {
    const Block& block = blocks.block[b];
    gate_rows(module, blocks, b, begin, end, tile);
    score_rows(module, blocks, b, begin, end, tile, [&](int64_t head, int64_t from, int64_t rows) {
        float normaliser[kScoredRows];
        for (int64_t r = 0; r < rows; ++r) {
            float* scores = tile.scores + r * kBlock;
            const float shift = args.shift[args.place[task.first + from + r] * args.heads + head];
            if (!guard.bounded[from + r] && largest_score(scores, block.count, shift) > shift + kBounded)
                guard.over[from + r] = true;
            normaliser[r] =
                weigh_row(module, tile.gates + tile.row(head, from + r) * kBlock, block.count, shift, scores);
        }
        add_part(args, module, block, task, head, from, rows, normaliser, tile);
    });
}

// Calls use(begin, end) for the rows of the tile that take part in block b, neighbours together.
template <class Wanted, class Use>
void for_rows(const RelationRefine& args, const Blocks& blocks, int64_t b, const Task& task, const Wanted& wanted,
              const Use& use) {
    const auto takes_part = [&](int64_t r) {
        return wanted(r) && args.change[(task.first + r) * args.support.frames + blocks.block[b].frame] != 0.0f;
    };
    for (int64_t begin = 0, end = 0; begin < task.rows; begin = larger(end, begin + 1)) {
        for (end = begin; end < task.rows && takes_part(end);)
            ++end;
        if (begin < end) use(begin, end);
    }
}

// The largest score of the rows that begin anew without a bound.
void find_shifts(const RelationRefine& args, const Module& module, const Blocks& blocks, const Task& task, Tile& tile,
                 const Guard& guard) {
    const auto wanted = [&](int64_t r) { return args.restart[task.first + r] && !guard.bounded[r]; };
    for (int64_t b = 0; b < blocks.count; ++b) {
        for_rows(args, blocks, b, task, wanted, [&](int64_t begin, int64_t end) {
            score_rows(module, blocks, b, begin, end, tile, [&](int64_t head, int64_t from, int64_t rows) {
                for (int64_t r = 0; r < rows; ++r) {
                    float& shift = args.shift[args.place[task.first + from + r] * args.heads + head];
                    shift = largest_score(tile.scores + r * kBlock, blocks.block[b].count, shift);
                }
            });
        });
    }
}

void change_tile(const RelationRefine& args, const Module& module, const Blocks& blocks, const Task& task, Tile& tile,
                 Guard& guard) {
    const auto wanted = [](int64_t) { return true; };
    for (int64_t b = 0; b < blocks.count; ++b) {
        for_rows(args, blocks, b, task, wanted, [&](int64_t begin, int64_t end) {
            change_rows(args, module, blocks, b, task, begin, end, tile, guard);
        });
    }
}

void finish(const RelationRefine& args, const Task& task, const Guard& guard) {
    const int64_t dim = args.heads * args.head_dim;
    for (int64_t position = task.first; position < task.first + task.rows; ++position) {
        const int64_t place = args.place[position];
        bool right = !guard.over[position - task.first];
        for (int64_t head = 0; head < args.heads; ++head) {
            const int64_t state = place * args.heads + head;
            const double normaliser = args.normaliser[state];
            if (normaliser > args.peak[state]) args.peak[state] = normaliser;
            right = right && normaliser > kLeft * args.peak[state] && normaliser <= 1e300;
            const double* sums = args.values + state * args.head_dim;
            const int64_t channel = head * args.head_dim;
            float* out = args.out + position * dim + channel;
            float wrong = 0.0f;
            for (int64_t d = 0; d < args.head_dim; ++d) {
                out[d] = args.residual[position * dim + channel + d] +
                         (static_cast<float>(sums[d] / normaliser) + args.value_bias[channel + d]);
                wrong += 0.0f * static_cast<float>(sums[d]);
            }
            right = right && wrong == 0.0f;
        }
        args.status[position] = right ? kRight : kCancelled;
    }
}

// As in relation.cpp, for the pairs that change.
double operations(const RelationRefine& args) {
    double pairs = 0;
    for (int64_t i = 0; i < args.rows; ++i)
        for (int64_t f = 0; f < args.support.frames; ++f)
            if (args.change[i * args.support.frames + f] != 0.0f) pairs += static_cast<double>(args.support.count[f]);
    return pairs * args.heads * (4.0 * args.head_dim + 90.0);
}

}  // namespace

void relation_refine(const RelationRefine& args) {
    if (args.rows == 0) return;
    const Module module = module_of(args);
    Blocks blocks(args.support);
    fill_blocks(args.support, module, nullptr, blocks);
    const int threads = worth_waking(args.threads, operations(args));
    const int64_t height = tile_height(args.rows, threads);
    const int64_t tiles = ceil_div(args.rows, height), tile_size = Tile::size(module);
    Array<float> scratch(smaller(threads, tiles) * tile_size);
    parallel_for(tiles, threads, [&](int64_t index, int worker) {
        Tile tile(module, scratch + worker * tile_size);
        const Task task = {index * height, smaller(height, args.rows - index * height)};
        Guard guard;
        load_tile(args, module, task, tile, guard);
        find_shifts(args, module, blocks, task, tile, guard);
        change_tile(args, module, blocks, task, tile, guard);
        finish(args, task, guard);
    });
}

}  // namespace rdn::cpu::RDN_ISA
