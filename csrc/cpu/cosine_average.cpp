// The second round of the cosine attention: a masked, renormalised mean of what is like a proposal.
#include "cosine.h"
#include "isa.h"
#include "parallel.h"

namespace rdn::cpu::RDN_ISA {
namespace {

constexpr float kLog2E = 1.44269504f;
// A cosine of `width` float32 products is this near to the exact one; nearer to a threshold it is computed in float64.
constexpr float kNear = 4e-6f;

// Rows first .. first + rows of the slot.
struct Task {
    int64_t first, rows;
};

struct Tile {
    Tile(const CosineBank& bank, float* memory, double* sums)
        : query(memory),
          unit(query + kTileRows * kAttentions * bank.width()),
          attention(unit + kTileRows * bank.masks * bank.width()),
          weights(attention + kTileRows * kColumns),
          scores(weights + kTileRows * kColumns),
          values(scores + kMostRows * kColumns),
          share(values + kMostRows * bank.head_dim),
          sums(sums),
          total(sums + kTileRows * 2 * bank.width()) {}

    static int64_t size(const CosineBank& bank) {
        return kTileRows * ((kAttentions + bank.masks) * bank.width() + 2 * kColumns + kAttentions * bank.heads) +
               kMostRows * (kColumns + bank.head_dim);
    }
    static int64_t doubles(const CosineBank& bank) { return kTileRows * (2 * bank.width() + 1); }

