// What attention and refinement share: tiles of query rows, blocks of supports, and the gates and scores between them.
//
//     weight_ij = (relu(Wg.E_ij + b) + 1e-6) * multiplicity_j * exp(q_i.k_j / sqrt(d) - shift_i)
//
// which is the softmax term of DESIGN section 2 with the logarithm of the geometry never taken. A pair's
// geometry serves all heads, so a thread takes a tile of query rows and a block of supports, gates the pairs for every
// head, and then multiplies head by head from panels that fit the cache.
#pragma once

#include "blocks.h"
#include "geometry.h"
#include "scratch.h"

namespace rdn::cpu {
namespace {

constexpr int64_t kTileRows = 13 * kMostRows;  // most query rows of one task
// Most rows whose scores are held at once: several products of a head's keys, then as many of its values, so that
// either stay in the first-level cache meanwhile.
constexpr int64_t kScoredRows = kLanes == 16 ? kMostRows : 4 * kMostRows;
constexpr float kBounded = 60.0f;  // score up to which no maximum is subtracted; it is a power of 2
constexpr float kNone = -1e30f;    // largest of no scores

// What a task is about, besides its rows.
struct Module {
    SupportBank bank;
    Geometry geometry;
    int64_t heads, head_dim;
    bool pairs;  // whether products are of pairs of bfloat16
};

template <class Args>
Module module_of(const Args& args) {
    const bool pairs = args.bank.stored == Stored::kBfloat16;
    return {args.bank,
            {args.geometry, padded_heads(args.heads), bfloat16_geometry(pairs, args.heads)},
            args.heads,
            args.head_dim,
            pairs};
}

// The supports of a call cut in blocks, and what the geometry needs of their boxes. Columns past a block's count, up to
// a whole panel, have no weight.
struct Blocks {
    explicit Blocks(const SupportFrames& support)
        : count(count_blocks(support, kBlock)), block(count), columns(count * kColumnRows * kBlock) {}

    int64_t count;
    Array<Block> block;
    Array<float> columns;  // [blocks][kColumnRows][kBlock]
};

// Without multiplicities every support counts once.
inline void fill_blocks(const SupportFrames& support, const Module& module, const float* multiplicity, Blocks& blocks) {
    const SupportBank& bank = module.bank;
    static const float no_box[4] = {};
    cut_blocks(support, kBlock, blocks.block);
    for (int64_t b = 0; b < blocks.count; ++b) {
        const Block& block = blocks.block[b];
        const float* boxes = bank.boxes + 4 * (block.slot * bank.capacity + block.first);
        float* column = blocks.columns + b * kColumnRows * kBlock;
        for (int64_t j = 0; j < block.panels() * kPanel; ++j) {
            const bool there = j < block.count;
            const float times = !there ? 0.0f : multiplicity ? multiplicity[block.position + j] : 1.0f;
            fill_column(there ? boxes + 4 * j : no_box, times, module.geometry.bfloat16, j, column);
        }
    }
}

// A head's keys and values that are wanted soon, for which the second-level cache is asked. A few lines at a time: many
// at once would hold up the loads of what is multiplied meanwhile.
struct Ahead {
    const char *keys, *values;
    int64_t lines;  // that are left of either
    int64_t step;   // of either at a time

    void ask() {
        constexpr int64_t kLine = 64;
        for (int64_t i = smaller(step, lines); i > 0; --i, --lines, keys += kLine, values += kLine) {
            __builtin_prefetch(keys, 0, 2);
            __builtin_prefetch(values, 0, 2);
        }
    }
};

// What one thread holds of some query rows, in memory that it is lent.
struct Tile {
    Tile(const Module& module, float* memory)
        : query(memory),
          gates(query + kTileRows * module.heads * module.head_dim),
          scores(gates + kTileRows * module.heads * kBlock),
          values(scores + kScoredRows * kBlock) {}

    static int64_t size(const Module& module) {
        return kTileRows * module.heads * (2 * module.head_dim + kBlock) + kScoredRows * kBlock;
    }

    int64_t row(int64_t head, int64_t r) const { return head * kTileRows + r; }

