// Relation attention on the CPU: one pass over the supports, with the geometry computed where it is used.
//
//     weight_ij = (relu(Wg.E_ij + b) + 1e-6) * multiplicity_j * exp(q_i.k_j / sqrt(d) - running maximum)
//     out_i     = sum_j weight_ij v_j / sum_j weight_ij
//
// which is the softmax of DESIGN section 2 with the logarithm of the geometry never taken. The sines and cosines of a
// pair serve all heads, so a thread takes a tile of query rows and a block of supports, gates the pairs for every head,
// and then multiplies head by head from panels that fit the cache.
//
// Wg.E, q.k and weights.v are all the product of product.h, its right side packed in panels of kLanes columns. In E the
// half that depends on box sizes alone is a product of a vector of the row and one of the support (`turn_weight`), so
// only the two centre terms cost sines and cosines for every pair.
//
// Scratch memory of a call does not grow with the supports. In floats, D = heads * head_dim:
// 512 * (2 D + 38) + 2 * rows * heads, and for each thread 48 * (D + 192 * heads + 128).
#include "rdn/relation.h"

#include "isa.h"
#include "parallel.h"
#include "product.h"
#include "scratch.h"

namespace rdn::cpu::RDN_ISA {
namespace {

constexpr int64_t kTileRows = 48;      // most query rows of one task
constexpr int64_t kBlock = 128;        // supports whose gates are held at once
constexpr int64_t kChunk = 512;        // supports packed at once
constexpr int64_t kPair = 2 * kLanes;  // columns that the product takes at a time
constexpr float kNone = -1e30f;        // score of a column that takes no part
constexpr Frequencies kTurns = make_frequencies();

// Up to kChunk supports, gathered and packed. `padded` is their number rounded up to kPair by columns of no weight.
struct Chunk {
    explicit Chunk(const RelationAttention& args)
        : keys(kChunk * args.heads * args.head_dim),
          values(kChunk * args.heads * args.head_dim),
          sizes(kChunk * kSizeChannel),
          centres(4 * kChunk),
          weight(kChunk),
          mask(kChunk) {}

    Array<float> keys;     // [heads][padded / kLanes][head_dim][kLanes]
    Array<float> values;   // [heads][head_dim / kLanes][padded][kLanes]
    Array<float> sizes;    // [padded / kLanes][32][kLanes] sines and cosines of each side's own phases
    Array<float> centres;  // [x, x's low part, y, y's low part][kChunk]
    Array<float> weight;   // [padded] multiplicity
    Array<float> mask;     // [padded] 0, or kNone where the weight is 0
    int64_t padded = 0;
};

void embed_sides(const float* box, float* embedding, int64_t stride) {
    for (int axis = 0; axis < 2; ++axis) {
        const double log2_side = log2(relation_side(box[axis], box[axis + 2]));
        for (int k = 0; k < kFrequencies; ++k) {
            float* to = embedding + (axis * kTermChannels + k) * stride;
            sincos_turns(side_turns(log2_side, kTurns, k), to, to + kFrequencies * stride);
        }
    }
}

void pack_box(const float* box, int64_t column, Chunk& chunk) {
    for (int axis = 0; axis < 2; ++axis) {
        const Split<float> c = centre(box[axis], box[axis + 2]);
        chunk.centres[2 * axis * kChunk + column] = c.high;
        chunk.centres[(2 * axis + 1) * kChunk + column] = c.low;
    }
    const int64_t panel = column / kLanes, lane = column % kLanes;
    embed_sides(box, chunk.sizes + panel * kSizeChannel * kLanes + lane, kLanes);
}

// Columns panel * kLanes .. + kLanes of the chunk, which begins with support `begin` of the call.
void pack_panel(const RelationAttention& args, int64_t begin, int64_t panel, Chunk& chunk) {
    static const float no_box[4] = {};
    int64_t row[kLanes];  // of the storage, -1 for none
    for (int lane = 0; lane < kLanes; ++lane) {
        const int64_t column = panel * kLanes + lane, position = begin + column;
        const float weight = position < args.supports ? args.multiplicity[position] : 0.0f;
        row[lane] = weight > 0.0f ? args.support[position] : -1;
        chunk.weight[column] = weight;
        chunk.mask[column] = weight > 0.0f ? 0.0f : kNone;
        pack_box(weight > 0.0f ? args.support_boxes + 4 * row[lane] : no_box, column, chunk);
    }
    for (int64_t head = 0; head < args.heads; ++head) {
        float* keys = chunk.keys + (head * chunk.padded + panel * kLanes) * args.head_dim;
        float* values = chunk.values + head * chunk.padded * args.head_dim + panel * kLanes * kLanes;
        for (int lane = 0; lane < kLanes; ++lane) {
            const int64_t from = (row[lane] * args.heads + head) * args.head_dim;
            for (int64_t d = 0; d < args.head_dim; ++d)
                keys[d * kLanes + lane] = row[lane] < 0 ? 0.0f : args.keys[from + d];
            for (int64_t d = 0; d < args.head_dim; d += kLanes)
                store(values + d * chunk.padded + lane * kLanes,
                      row[lane] < 0 ? Floats{} : load(args.values + from + d));
        }
    }
}

void pack(const RelationAttention& args, int64_t begin, int64_t count, Chunk& chunk) {
    chunk.padded = ceil_div(count, kPair) * kPair;
    parallel_for(chunk.padded / kLanes, args.threads,
                 [&](int64_t panel, int) { pack_panel(args, begin, panel, chunk); });
}

// What one thread holds of some query rows while it goes over a chunk, in memory that it is lent.
struct Tile {
    Tile(const RelationAttention& args, int64_t first_row, int64_t height, float* memory)
        : first(first_row),
          rows(smaller(height, args.rows - first_row)),
          query(memory),
          geometry(query + kTileRows * args.heads * args.head_dim),
          gates(geometry + kTileRows * args.heads * kGeometryChannels),
          scores(gates + args.heads * kTileRows * kBlock) {}

