// The second round of the cosine attention: a masked, renormalised mean of what is like a proposal.
//
// Few pairs are alike. So a panel of proposals is attended to by those rows alone that take one of it, and X is made of
// a proposal's sums only where one takes it.
#include "cosine.h"
#include "isa.h"
#include "parallel.h"

namespace rdn::cpu::RDN_ISA {
namespace {

constexpr float kLog2E = 1.44269504f;
constexpr int64_t kTileRows = 8 * kMostRows;  // most rows of a task
// A cosine of `width` float32 products is this near to the exact one; nearer to a threshold it is computed in float64.
constexpr float kNear = 4e-6f;

// Rows first .. first + rows of the slot.
struct Task {
    int64_t first, rows;
};

// Rows of a task that attend to a panel are chosen: the i-th of them has the i-th place in arrays of [kTileRows] below.
struct Tile {
    Tile(const CosineBank& bank, float* memory, double* doubles)
        : query(memory),
          taken(query + kTileRows * kAttentions * bank.width()),
          weights(taken + kTileRows * kPanel),
          scores(weights + kTileRows * kPanel),
          share(scores + kMostRows * kPanel),
          x(share + kTileRows * kAttentions * bank.heads),
          part(x + kPanel * bank.width()),
          sums(doubles),
          total(sums + kTileRows * 2 * bank.width()) {}

    static int64_t size(const CosineBank& bank) {
        return kTileRows * (kAttentions * (bank.width() + bank.heads) + 2 * kPanel) + kMostRows * kPanel +
               kPanel * bank.width() + kMostRows * bank.head_dim;
    }
    static int64_t doubles(const CosineBank& bank) { return kTileRows * (2 * bank.width() + 1); }

