// Cosine attention of a window's rows with its proposals, by what changed since the last window.
//
// A frame's part of a row's sums is computed in float32, always by the same operations, and added to sums in float64:
// what is added once and subtracted once leaves nothing behind.
#include "cosine.h"
#include "isa.h"
#include "parallel.h"

namespace rdn::cpu::RDN_ISA {
namespace {

constexpr double kLeft = 1e-6;  // part of the largest normaliser that must be left

// A row of the bank, and which of the call's slots it is of.
struct Row {
    int64_t row, of;
};

// The call's rows first .. first + rows, in one tile.
struct Task {
    int64_t first, rows;
};

// Neighbours of a tile, first .. last, that take part in a block.
struct Run {
    int64_t block, first, last;
};

struct Tile {
    Tile(const CosineBank& bank, float* memory, Run* runs)
        : query(memory),
          scores(query + kTileRows * kAttentions * bank.width()),
          values(scores + kMostRows * kColumns),
          runs(runs) {}

    static int64_t size(const CosineBank& bank) {
        return kTileRows * kAttentions * bank.width() + kMostRows * (kColumns + bank.head_dim);
    }
    static int64_t most_runs(int64_t blocks) { return blocks * (kTileRows / 2); }

    float* query;
    float* scores;  // [kMostRows][kColumns] of one head; then softmax terms
    float* values;  // [kMostRows][head_dim]
    Run* runs;      // [most_runs]
    int64_t row[kTileRows];
    const int8_t* change[kTileRows];  // of each frame of the call
};

// head counts both attentions' heads.
double* row_sums(const CosineRefine& args, int64_t head, int64_t row) {
    return args.sums.values + (head * args.bank.slots * args.bank.capacity + row) * args.bank.head_dim;
}

void clear_row(const CosineRefine& args, int64_t row) {
    const CosineBank& bank = args.bank;
    const int64_t heads = kAttentions * bank.heads;
    for (int64_t head = 0; head < heads; ++head)
        memset(row_sums(args, head, row), 0, sizeof(double) * bank.head_dim);
    memset(args.sums.normaliser + row * heads, 0, sizeof(double) * heads);
    memset(args.sums.peak + row * heads, 0, sizeof(double) * heads);
}

void load_tile(const CosineRefine& args, const Row* rows, const Task& task, Tile& tile) {
    for (int64_t r = 0; r < task.rows; ++r) {
        const Row& row = rows[task.first + r];
        load_query(args.bank, row.row, r, tile.query);
        tile.row[r] = row.row;
        tile.change[r] = args.change + row.of * args.support.frames;
        if (args.restart[row.of]) clear_row(args, row.row);
    }
}

// Scores become softmax terms, in place; returns their sum.
float weigh_row(int64_t count, float* scores) {
    Floats total = {};
    int64_t j = 0;
    for (; j + kLanes <= count; j += kLanes) {
        const Floats term = exp2_clamped(load(scores + j));
        total += term;
        store(scores + j, term);
    }
    if (j < count) {
        const Floats term = only(taken_lanes(count - j), exp2_clamped(load(scores + j)));
        total += term;
        store(scores + j, term);
    }
    return sum(total);
}

// A head of the rows of a run.
void change_rows(const CosineRefine& args, const Block& block, const Run& run, int64_t head, Tile& tile) {
    const CosineBank& bank = args.bank;
    const int64_t height = even_part(run.last - run.first, kMostRows), heads = kAttentions * bank.heads;
    for (int64_t first = run.first; first < run.last; first += height) {
        const int64_t rows = smaller(height, run.last - first);
        score_rows(bank, rows, tile.query + (head * kTileRows + first) * bank.head_dim, block, head, tile.scores);
        float normaliser[kMostRows];
        for (int64_t r = 0; r < rows; ++r)
            normaliser[r] = weigh_row(block.count, tile.scores + r * kColumns);
        sum_values(bank, rows, tile.scores, bank.values, block, head % bank.heads, tile.values);
        for (int64_t r = 0; r < rows; ++r) {
            const int64_t row = tile.row[first + r];
            const double times = tile.change[first + r][block.frame];
            const float* values = tile.values + r * bank.head_dim;
            double* sums = row_sums(args, head, row);
            for (int64_t d = 0; d < bank.head_dim; ++d)
                sums[d] += times * values[d];
            args.sums.normaliser[row * heads + head] += times * normaliser[r];
        }
    }
}

// Rows begin .. end of the tile. Head after head, so that its sums stay in the first-level cache meanwhile.
void change_tile(const CosineRefine& args, const Block* blocks, int64_t count, int64_t begin, int64_t end, Tile& tile) {
    int64_t runs = 0;
    for (int64_t b = 0; b < count; ++b) {
        const auto takes_part = [&](int64_t r) { return tile.change[r][blocks[b].frame] != 0; };
        for (int64_t first = begin, last = begin; first < end; first = larger(last, first + 1)) {
            for (last = first; last < end && takes_part(last);)
                ++last;
            if (first < last) tile.runs[runs++] = {b, first, last};
        }
    }
    for (int64_t head = 0; head < kAttentions * args.bank.heads; ++head)
        for (int64_t i = 0; i < runs; ++i)
            change_rows(args, blocks[tile.runs[i].block], tile.runs[i], head, tile);
}

// X of a row; whether enough is left of its sums.
bool finish_row(const CosineRefine& args, int64_t row) {
    const CosineBank& bank = args.bank;
    const int64_t heads = kAttentions * bank.heads, slot = row / bank.capacity, column = row % bank.capacity;
    bool right = true;
    double share[kAttentions];
    for (int64_t head = 0; head < bank.heads; ++head) {
        const double* sums[kAttentions];
        for (int64_t a = 0; a < kAttentions; ++a) {
            const int64_t state = row * heads + a * bank.heads + head;
            const double normaliser = args.sums.normaliser[state];
            if (normaliser > args.sums.peak[state]) args.sums.peak[state] = normaliser;
            right = right && normaliser > kLeft * args.sums.peak[state];
            share[a] = 0.5 / normaliser;
            sums[a] = row_sums(args, a * bank.heads + head, row);
        }
        float* to = args.sums.mean + ((slot * bank.heads + head) * bank.capacity + column) * bank.head_dim;
        float wrong = 0.0f;
        for (int64_t d = 0; d < bank.head_dim; ++d) {
            to[d] = static_cast<float>(share[0] * sums[0][d] + share[1] * sums[1][d]);
            wrong += 0.0f * to[d];
        }
        right = right && wrong == 0.0f;
    }
    return right;
}

// A pair costs each head of either attention its channels twice, and some thirty for the softmax.
double operations(const CosineRefine& args) {
    double pairs = 0;
    for (int64_t i = 0; i < args.rows.frames; ++i)
        for (int64_t f = 0; f < args.support.frames; ++f)
            if (args.change[i * args.support.frames + f] != 0)
                pairs += static_cast<double>(args.rows.count[i]) * args.support.count[f];
    return pairs * kAttentions * args.bank.heads * (4.0 * args.bank.head_dim + 30.0);
}

}  // namespace

void cosine_refine(const CosineRefine& args) {
    int64_t all = 0;
    for (int64_t i = 0; i < args.rows.frames; all += args.rows.count[i++])
        args.right[i] = 1;
    if (all == 0) return;
    Array<Row> rows(all);
    for (int64_t i = 0, at = 0; i < args.rows.frames; ++i)
        for (int64_t r = 0; r < args.rows.count[i]; ++r)
            rows[at++] = {args.rows.slot[i] * args.bank.capacity + r, i};
    const int64_t count = count_blocks(args.support, kColumns);
    Array<Block> blocks(larger(count, 1));
    cut_blocks(args.support, kColumns, blocks);
    const int threads = worth_waking(args.threads, operations(args));
    const int64_t height = tile_height(all, threads), tiles = ceil_div(all, height);
    const int64_t tile_size = Tile::size(args.bank);
    const int64_t workers = smaller(threads, tiles), most_runs = Tile::most_runs(count);
    Array<float> scratch(workers * tile_size);
    Array<Run> runs(larger(workers * most_runs, 1));
    Array<uint8_t> right(all);
    parallel_for(tiles, threads, [&](int64_t index, int worker) {
        Tile tile(args.bank, scratch + worker * tile_size, runs + worker * most_runs);
        const Task task = {index * height, smaller(height, all - index * height)};
        load_tile(args, rows, task, tile);
        change_tile(args, blocks, count, 0, task.rows, tile);
        for (int64_t r = 0; r < task.rows; ++r) {
            right[task.first + r] = finish_row(args, tile.row[r]);
            if (right[task.first + r] || args.restart[rows[task.first + r].of]) continue;
            clear_row(args, tile.row[r]);
            tile.change[r] = args.wanted;
            change_tile(args, blocks, count, r, r + 1, tile);
            right[task.first + r] = finish_row(args, tile.row[r]);
        }
    });
    for (int64_t i = 0; i < all; ++i)
        if (!right[i]) args.right[rows[i].of] = 0;
}

}  // namespace rdn::cpu::RDN_ISA