    float* query;   // [heads][kTileRows][head_dim] times log2(e) / sqrt(head_dim); of words the first half of a row
    float* gates;   // [heads][kTileRows][kBlock]
    float* scores;  // [kScoredRows][kBlock] of one head, base-2 logarithms of the softmax terms; then weights, or words
    float* values;  // [heads][kTileRows][head_dim] sums of weight times value
    RowBox box[kTileRows];
    Ahead ahead = {};
};

inline void load_row(const Module& module, const float* query, const float* box, int64_t r, Tile& tile) {
    tile.box[r] = row_box(box, module.geometry.bfloat16);
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
    Pairs pairs[kBlock / kPanel];
    place_pairs<Element>(tile.box[r], columns, panels, module.geometry, pairs);
    for (int64_t panel = 0; panel < panels; ++panel) {
        const int64_t first = panel * kPanel;
        const float* multiplicity = columns + kWeightRow * kBlock + first;
        float* gates = tile.gates + r * kBlock + first;
        if constexpr (std::is_same_v<Element, Few>) {
            gate_few(module.geometry, module.heads, multiplicity, pairs[panel], gates, kTileRows * kBlock);
        } else {
            for (int64_t head = 0; head < module.heads; head += kTogether * kLanes)
                if (module.geometry.padded == kPanel)
                    gate_heads<Element, kPanel>(module.geometry, head, module.heads, multiplicity, pairs[panel], gates,
                                                kTileRows * kBlock);
                else
                    gate_heads<Element, 0>(module.geometry, head, module.heads, multiplicity, pairs[panel], gates,
                                           kTileRows * kBlock);
        }
    }
}

inline void gate_rows(const Module& module, const Blocks& blocks, int64_t b, int64_t begin, int64_t end, Tile& tile) {
    for (int64_t r = begin; r < end; ++r) {
        if (module.heads <= kFewHeads)
            gate_row<Few>(module, blocks, b, r, tile);
        else if (module.geometry.bfloat16)
            gate_row<Pair>(module, blocks, b, r, tile);
        else
            gate_row<Single>(module, blocks, b, r, tile);
    }
}

// A head's keys or values in a block.
template <class Element>
const typename Element::Word* head_words(const Module& module, const void* words, const Block& block, int64_t head) {
    const int64_t column = (block.slot * module.heads + head) * module.bank.capacity + block.first;
    return static_cast<const typename Element::Word*>(words) + column * module.head_dim / Element::kNumbers;
}

// `steps`: how often will be asked.
template <class Element>
Ahead look_ahead(const Module& module, const Block& block, int64_t head, int64_t steps) {
    const int64_t lines =
        block.panels() * module.head_dim / Element::kNumbers * kPanel * sizeof(typename Element::Word) / 64;
    return {reinterpret_cast<const char*>(head_words<Element>(module, module.bank.keys, block, head)),
            reinterpret_cast<const char*>(head_words<Element>(module, module.bank.values, block, head)), lines,
            ceil_div(lines, steps)};
}

// Calls use(head, first row, rows) with the tile's scores against block b, for rows begin .. end of the tile. A
// window's keys and values fit no cache, and a tile's rows read a head's many times, so the next head's are asked for
// meanwhile.
template <class Element, class Use>
void score_rows(const Module& module, const Blocks& blocks, int64_t b, int64_t begin, int64_t end, Tile& tile,
                const Use& use) {
    const Block& block = blocks.block[b];
    const int64_t height = even_part(end - begin, kMostRows), vectors = block.vectors();
    // Of a head, values included.
    const int64_t steps =
        ceil_div(end - begin, height) * (count_tiles(vectors) + count_tiles(module.head_dim / kLanes));
    const auto before = [&] { tile.ahead.ask(); };
    const int64_t held = kScoredRows / kMostRows * height, dim = module.head_dim, depth = dim / Element::kNumbers;
    for (int64_t head = 0; head < module.heads; ++head) {
        const Right<typename Element::Word> keys = {head_words<Element>(module, module.bank.keys, block, head),
                                                    depth * kPanel, kPanel};
        const bool last = head + 1 == module.heads;
        if (!last || b + 1 < blocks.count)
            tile.ahead = look_ahead<Element>(module, blocks.block[last ? b + 1 : b], last ? 0 : head + 1, steps);
        for (int64_t first = begin; first < end; first += held) {
            const int64_t stop = smaller(first + held, end);
            for (int64_t r = first; r < stop; r += height) {
                const int64_t rows = smaller(height, stop - r);
                const float* query = tile.query + tile.row(head, r) * dim;
                float* scores = tile.scores + (r - first) * kBlock;
                if (dim == 64)
                    multiply<false, 64, Element>(rows, query, dim, keys, vectors, depth, scores, kBlock, before);
                else if (dim == 32)
                    multiply<false, 32, Element>(rows, query, dim, keys, vectors, depth, scores, kBlock, before);
                else
                    multiply<false, 0, Element>(rows, query, dim, keys, vectors, depth, scores, kBlock, before);
            }
            use(head, first, stop - first);
        }
    }
}

// The same for a bank of any kind.
template <class Use>
void score_rows(const Module& module, const Blocks& blocks, int64_t b, int64_t begin, int64_t end, Tile& tile,
                const Use& use) {
    if (module.bank.stored == Stored::kBfloat16)
        score_rows<Pair>(module, blocks, b, begin, end, tile, use);
    else if (module.bank.stored == Stored::kFloat16)
        score_rows<Mixed>(module, blocks, b, begin, end, tile, use);
    else
        score_rows<Single>(module, blocks, b, begin, end, tile, use);
}

template <bool Add, class Element>
void sum_values(const Module& module, const Block& block, int64_t head, int64_t first, int64_t rows, Tile& tile) {
    const Right<typename Element::Word> values = {head_words<Element>(module, module.bank.values, block, head), kPanel,
                                                  module.head_dim};
    const int64_t depth = ceil_div(block.count, Element::kNumbers), vectors = module.head_dim / kLanes;
    const int64_t height = even_part(rows, kMostRows);
    for (int64_t r = 0; r < rows; r += height) {
        float* to = tile.values + tile.row(head, first + r) * module.head_dim;
        multiply<Add, kBlock, Element>(smaller(height, rows - r), tile.scores + r * kBlock, kBlock, values, vectors,
                                       depth, to, module.head_dim, [&] { tile.ahead.ask(); });
    }
}

// The tile's values of a head, from row `first` on: = or += scores, which have become weights, times the block's
// values.
template <bool Add>
void sum_values(const Module& module, const Block& block, int64_t head, int64_t first, int64_t rows, Tile& tile) {
    if (module.bank.stored == Stored::kBfloat16)
        sum_values<Add, Pair>(module, block, head, first, rows, tile);
    else if (module.bank.stored == Stored::kFloat16)
        sum_values<Add, Mixed>(module, block, head, first, rows, tile);
    else
        sum_values<Add, Single>(module, block, head, first, rows, tile);
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
    return module.pairs ? weigh_row<Pair>(gates, count, shift, scores) : weigh_row<Single>(gates, count, shift, scores);
}

}  // namespace
}  // namespace rdn::cpu