    float* query;    // [kAttentions * heads][kTileRows][head_dim] of the chosen rows
    float* taken;    // [kTileRows][kPanel] of all rows: ones where a pair of the panel is taken
    float* weights;  // [kTileRows][kPanel] of the chosen rows: B, then exp(B) of the pairs that are taken
    float* scores;   // [kMostRows][kPanel]
    float* share;    // [kTileRows][kAttentions * heads] of all rows: of a term of a softmax in B
    float* x;        // [heads][kPanel][head_dim] X of the panel's proposals that are taken, else zeros
    float* part;     // [kMostRows][head_dim]
    double* sums;    // [kTileRows][2][width] of all rows: X and V
    double* total;   // [kTileRows] of all rows: of the weights
    int64_t chosen[kTileRows];
    int64_t count = 0;  // of the chosen
};

// Sums of a head of a row, which counts both attentions' heads.
int64_t sums_at(const CosineBank& bank, int64_t slot, int64_t head, int64_t row) {
    return (head * bank.slots + slot) * bank.capacity + row;
}

// X of a head of a row.
void give_mean(const CosineAverage& args, int64_t slot, int64_t row, int64_t head, float* to) {
    const CosineBank& bank = args.bank;
    const double* sums[kAttentions];
    Doubles share[kAttentions];
    for (int64_t a = 0; a < kAttentions; ++a) {
        const int64_t at = sums_at(bank, slot, a * bank.heads + head, row);
        sums[a] = args.sums.values + at * bank.head_dim;
        share[a] = 0.5 / args.sums.normaliser[at] - Doubles{};
    }
    for (int64_t d = 0; d < bank.head_dim; d += kDoubles)
        store(to + d, share[0] * load_doubles(sums[0] + d) + share[1] * load_doubles(sums[1] + d));
}

void load_tile(const CosineAverage& args, const Task& task, Tile& tile) {
    const int64_t heads = kAttentions * args.bank.heads;
    for (int64_t r = 0; r < task.rows; ++r)
        for (int64_t head = 0; head < heads; ++head)
            tile.share[r * heads + head] = static_cast<float>(
                1.0 / (heads * args.sums.normaliser[sums_at(args.bank, args.slot, head, task.first + r)]));
    memset(tile.sums, 0, sizeof(double) * task.rows * 2 * args.bank.width());
    memset(tile.total, 0, sizeof(double) * task.rows);
}

double exact_cosine(const CosineBank& bank, const float* a, const float* b) {
    double product = 0.0;
    for (int64_t d = 0; d < bank.width(); ++d)
        product += static_cast<double>(a[d]) * b[d];
    return product / static_cast<double>(bank.heads);
}

// Which of a panel's pairs are alike enough, of a mask; returns whether any is.
bool take_row(const CosineAverage& args, const Block& panel, int64_t mask, const float* own, const float* scores,
              float* taken) {
    const CosineBank& bank = args.bank;
    const float threshold = args.thresholds[mask];
    const float* others = bank.unit + ((panel.slot * bank.masks + mask) * bank.capacity + panel.first) * bank.width();
    Ints any = {};
    for (int64_t j = 0; j < kPanel; j += kLanes) {
        const Floats off = load(scores + j) - threshold;
        const Ints lanes = taken_lanes(panel.count - j);
        Ints alike = (off > 0.0f) & lanes;
        const Ints near = (off > -kNear) & (off < kNear) & lanes;
        for (int i = 0; i < kLanes && any_lane(near); ++i)
            if (near[i]) alike[i] = exact_cosine(bank, own, others + (j + i) * bank.width()) > threshold ? -1 : 0;
        if (mask > 0) alike &= load(taken + j) > 0.0f;
        any |= alike;
        store(taken + j, only(alike, broadcast<Floats>(1.0f)));
    }
    return any_lane(any);
}

// Chooses the rows that take a pair of the panel.
void take_pairs(const CosineAverage& args, const Block& panel, const Task& task, Tile& tile) {
    const CosineBank& bank = args.bank;
    const int64_t width = bank.width(), height = even_part(task.rows, kMostRows);
    for (int64_t mask = 0; mask < bank.masks; ++mask) {
        const int64_t at = (args.slot * bank.masks + mask) * bank.capacity + task.first;
        const float* columns =
            bank.unit_panels + ((panel.slot * bank.masks + mask) * bank.capacity + panel.first) * width;
        tile.count = 0;
        for (int64_t first = 0; first < task.rows; first += height) {
            const int64_t rows = smaller(height, task.rows - first);
            const float* own = bank.unit + (at + first) * width;
            multiply_panels<kPanel>(rows, own, width, columns, panel, tile.scores);
            for (int64_t r = 0; r < rows; ++r) {
                const float* scores = tile.scores + r * kPanel;
                if (take_row(args, panel, mask, own + r * width, scores, tile.taken + (first + r) * kPanel))
                    tile.chosen[tile.count++] = first + r;
            }
        }
        if (tile.count == 0) return;
    }
}

// B of the chosen rows: the mean over heads and attentions of complete softmaxes.
void attend(const CosineAverage& args, const Block& panel, const Task& task, Tile& tile) {
    const CosineBank& bank = args.bank;
    const int64_t heads = kAttentions * bank.heads, dim = bank.head_dim, height = even_part(tile.count, kMostRows);
    memset(tile.weights, 0, sizeof(float) * tile.count * kPanel);
    for (int64_t head = 0; head < heads; ++head) {
        float* query = tile.query + head * kTileRows * dim;
        for (int64_t i = 0; i < tile.count; ++i)
            memcpy(query + i * dim, queries(bank, args.slot, head, task.first + tile.chosen[i]), sizeof(float) * dim);
        for (int64_t first = 0; first < tile.count; first += height) {
            const int64_t rows = smaller(height, tile.count - first);
            score_rows<kPanel>(bank, rows, query + first * dim, panel, head, tile.scores);
            for (int64_t i = 0; i < rows; ++i) {
                const Floats share = broadcast<Floats>(tile.share[tile.chosen[first + i] * heads + head]);
                float* to = tile.weights + (first + i) * kPanel;
                for (int64_t j = 0; j < kPanel; j += kLanes)
                    store(to + j, fused(exp2_bounded(load(tile.scores + i * kPanel + j)), share, load(to + j)));
            }
        }
    }
}

// The part of a panel whose B is wanted, first .. last.
struct Part {
    Part(const CosineAverage& args, const Block& panel)
        : first(larger(args.omega_begin - panel.position, 0)),
          last(smaller(args.omega_end - panel.position, panel.count)) {}
    bool any() const { return first < last; }