    float* query;
    float* unit;       // [masks][kTileRows][width]
    float* attention;  // [kTileRows][kColumns] B of a block
    float* weights;    // [kTileRows][kColumns] ones where a pair is taken, then exp(B) there
    float* scores;     // [kMostRows][kColumns]
    float* values;     // [kMostRows][head_dim]
    float* share;      // [kTileRows][kAttentions][heads] of a term of a softmax in B
    double* sums;      // [kTileRows][2][width] of X and V
    double* total;     // [kTileRows] of the weights
};

void load_tile(const CosineAverage& args, const Task& task, Tile& tile) {
    const CosineBank& bank = args.bank;
    const int64_t width = bank.width();
    const int64_t heads = kAttentions * bank.heads;
    for (int64_t r = 0; r < task.rows; ++r) {
        const int64_t row = args.slot * bank.capacity + task.first + r;
        load_query(bank, row, r, tile.query);
        for (int64_t head = 0; head < heads; ++head)
            tile.share[r * heads + head] = static_cast<float>(1.0 / (heads * args.sums.normaliser[row * heads + head]));
    }
    for (int64_t mask = 0; mask < bank.masks; ++mask)
        memcpy(tile.unit + mask * kTileRows * width,
               bank.unit + ((args.slot * bank.masks + mask) * bank.capacity + task.first) * width,
               sizeof(float) * task.rows * width);
    memset(tile.sums, 0, sizeof(double) * Tile::doubles(bank));
}

// B of a block: the mean over heads and attentions of complete softmaxes.
void attend(const CosineAverage& args, const Block& block, const Task& task, Tile& tile) {
    const CosineBank& bank = args.bank;
    const int64_t heads = kAttentions * bank.heads, height = even_part(task.rows, kMostRows);
    memset(tile.attention, 0, sizeof(float) * task.rows * kColumns);
    for (int64_t head = 0; head < heads; ++head) {
        for (int64_t first = 0; first < task.rows; first += height) {
            const int64_t rows = smaller(height, task.rows - first);
            score_rows(bank, rows, tile.query + (head * kTileRows + first) * bank.head_dim, block, head, tile.scores);
            for (int64_t r = 0; r < rows; ++r) {
                const float share = tile.share[(first + r) * heads + head];
                float* to = tile.attention + (first + r) * kColumns;
                for (int64_t j = 0; j < block.vectors() * kLanes; j += kLanes)
                    store(to + j, fused(exp2_clamped(load(tile.scores + r * kColumns + j)), broadcast<Floats>(share),
                                        load(to + j)));
            }
        }
    }
}

double exact_cosine(const CosineBank& bank, const float* a, const float* b) {
    double product = 0.0;
    for (int64_t d = 0; d < bank.width(); ++d)
        product += static_cast<double>(a[d]) * b[d];
    return product / static_cast<double>(bank.heads);
}

// Which of a block's pairs are alike enough, of a mask; returns whether any is.
bool take_row(const CosineAverage& args, const Block& block, int64_t mask, const float* own, const float* scores,
              float* taken) {
    const CosineBank& bank = args.bank;
    const float threshold = args.thresholds[mask];
    const float* others = bank.unit + ((block.slot * bank.masks + mask) * bank.capacity + block.first) * bank.width();
    Ints any = {};
    for (int64_t j = 0; j < block.vectors() * kLanes; j += kLanes) {
        const Floats score = load(scores + j), off = score - threshold;
        const Ints lanes = taken_lanes(block.count - j);
        Ints alike = (off > 0.0f) & lanes;
        const Ints near = (off > -kNear) & (off < kNear) & lanes;
        for (int i = 0; i < kLanes; ++i)
            if (near[i]) alike[i] = exact_cosine(bank, own, others + (j + i) * bank.width()) > threshold ? -1 : 0;
        if (mask > 0) alike &= load(taken + j) > 0.0f;
        any |= alike;
        store(taken + j, only(alike, broadcast<Floats>(1.0f)));
    }
    Ints none = {};
    return memcmp(&any, &none, sizeof any) != 0;
}

// Returns whether any pair of the tile is taken.
bool take_pairs(const CosineAverage& args, const Block& block, const Task& task, Tile& tile) {
    const CosineBank& bank = args.bank;
    const int64_t width = bank.width(), height = even_part(task.rows, kMostRows);
    bool any = true;
    for (int64_t mask = 0; any && mask < bank.masks; ++mask) {
        any = false;
        const float* panels = bank.unit_panels + (block.slot * bank.masks + mask) * bank.capacity * width;
        for (int64_t first = 0; first < task.rows; first += height) {
            const int64_t rows = smaller(height, task.rows - first);
            const float* own = tile.unit + (mask * kTileRows + first) * width;
            multiply_panels(rows, own, width, panels, block, tile.scores);
            for (int64_t r = 0; r < rows; ++r)
                any |= take_row(args, block, mask, own + r * width, tile.scores + r * kColumns,
                                tile.weights + (first + r) * kColumns);
        }
    }
    return any;
}

// The part of a block whose B is wanted, first .. last.
struct Part {
    Part(const CosineAverage& args, const Block& block)
        : first(larger(args.omega_begin - block.position, 0)),
          last(smaller(args.omega_end - block.position, block.count)) {}
    bool any() const { return first < last; }