    static int64_t size(const RelationAttention& args) {
        return kTileRows * (args.heads * (args.head_dim + kGeometryChannels + kBlock) + kBlock);
    }

    int64_t first, rows;  // query rows of the call
    float* query;         // [heads][kTileRows][head_dim] times log2(e) / sqrt(head_dim)
    float* geometry;      // [kTileRows][heads][64] weight of the centre terms, then of the supports' sides
    float* gates;         // [heads][kTileRows][kBlock]
    float* scores;        // [kTileRows][kBlock] of one head, base-2 logarithms of the softmax terms
};

void load_queries(const RelationAttention& args, Tile& tile) {
    const float scale = static_cast<float>(1.4426950408889634 / sqrt(static_cast<double>(args.head_dim)));
    for (int64_t r = 0; r < tile.rows; ++r) {
        const float* query = args.query + (tile.first + r) * args.heads * args.head_dim;
        for (int64_t head = 0; head < args.heads; ++head, query += args.head_dim) {
            float* to = tile.query + (head * kTileRows + r) * args.head_dim;
            for (int64_t d = 0; d < args.head_dim; ++d)
                to[d] = query[d] * scale;
        }
    }
}

void load_geometry(const RelationAttention& args, Tile& tile) {
    float* to = tile.geometry;
    for (int64_t r = 0; r < tile.rows; ++r) {
        float side[kSizeChannel];
        embed_sides(args.boxes + 4 * (tile.first + r), side, 1);
        for (int64_t head = 0; head < args.heads; ++head, to += kGeometryChannels) {
            const float* weight = args.geometry_weight + head * kGeometryChannels;
            memcpy(to, weight, kSizeChannel * sizeof(float));
            for (int term = kSizeChannel; term < kGeometryChannels; term += kTermChannels) {
                for (int sine = term; sine < term + kFrequencies; ++sine) {
                    const int cosine = sine + kFrequencies;
                    turn_weight(weight[sine], weight[cosine], side[sine - kSizeChannel], side[cosine - kSizeChannel],
                                &to[sine], &to[cosine]);
                }
            }
        }
    }
}

struct Place {
    Split<float> centre[2], inverse_side[2];  // x, y
};

// Sines and cosines of both centre terms between one box and kLanes supports -> [32][kLanes]
void embed_centres(const Place& place, const float* centres, float* embedding) {
    for (int axis = 0; axis < 2; ++axis) {
        const Split<float> c = place.centre[axis], inverse = place.inverse_side[axis];
        const Log2<Floats> offset =
            log2_offset<Floats>({broadcast<Floats>(c.high), broadcast<Floats>(c.low)},
                                {load(centres + 2 * axis * kChunk), load(centres + (2 * axis + 1) * kChunk)},
                                {broadcast<Floats>(inverse.high), broadcast<Floats>(inverse.low)});
        float* to = embedding + axis * kTermChannels * kLanes;
#pragma GCC unroll 8
        for (int k = 0; k < kFrequencies; ++k) {
            Floats sine, cosine;
            sincos_turns(offset_turns(offset, kTurns, k), &sine, &cosine);
            store(to + k * kLanes, sine);
            store(to + (k + kFrequencies) * kLanes, cosine);
        }
    }
}

// gates[head][row] of supports first .. first + width, multiplicity included.
void gate_row(const RelationAttention& args, const Chunk& chunk, int64_t first, int64_t width, int64_t row,
              Tile& tile) {
    const float* box = args.boxes + 4 * (tile.first + row);
    const Place place = {{centre(box[0], box[2]), centre(box[1], box[3])},
                         {inverse_side(box[0], box[2]), inverse_side(box[1], box[3])}};
    alignas(64) float embedding[2][kGeometryChannels][kLanes];
    for (int64_t j = 0; j < width; j += kPair) {
        for (int v = 0; v < 2; ++v) {
            const int64_t column = first + j + v * kLanes;
            embed_centres(place, chunk.centres + column, embedding[v][0]);
            memcpy(embedding[v][kSizeChannel], chunk.sizes + column * kSizeChannel, sizeof embedding[v] / 2);
        }
        float* to = tile.gates + row * kBlock + j;
        multiply<false>(args.heads, 2, tile.geometry + row * args.heads * kGeometryChannels, kGeometryChannels,
                        embedding[0][0], kGeometryChannels * kLanes, kGeometryChannels, to, kTileRows * kBlock);
        for (int64_t head = 0; head < args.heads; ++head, to += kTileRows * kBlock) {
            for (int v = 0; v < 2; ++v) {
                const Floats g = load(to + v * kLanes) + args.geometry_bias[head];
                store(to + v * kLanes, gate(g) * load(chunk.weight + first + j + v * kLanes));
            }
        }
    }
}

// Calls use(head, first, width) with the tile's gates and scores of that head and of width supports of the chunk.
template <class Use>
void visit(const RelationAttention& args, const Chunk& chunk, Tile& tile, const Use& use) {
    load_queries(args, tile);
    load_geometry(args, tile);
    const int64_t panel_size = args.head_dim * kLanes;
    for (int64_t first = 0; first < chunk.padded; first += kBlock) {
        const int64_t width = smaller(kBlock, chunk.padded - first);
        for (int64_t r = 0; r < tile.rows; ++r)
            gate_row(args, chunk, first, width, r, tile);
        for (int64_t head = 0; head < args.heads; ++head) {
            const float* keys = chunk.keys + (head * chunk.padded + first) * args.head_dim;
            multiply<false>(tile.rows, width / kLanes, tile.query + head * kTileRows * args.head_dim, args.head_dim,
                            keys, panel_size, args.head_dim, tile.scores, kBlock);
            use(head, first, width);
        }
    }
}

// The running softmax of every (row, head), [rows, heads]: the values' sum lies in args.out until the end.
struct Softmax {
    explicit Softmax(const RelationAttention& args)
        : maximum(args.rows * args.heads), normaliser(args.rows * args.heads) {
        for (int64_t i = 0; i < args.rows * args.heads; ++i) {
            maximum[i] = kNone;
            normaliser[i] = 0.0f;
        }
    }

