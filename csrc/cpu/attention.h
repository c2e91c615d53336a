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
        return kTileRows * module.heads * (2 * module.head_dim + kBlock) + kMostRows * kBlock;
    }

    int64_t row(int64_t head, int64_t r) const { return head * kTileRows + r; }

    float* query;   // [heads][kTileRows][head_dim] times log2(e) / sqrt(head_dim); of words the first half of a row
    float* gates;   // [heads][kTileRows][kBlock]
    float* scores;  // [kMostRows][kBlock] of one head, base-2 logarithms of the softmax terms; then weights, or words
    float* values;  // [heads][kTileRows][head_dim] sums of weight times value
    RowBox box[kTileRows];
};

inline void load_row(const Module& module, const float* query, const float* box, int64_t r, Tile& tile) {
    tile.box[r] = row_box(box, module.bank.bfloat16);
    const float scale = static_cast<float>(1.4426950408889634 / sqrt(static_cast<double>(module.head_dim)));
    for (int64_t head = 0; head < module.heads; ++head) {
        const float* from = query + head * module.head_dim;
        float* to = tile.query + tile.row(head, r) * module.head_dim;
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
        store_pairs(module.head_dim, tile.query + tile.row(head, r) * module.head_dim);
}

// Rows of a task, such that all threads find one, and whole tiles of the products.
inline int64_t tile_height(int64_t rows, int threads) {
    const int64_t height = even_part(rows, smaller(kTileRows, ceil_div(rows, threads)));
    return ceil_div(height, kMostRows) * kMostRows;
}

// Times the length of a key, it bounds the score of the two.
inline float query_length(const Module& module, const Tile& tile, int64_t r, int64_t head) {
    const float* query = tile.query + tile.row(head, r) * module.head_dim;
    Floats squares = {};
    for (int64_t d = 0; d < module.head_dim; d += kLanes)
        squares += load(query + d) * load(query + d);
    return sqrtf(sum(squares));
}

// Gates of row r with all supports of block b, for every head, multiplicity included.
template <class Element>
void gate_row(const Module& module, const Blocks& blocks, int64_t b, int64_t r, Tile& tile) {
    const float* columns = blocks.columns + b * kColumnRows * kBlock;
    const int64_t panels = blocks.block[b].panels();
    // All of them first: a panel's chains of logarithms hide behind another's, but not behind the long loop over
    // tables.
    Pairs pairs[kBlock / kPanel];
    for (int64_t panel = 0; panel < panels; ++panel)
        place_pairs<Element>(tile.box[r], columns + panel * kPanel, module.geometry, pairs[panel]);
    for (int64_t panel = 0; panel < panels; ++panel) {
        const int64_t first = panel * kPanel;
        for (int64_t head = 0; head < module.heads; head += kLanes)
            gate_heads<Element>(module.geometry, head, module.heads, columns + kWeightRow * kBlock + first,
                                pairs[panel], tile.gates + r * kBlock + first, kTileRows * kBlock);
    }
}

inline void gate_rows(const Module& module, const Blocks& blocks, int64_t b, int64_t begin, int64_t end, Tile& tile) {
    for (int64_t r = begin; r < end; ++r) {
        if (module.geometry.bfloat16)
            gate_row<Pair>(module, blocks, b, r, tile);
        else
            gate_row<Single>(module, blocks, b, r, tile);
    }
}

// First word of a head's keys or values in a block: floats, or pairs of bfloat16.
inline const float* head_words(const Module& module, const float* words, const Block& block, int64_t head) {
    const int64_t column = (block.slot * module.heads + head) * module.bank.capacity + block.first;
    return words + column * module.head_dim / module.bank.per_word();
}

// Asks the second-level cache for a part of a head's keys and values: `part` of `parts`.
inline void prefetch_head(const Module& module, const Block& block, int64_t head, int64_t part, int64_t parts) {
    constexpr int64_t kLine = 64 / sizeof(float);
    const int64_t lines = block.panels() * kPanel * module.head_dim / module.bank.per_word() / kLine;
    const float* keys = head_words(module, module.bank.keys, block, head);
    const float* values = head_words(module, module.bank.values, block, head);
    for (int64_t line = lines * part / parts; line < lines * (part + 1) / parts; ++line) {
        __builtin_prefetch(keys + line * kLine, 0, 2);
        __builtin_prefetch(values + line * kLine, 0, 2);
    }
}

// Calls use(head, first row, rows) with the tile's scores against block b, for rows begin .. end of the tile. A
// window's keys and values fit no cache, and a tile's rows read a head's many times, so the next head's are asked for
// meanwhile.
template <class Use>
void score_rows(const Module& module, const Blocks& blocks, int64_t b, int64_t begin, int64_t end, Tile& tile,
                const Use& use) {
    const Block& block = blocks.block[b];
    const int64_t height = even_part(end - begin, kMostRows), parts = ceil_div(end - begin, height);
    const int64_t dim = module.head_dim, depth = dim / module.bank.per_word();
    for (int64_t head = 0; head < module.heads; ++head) {
        const Right keys = {head_words(module, module.bank.keys, block, head), depth * kPanel, kPanel};
        const bool last = head + 1 == module.heads;
        for (int64_t r = begin; r < end; r += height) {
            const int64_t rows = smaller(height, end - r);
            if (!last || b + 1 < blocks.count)
                prefetch_head(module, blocks.block[last ? b + 1 : b], last ? 0 : head + 1, (r - begin) / height, parts);
            const float* query = tile.query + tile.row(head, r) * dim;
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

// The tile's values of a head, from row `first` on: = or += scores, which have become weights, times the block's
// values.
template <bool Add>
void sum_values(const Module& module, const Block& block, int64_t head, int64_t first, int64_t rows, Tile& tile) {
    const Right values = {head_words(module, module.bank.values, block, head), kPanel, module.head_dim};
    const int64_t depth = ceil_div(block.count, module.bank.per_word());
    const int64_t vectors = module.head_dim / kLanes;
    float* to = tile.values + tile.row(head, first) * module.head_dim;
    if (module.bank.bfloat16)
        multiply<Add, kBlock, Pair>(rows, tile.scores, kBlock, values, vectors, depth, to, module.head_dim);
    else
        multiply<Add, kBlock>(rows, tile.scores, kBlock, values, vectors, depth, to, module.head_dim);
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

// Scores become weights exp2(score - shift) gate, in place, as the elements that the values are multiplied with;
// returns their sum.
template <class Element>
float weigh_row(const float* gates, int64_t count, float shift, float* scores) {
    Floats total = {};
    const auto weigh = [&](int64_t j) {
        const Floats weight = exp2_clamped<Element::kExponential>(load(scores + j) - shift) * load(gates + j);
        // Not a product with 0: what lies past the count may be no number.
        const Floats kept =
            count - j >= kLanes ? weight : bits_as<Floats>(bits_as<Ints>(weight) & taken_lanes(count - j));
        total += kept;
        return kept;
    };
    for (int64_t j = 0; j < count; j += Element::kNumbers * kLanes) {
        Floats weight = weigh(j);
        if constexpr (Element::kNumbers == 2)
            weight = bits_as<Floats>(round_pairs(weight, j + kLanes < count ? weigh(j + kLanes) : Floats{}));
        store(scores + j / Element::kNumbers, weight);
    }
    return sum(total);
}

// The same for rows of a bank's kind.
inline float weigh_row(const Module& module, const float* gates, int64_t count, float shift, float* scores) {
    return module.bank.bfloat16 ? weigh_row<Pair>(gates, count, shift, scores)
                                : weigh_row<Single>(gates, count, shift, scores);
}

}  // namespace
}  // namespace rdn::cpu