    int64_t first, last;
};

void give_omega(const CosineAverage& args, const Block& block, const Part& part, const Task& task, const Tile& tile) {
    float* to = args.omega + block.position + part.first - args.omega_begin;
    for (int64_t r = 0; r < task.rows; ++r)
        memcpy(to + (task.first + r) * (args.omega_end - args.omega_begin), tile.attention + r * kColumns + part.first,
               sizeof(float) * (part.last - part.first));
}

void weigh(const CosineAverage& args, const Block& block, const Task& task, Tile& tile) {
    for (int64_t r = 0; r < task.rows; ++r) {
        Floats total = {};
        for (int64_t j = r * kColumns; j < r * kColumns + block.vectors() * kLanes; j += kLanes) {
            // Past the block's count stand proposals that are not of the window, whose attention may be of any size.
            const Floats weight = only(load(tile.weights + j) > 0.0f, exp2_clamped(load(tile.attention + j) * kLog2E));
            total += weight;
            store(tile.weights + j, weight);
        }
        tile.total[r] += sum(total);
        if (args.weights)
            memcpy(args.weights + (task.first + r) * args.supports + block.position, tile.weights + r * kColumns,
                   sizeof(float) * block.count);
    }
}

void add_block(const CosineAverage& args, const Block& block, const Task& task, Tile& tile) {
    const CosineBank& bank = args.bank;
    const int64_t width = bank.width(), height = even_part(task.rows, kMostRows);
    const float* summed[2] = {args.sums.mean, bank.values};
    for (int64_t which = 0; which < 2; ++which) {
        for (int64_t head = 0; head < bank.heads; ++head) {
            for (int64_t first = 0; first < task.rows; first += height) {
                const int64_t rows = smaller(height, task.rows - first);
                sum_values(bank, rows, tile.weights + first * kColumns, summed[which], block, head, tile.values);
                for (int64_t r = 0; r < rows; ++r) {
                    double* to = tile.sums + ((first + r) * 2 + which) * width + head * bank.head_dim;
                    for (int64_t d = 0; d < bank.head_dim; ++d)
                        to[d] += tile.values[r * bank.head_dim + d];
                }
            }
        }
    }
}

// A row that is like none, itself neither because its value is zero, keeps its own.
void finish(const CosineAverage& args, const Task& task, const Tile& tile) {
    const CosineBank& bank = args.bank;
    const int64_t width = bank.width();
    const float* summed[2] = {args.sums.mean, bank.values};
    for (int64_t r = 0; r < task.rows; ++r) {
        const int64_t row = task.first + r;
        const bool any = tile.total[r] > 0.0;
        const double inverse = any ? 1.0 / tile.total[r] : 0.0;
        for (int64_t which = 0; which < 2; ++which) {
            for (int64_t head = 0; head < bank.heads; ++head) {
                const int64_t at = ((args.slot * bank.heads + head) * bank.capacity + row) * bank.head_dim;
                const double* sums = tile.sums + (r * 2 + which) * width + head * bank.head_dim;
                float* mean = args.out + row * 4 * width + which * width + head * bank.head_dim;
                for (int64_t d = 0; d < bank.head_dim; ++d) {
                    const float own = summed[which][at + d];
                    mean[2 * width + d] = own;
                    mean[d] = any ? static_cast<float>(sums[d] * inverse) : own;
                }
            }
        }
        if (!args.weights) continue;
        float* weights = args.weights + row * args.supports;
        for (int64_t j = 0; j < args.supports; ++j)
            weights[j] = static_cast<float>(weights[j] * inverse);
    }
}

double operations(const CosineAverage& args) {
    const double per_pair = 2.0 * (kAttentions + args.bank.masks + 2.0) * args.bank.width();
    return static_cast<double>(args.rows) * args.supports * (per_pair + 30.0 * kAttentions * args.bank.heads);
}

}  // namespace

void cosine_average(const CosineAverage& args) {
    if (args.rows == 0) return;
    const int64_t count = count_blocks(args.support, kColumns);
    Array<Block> blocks(larger(count, 1));
    cut_blocks(args.support, kColumns, blocks);
    if (args.weights) memset(args.weights, 0, sizeof(float) * args.rows * args.supports);
    const int threads = worth_waking(args.threads, operations(args));
    const int64_t height = tile_height(args.rows, threads), tiles = ceil_div(args.rows, height);
    const int64_t workers = smaller(threads, tiles), size = Tile::size(args.bank), doubles = Tile::doubles(args.bank);
    Array<float> scratch(workers * size);
    Array<double> sums(workers * doubles);
    parallel_for(tiles, threads, [&](int64_t index, int worker) {
        Tile tile(args.bank, scratch + worker * size, sums + worker * doubles);
        const Task task = {index * height, smaller(height, args.rows - index * height)};
        load_tile(args, task, tile);
        for (int64_t b = 0; b < count; ++b) {
            const bool any = take_pairs(args, blocks[b], task, tile);
            const Part shown(args, blocks[b]);
            if (!any && !shown.any()) continue;
            attend(args, blocks[b], task, tile);
            if (shown.any()) give_omega(args, blocks[b], shown, task, tile);
            if (!any) continue;
            weigh(args, blocks[b], task, tile);
            add_block(args, blocks[b], task, tile);
        }
        finish(args, task, tile);
    });
}

}  // namespace rdn::cpu::RDN_ISA