    Array<float> maximum;     // of the scores so far
    Array<float> normaliser;  // sum of the weights, relative to that maximum
};

// Scores become weights, in place; what was summed before is scaled to the new maximum.
void weigh_row(const float* gates, const float* mask, int64_t width, float* scores, float* maximum, float* normaliser,
               float* values, int64_t head_dim) {
    Floats top = broadcast<Floats>(*maximum);
    for (int64_t j = 0; j < width; j += kLanes) {
        const Floats score = load(scores + j) + load(mask + j);
        top = score > top ? score : top;
    }
    const float raised = largest(top);
    if (raised > *maximum) {
        const float shrink = exp2_or_zero(*maximum - raised);
        *maximum = raised;
        *normaliser *= shrink;
        for (int64_t d = 0; d < head_dim; ++d)
            values[d] *= shrink;
    }
    Floats total = {};
    for (int64_t j = 0; j < width; j += kLanes) {
        const Floats weight = exp2_or_zero(load(scores + j) + load(mask + j) - raised) * load(gates + j);
        store(scores + j, weight);
        total += weight;
    }
    *normaliser += sum(total);
}

void attend(const RelationAttention& args, const Chunk& chunk, Tile tile, Softmax& softmax) {
    const int64_t dim = args.heads * args.head_dim;
    visit(args, chunk, tile, [&](int64_t head, int64_t first, int64_t width) {
        float* out = args.out + tile.first * dim + head * args.head_dim;
        for (int64_t r = 0; r < tile.rows; ++r) {
            const int64_t state = (tile.first + r) * args.heads + head;
            weigh_row(tile.gates + (head * kTileRows + r) * kBlock, chunk.mask + first, width, tile.scores + r * kBlock,
                      &softmax.maximum[state], &softmax.normaliser[state], out + r * dim, args.head_dim);
        }
        const float* values = chunk.values + head * args.head_dim * chunk.padded + first * kLanes;
        multiply<true>(tile.rows, args.head_dim / kLanes, tile.scores, kBlock, values, chunk.padded * kLanes, width,
                       out, dim);
    });
}

// Second pass, over the wanted supports alone (the chunk holds them from `begin` on), when the softmax is complete.
void average_weights(const RelationAttention& args, const Chunk& chunk, int64_t begin, Tile tile,
                     const Softmax& softmax) {
    const int64_t wanted = args.omega_end - args.omega_begin;
    visit(args, chunk, tile, [&](int64_t head, int64_t first, int64_t width) {
        const int64_t count = smaller(width, wanted - begin - first);
        for (int64_t r = 0; r < tile.rows; ++r) {
            const int64_t state = (tile.first + r) * args.heads + head;
            const float* gates = tile.gates + (head * kTileRows + r) * kBlock;
            const float share = 1.0f / (softmax.normaliser[state] * static_cast<float>(args.heads));
            float* scores = tile.scores + r * kBlock;
            for (int64_t j = 0; j < width; j += kLanes) {
                const Floats score = load(scores + j) + load(chunk.mask + first + j) - softmax.maximum[state];
                store(scores + j, exp2_or_zero(score) * load(gates + j) * share);
            }
            float* omega = args.omega + (tile.first + r) * wanted + begin + first;
            for (int64_t j = 0; j < count; ++j)
                omega[j] += scores[j];
        }
    });
}

void normalise(const RelationAttention& args, const Softmax& softmax) {
    for (int64_t i = 0; i < args.rows * args.heads; ++i)
        for (int64_t d = 0; d < args.head_dim; ++d)
            args.out[i * args.head_dim + d] /= softmax.normaliser[i];
}

bool any_support(const RelationAttention& args) {
    for (int64_t j = 0; j < args.supports; ++j)
        if (args.multiplicity[j] > 0.0f) return true;
    return false;
}

// A pair costs each head its channels twice (keys, values), the geometry's once, and some twenty for the softmax.
double operations(const RelationAttention& args) {
    const double pairs = static_cast<double>(args.rows) * args.supports * args.heads;
    return pairs * (4.0 * args.head_dim + 2.0 * kGeometryChannels + 20.0);
}

// Fewer rows where the threads would not all find a tile. A row's arithmetic does not depend on its tile.
int64_t tile_height(const RelationAttention& args) {
    const int64_t share = ceil_div(args.rows, args.threads);
    return smaller(kTileRows, ceil_div(share, kMostRows) * kMostRows);
}

}  // namespace

void relation_attention(const RelationAttention& asked) {
    RelationAttention args = asked;
    args.threads = worth_waking(asked.threads, operations(asked));
    memset(args.out, 0, sizeof(float) * args.rows * args.heads * args.head_dim);
    memset(args.omega, 0, sizeof(float) * args.rows * (args.omega_end - args.omega_begin));
    if (args.rows == 0 || !any_support(args)) return;

    const int64_t height = tile_height(args), tiles = ceil_div(args.rows, height), tile_size = Tile::size(args);
    Chunk chunk(args);
    Softmax softmax(args);
    Array<float> scratch(smaller(args.threads, tiles) * tile_size);
    const auto for_each_tile = [&](auto use) {
        parallel_for(tiles, args.threads, [&](int64_t tile, int worker) {
            use(Tile(args, tile * height, height, scratch + worker * tile_size));
        });
    };
    for (int64_t begin = 0; begin < args.supports; begin += kChunk) {
        pack(args, begin, smaller(kChunk, args.supports - begin), chunk);
        for_each_tile([&](Tile tile) { attend(args, chunk, tile, softmax); });
    }
    normalise(args, softmax);
    for (int64_t begin = args.omega_begin; begin < args.omega_end; begin += kChunk) {
        pack(args, begin, smaller(kChunk, args.omega_end - begin), chunk);
        for_each_tile([&](Tile tile) { average_weights(args, chunk, begin - args.omega_begin, tile, softmax); });
    }
}

}  // namespace rdn::cpu::RDN_ISA
