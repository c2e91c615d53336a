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

struct Tile {
    Tile(const CosineBank& bank, float* memory)
        : query(memory),
          scores(query + kTileRows * kAttentions * bank.width()),
          values(scores + kMostRows * kColumns) {}

    static int64_t size(const CosineBank& bank) {
        return kTileRows * kAttentions * bank.width() + kMostRows * (kColumns + bank.head_dim);
    }

    float* query;
    float* scores;  // [kMostRows][kColumns] of one head; then softmax terms
    float* values;  // [kMostRows][head_dim]
    int64_t row[kTileRows];
    const int8_t* change[kTileRows];  // of each frame of the call
};

void clear_row(const CosineRefine& args, int64_t row) {
    const CosineBank& bank = args.bank;
    const int64_t heads = kAttentions * bank.heads;
    memset(args.sums.values + row * heads * bank.head_dim, 0, sizeof(double) * heads * bank.head_dim);
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

// Rows begin .. end of the tile, which all take part in the block.
void change_rows(const CosineRefine& args, const Block& block, int64_t begin, int64_t end, Tile& tile) {
    const CosineBank& bank = args.bank;
    const int64_t height = even_part(end - begin, kMostRows), heads = kAttentions * bank.heads;
    for (int64_t head = 0; head < heads; ++head) {
        for (int64_t first = begin; first < end; first += height) {
            const int64_t rows = smaller(height, end - first);
            score_rows(bank, rows, tile.query + (head * kTileRows + first) * bank.head_dim, block, head, tile.scores);
            float normaliser[kMostRows];
            for (int64_t r = 0; r < rows; ++r)
                normaliser[r] = weigh_row(block.count, tile.scores + r * kColumns);
            sum_values(bank, rows, tile.scores, bank.values, block, head % bank.heads, tile.values);
            for (int64_t r = 0; r < rows; ++r) {
                const int64_t state = tile.row[first + r] * heads + head;
                const double times = tile.change[first + r][block.frame];
                const float* values = tile.values + r * bank.head_dim;
                double* sums = args.sums.values + state * bank.head_dim;
                for (int64_t d = 0; d < bank.head_dim; ++d)
                    sums[d] += times * values[d];
                args.sums.normaliser[state] += times * normaliser[r];
            }
        }
    }
}

// Rows begin .. end of the tile; neighbours that take part in a block go together.
void change_tile(const CosineRefine& args, const Block* blocks, int64_t count, int64_t first, int64_t last,
                 Tile& tile) {
    for (int64_t b = 0; b < count; ++b) {
        const auto takes_part = [&](int64_t r) { return tile.change[r][blocks[b].frame] != 0; };
        for (int64_t begin = first, end = first; begin < last; begin = larger(end, begin + 1)) {
            for (end = begin; end < last && takes_part(end);)
                ++end;
            if (begin < end) change_rows(args, blocks[b], begin, end, tile);
        }
    }
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
            sums[a] = args.sums.values + state * bank.head_dim;
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
    Array<float> scratch(smaller(threads, tiles) * tile_size);
    Array<uint8_t> right(all);
    parallel_for(tiles, threads, [&](int64_t index, int worker) {
        Tile tile(args.bank, scratch + worker * tile_size);
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
