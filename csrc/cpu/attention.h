// What attention and refinement share: tiles of query rows, blocks of supports, and the gates and scores between them.
//
//     weight_ij = (relu(Wg.E_ij + b) + 1e-6) * multiplicity_j * exp(q_i.k_j / sqrt(d) - shift_i)
//
// which is the softmax term of DESIGN section 2 with the logarithm of the geometry never taken. A pair's
// geometry serves all heads, so a thread takes a tile of query rows and a block of supports, gates the pairs for every
// head, and then multiplies head by head from panels that fit the cache.
#pragma once

#include "geometry.h"
#include "scratch.h"

namespace rdn::cpu {
namespace {

constexpr int64_t kTileRows = 13 * kMostRows;  // most query rows of one task
constexpr float kBounded = 60.0f;              // score up to which no maximum is subtracted; it is a power of 2
constexpr float kNone = -1e30f;                // largest of no scores

// Supports first .. first + count of a slot.
struct Block {
    int64_t slot, first, count;
    int64_t frame;     // of the call
    int64_t position;  // of its first support among the call's

    int64_t vectors() const { return ceil_div(count, kLanes); }
    int64_t panels() const { return ceil_div(count, kPanel); }
};

inline int64_t count_blocks(const SupportFrames& support) {
    int64_t blocks = 0;
    for (int64_t f = 0; f < support.frames; ++f)
        blocks += ceil_div(support.count[f], kBlock);
    return blocks;
}

// The supports of a call cut in blocks, and what the geometry needs of their boxes. Columns past a block's count, up to
// a whole panel, have no weight.
struct Blocks {
    explicit Blocks(const SupportFrames& support)
        : count(count_blocks(support)), block(count), columns(count * kColumnRows * kBlock) {}

    int64_t count;
    Array<Block> block;
    Array<float> columns;  // [blocks][kColumnRows][kBlock]
};

// Without multiplicities every support counts once.
inline void fill_blocks(const SupportFrames& support, const SupportBank& bank, const float* multiplicity,
                        Blocks& blocks) {
    static const float no_box[4] = {};
    int64_t b = 0, position = 0;
    for (int64_t f = 0; f < support.frames; position += support.count[f++]) {
        for (int64_t first = 0; first < support.count[f]; first += kBlock, ++b) {
            const int64_t count = smaller(kBlock, support.count[f] - first);
            blocks.block[b] = {support.slot[f], first, count, f, position + first};
            const float* boxes = bank.boxes + 4 * (support.slot[f] * bank.capacity + first);
            float* column = blocks.columns + b * kColumnRows * kBlock;
            for (int64_t j = 0; j < blocks.block[b].panels() * kPanel; ++j) {
                const float times = j >= count ? 0.0f : multiplicity ? multiplicity[position + first + j] : 1.0f;
                fill_column(j < count ? boxes + 4 * j : no_box, times, bank.bfloat16, column + j);
            }
        }
    }
}

// What a task is about, besides its rows.
struct Module {
    SupportBank bank;
    Geometry geometry;
    int64_t heads, head_dim;
};

// What one thread holds of some query rows, in memory that it is lent.
struct Tile {
    Tile(const Module& module, float* memory)
        : query(memory),
          gates(query + kTileRows * module.heads * module.head_dim),
          scores(gates + kTileRows * module.heads * kBlock),
          values(scores + kMostRows * kBlock) {}

    static int64_t size(const Module& module) {
        return kTileRows * module.heads * (module.head_dim + kBlock) + kMostRows * (kBlock + module.head_dim);
    }