    int64_t first, last;
};

// All rows are chosen.
void give_omega(const CosineAverage& args, const Block& panel, const Part& part, const Task& task, const Tile& tile) {
    float* to = args.omega + panel.position + part.first - args.omega_begin;
    for (int64_t r = 0; r < task.rows; ++r)
        memcpy(to + (task.first + r) * (args.omega_end - args.omega_begin), tile.weights + r * kPanel + part.first,
               sizeof(float) * (part.last - part.first));
}

void weigh(const CosineAverage& args, const Block& panel, const Task& task, Tile& tile) {
    for (int64_t i = 0; i < tile.count; ++i) {
        const int64_t r = tile.chosen[i];
        Floats total = {};
        for (int64_t j = 0; j < kPanel; j += kLanes) {
            // Past the panel's count stand proposals that are not of the window, whose attention may be of any size.
            const Ints taken = load(tile.taken + r * kPanel + j) > 0.0f;
            const Floats weight = only(taken, exp2_bounded(load(tile.weights + i * kPanel + j) * kLog2E));
            total += weight;
            store(tile.weights + i * kPanel + j, weight);
        }
        tile.total[r] += sum(total);
        if (args.weights)
            memcpy(args.weights + (task.first + r) * args.supports + panel.position, tile.weights + i * kPanel,
                   sizeof(float) * panel.count);
    }
}

// X of the proposals of the panel that some row takes.
void load_means(const CosineAverage& args, const Block& panel, Tile& tile) {
    const CosineBank& bank = args.bank;
    float largest[kPanel] = {};
    for (int64_t i = 0; i < tile.count; ++i)
        for (int64_t j = 0; j < kPanel; ++j)
            largest[j] = greater(largest[j], tile.weights[i * kPanel + j]);
    memset(tile.x, 0, sizeof(float) * kPanel * bank.width());
    for (int64_t j = 0; j < panel.count; ++j)
        for (int64_t head = 0; largest[j] > 0.0f && head < bank.heads; ++head)
            give_mean(args, panel.slot, panel.first + j, head, tile.x + (head * kPanel + j) * bank.head_dim);
}

void add_panel(const CosineAverage& args, const Block& panel, Tile& tile) {
    const CosineBank& bank = args.bank;
    const int64_t width = bank.width(), dim = bank.head_dim, height = even_part(tile.count, kMostRows);
    for (int64_t head = 0; head < bank.heads; ++head) {
        const float* summed[2] = {tile.x + head * kPanel * dim, block_values(bank, panel, head)};
        for (int64_t which = 0; which < 2; ++which) {
            for (int64_t first = 0; first < tile.count; first += height) {
                const int64_t rows = smaller(height, tile.count - first);
                const float* weights = tile.weights + first * kPanel;
                sum_values<kPanel>(bank, rows, weights, summed[which], panel.count, tile.part);
                for (int64_t i = 0; i < rows; ++i)
                    add_times(1.0, tile.part + i * dim, dim,
                              tile.sums + (tile.chosen[first + i] * 2 + which) * width + head * dim);
            }
        }
    }
}

// A row that is like none, itself neither because its value is zero, keeps its own.
void finish(const CosineAverage& args, const Task& task, const Tile& tile) {
    const CosineBank& bank = args.bank;
    const int64_t width = bank.width(), dim = bank.head_dim;
    for (int64_t r = 0; r < task.rows; ++r) {
        const int64_t row = task.first + r;
        const bool any = tile.total[r] > 0.0;
        const double inverse = any ? 1.0 / tile.total[r] : 0.0;
        float* out = args.out + row * 4 * width;
        for (int64_t head = 0; head < bank.heads; ++head) {
            give_mean(args, args.slot, row, head, out + 2 * width + head * dim);
            memcpy(out + 3 * width + head * dim,
                   bank.values + ((args.slot * bank.heads + head) * bank.capacity + row) * dim, sizeof(float) * dim);
        }
        for (int64_t d = 0; d < 2 * width; ++d)
            out[d] = any ? static_cast<float>(tile.sums[r * 2 * width + d] * inverse) : out[2 * width + d];
        if (!args.weights) continue;
        float* weights = args.weights + row * args.supports;
        for (int64_t j = 0; j < args.supports; ++j)
            weights[j] = static_cast<float>(weights[j] * inverse);
    }
}

// How many pairs are alike is not known: a tenth.
double operations(const CosineAverage& args) {
    const double alike = 0.1 * (2.0 * (kAttentions + 2.0) * args.bank.width() + 30.0 * kAttentions * args.bank.heads);
    return static_cast<double>(args.rows) * args.supports * (2.0 * args.bank.masks * args.bank.width() + alike);
}

}  // namespace

void cosine_average(const CosineAverage& args) {
    if (args.rows == 0) return;
    const int64_t count = count_blocks(args.support, kPanel);
    Array<Block> panels(larger(count, 1));
    cut_blocks(args.support, kPanel, panels);
    if (args.weights) memset(args.weights, 0, sizeof(float) * args.rows * args.supports);
    const int threads = worth_waking(args.threads, operations(args));
    const int64_t most = even_part(args.rows, smaller(kTileRows, ceil_div(args.rows, threads)));
    const int64_t height = ceil_div(most, kMostRows) * kMostRows, tasks = ceil_div(args.rows, height);
    const int64_t workers = smaller(threads, tasks), size = Tile::size(args.bank), doubles = Tile::doubles(args.bank);
    Array<float> memory(workers * size);
    Array<double> sums(workers * doubles);
    parallel_for(tasks, threads, [&](int64_t index, int worker) {
        Tile tile(args.bank, memory + worker * size, sums + worker * doubles);
        const Task task = {index * height, smaller(height, args.rows - index * height)};
        load_tile(args, task, tile);
        for (int64_t p = 0; p < count; ++p) {
            const Block& panel = panels[p];
            take_pairs(args, panel, task, tile);
            const Part shown(args, panel);
            const bool any = tile.count > 0;
            if (!any && !shown.any()) continue;
            if (shown.any())
                for (tile.count = 0; tile.count < task.rows; ++tile.count)
                    tile.chosen[tile.count] = tile.count;
            attend(args, panel, task, tile);
            if (shown.any()) give_omega(args, panel, shown, task, tile);
            if (!any) continue;
            weigh(args, panel, task, tile);
            load_means(args, panel, tile);
            add_panel(args, panel, tile);
        }
        finish(args, task, tile);
    });
}

}  // namespace rdn::cpu::RDN_ISA