    float* query;   // [heads][kTileRows][head_dim] times log2(e) / sqrt(head_dim); of words the first half of a row
    float* gates;   // [heads][kTileRows][kBlock]
    float* scores;  // [kMostRows][kBlock] of one head, base-2 logarithms of the softmax terms; then weights, or words
    float* values;  // [kMostRows][head_dim] of one head
    RowBox box[kTileRows];
};

inline void load_row(const Module& module, const float* query, const float* box, int64_t r, Tile& tile) {
    tile.box[r] = row_box(box, module.bank.bfloat16);
    const float scale = static_cast<float>(1.4426950408889634 / sqrt(static_cast<double>(module.head_dim)));
    for (int64_t head = 0; head < module.heads; ++head) {
        const float* from = query + head * module.head_dim;
        float* to = tile.query + (head * kTileRows + r) * module.head_dim;
        for (int64_t d = 0; d < module.head_dim; ++d)
            to[d] = from[d] * scale;
    }
}

// Numbers become words of two bfloat16, in place: half as many.
inline void store_pairs(int64_t count, float* data) {
    for (int64_t j = 0; j < count; j += 2 * kLanes) {
        const Floats second = j + kLanes < count ? load(data + j + kLanes) : Floats{};
        store(data + j / 2, bits_as<Floats>(round_pairs(load(data + j), second)));
    }
}

// Queries to the words that the products take; when their lengths are known.
inline void pair_row(const Module& module, int64_t r, Tile& tile) {
    for (int64_t head = 0; head < module.heads; ++head)
        store_pairs(module.head_dim, tile.query + (head * kTileRows + r) * module.head_dim);
}

// Rows of a task, such that all threads find one, and whole tiles of the products.
inline int64_t tile_height(int64_t rows, int threads) {
    const int64_t height = even_part(rows, smaller(kTileRows, ceil_div(rows, threads)));
    return ceil_div(height, kMostRows) * kMostRows;
}

// Times the length of a key, it bounds the score of the two.
inline float query_length(const Module& module, const Tile& tile, int64_t r, int64_t head) {
    const float* query = tile.query + (head * kTileRows + r) * module.head_dim;
    Floats squares = {};
    for (int64_t d = 0; d < module.head_dim; d += kLanes)
        squares += load(query + d) * load(query + d);
    return sqrtf(sum(squares));
}

// Gates of row r with all supports of block b, for every head, multiplicity included.
inline void gate_row(const Module& module, const Blocks& blocks, int64_t b, int64_t r, Tile& tile) {
    const float* columns = blocks.columns + b * kColumnRows * kBlock;
    const float* multiplicity = columns + kWeightRow * kBlock;
    Pairs pairs;
    for (int64_t first = 0; first < blocks.block[b].panels() * kPanel; first += kPanel) {
        place_pairs(tile.box[r], columns + first, module.geometry, pairs);
        float* gates = tile.gates + r * kBlock + first;
        for (int64_t head = 0; head < module.heads; head += kLanes) {
            if (module.geometry.bfloat16)
                gate_heads<Pair>(module.geometry, head, module.heads, multiplicity + first, pairs, gates,
                                 kTileRows * kBlock);
            else
                gate_heads<Single>(module.geometry, head, module.heads, multiplicity + first, pairs, gates,
                                   kTileRows * kBlock);
        }
    }
}

// Calls use(head, first row, rows) with the tile's scores of those rows, for rows begin .. end of the tile.
template <class Use>
void score_rows(const Module& module, const Block& block, int64_t begin, int64_t end, Tile& tile, const Use& use) {
    const int64_t height = even_part(end - begin, kMostRows), dim = module.head_dim;
    const int64_t depth = dim / module.bank.per_word();
    for (int64_t head = 0; head < module.heads; ++head) {
        const int64_t column = (block.slot * module.heads + head) * module.bank.capacity + block.first;
        const Right keys = {module.bank.keys + column * depth, depth * kPanel, kPanel};
        for (int64_t r = begin; r < end; r += height) {
            const int64_t rows = smaller(height, end - r);
            const float* query = tile.query + (head * kTileRows + r) * dim;
            constexpr int kUsual = 64;
            if (module.bank.bfloat16 && dim == kUsual)
                multiply<false, kUsual, Pair>(rows, query, dim, keys, block.vectors(), depth, tile.scores, kBlock);
            else if (module.bank.bfloat16)
                multiply<false, 0, Pair>(rows, query, dim, keys, block.vectors(), depth, tile.scores, kBlock);
            else if (dim == kUsual)
                multiply<false, kUsual>(rows, query, dim, keys, block.vectors(), depth, tile.scores, kBlock);
            else
                multiply<false>(rows, query, dim, keys, block.vectors(), depth, tile.scores, kBlock);
            use(head, r, rows);
        }
    }
}

// to[row][head_dim] = or += scores, which have become weights, times the block's values of that head.
template <bool Add>
void sum_values(const Module& module, const Block& block, int64_t head, int64_t rows, const Tile& tile, float* to,
                int64_t stride) {
    const int64_t column = (block.slot * module.heads + head) * module.bank.capacity + block.first;
    const int64_t word = column / module.bank.per_word(), depth = ceil_div(block.count, module.bank.per_word());
    const Right values = {module.bank.values + word * module.head_dim, kPanel, module.head_dim};
    const int64_t vectors = module.head_dim / kLanes;
    if (module.bank.bfloat16) {
        for (int64_t r = 0; r < rows; ++r)
            store_pairs(ceil_div(block.count, kLanes) * kLanes, tile.scores + r * kBlock);
        multiply<Add, kBlock, Pair>(rows, tile.scores, kBlock, values, vectors, depth, to, stride);
    } else {
        multiply<Add, kBlock>(rows, tile.scores, kBlock, values, vectors, depth, to, stride);
    }
}

// All ones in the lanes that hold a support.
inline Ints taken_lanes(int64_t left) {
    Ints lane;
    for (int i = 0; i < kLanes; ++i)
        lane[i] = i;
    return lane < static_cast<int32_t>(smaller(left, kLanes));
}

// The largest of the scores and of `least`; what is no number counts for nothing.
inline float largest_score(const float* scores, int64_t count, float least) {
    Floats top = broadcast<Floats>(least);
    for (int64_t j = 0; j < count; j += kLanes) {
        const Floats score = load(scores + j);
        top = (score > top) & taken_lanes(count - j) ? score : top;
    }
    return largest(top);
}

// Scores become weights exp2(score - shift) gate, in place; returns their sum.
inline float weigh_row(const float* gates, int64_t count, float shift, float* scores) {
    Floats total = {};
    for (int64_t j = 0; j < count; j += kLanes) {
        const Floats weight = exp2_or_zero(load(scores + j) - shift) * load(gates + j);
        // Not a product with 0: what lies past the count may be no number.
        const Floats kept = bits_as<Floats>(bits_as<Ints>(weight) & taken_lanes(count - j));
        store(scores + j, kept);
        total += kept;
    }
    return sum(total);
}

}  // namespace
}  // namespace rdn::cpu
