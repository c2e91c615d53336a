// Cosine attention of a window's rows with its proposals, by what changed since the last window.
//
// A frame's part of a row's sums is computed in float32, always by the same operations, and added to sums in float64:
// what is added once and subtracted once leaves nothing behind.
#include "cosine.h"
#include "isa.h"
#include "parallel.h"

namespace rdn::cpu::RDN_ISA {
namespace {

constexpr double kLeft = 1e-6;     // part of the largest normaliser that must be left
constexpr int64_t kColumns = 128;  // most proposals of a block
constexpr int64_t kGroups = 8;     // of a task

// Rows of one slot, for which the same frames come and go; no more than a tile of the products.
struct Group {
    const int8_t* change;  // of each slot of the bank
    bool restart;
    int64_t slot, first, rows;
    int64_t position;  // of its first row among the call's
};

struct Scratch {
    float* scores;  // [kMostRows][kColumns] of one head; then softmax terms
    float* values;  // [kMostRows][head_dim]
};

// A head of a group, which counts both attentions' heads.
struct Sums {
    Sums(const CosineRefine& args, const Group& group, int64_t head) {
        const CosineBank& bank = args.bank;
        const int64_t row = (head * bank.slots + group.slot) * bank.capacity + group.first;
        values = args.sums.values + row * bank.head_dim;
        normaliser = args.sums.normaliser + row;
        peak = args.sums.peak + row;
    }

    double* values;  // [rows][head_dim]
    double* normaliser;
    double* peak;
};

// Scores become softmax terms, in place; returns their sum.
float weigh_row(int64_t count, float* scores) {
    Floats total = {};
    int64_t j = 0;
    for (; j + kLanes <= count; j += kLanes) {
        const Floats term = exp2_bounded(load(scores + j));
        total += term;
        store(scores + j, term);
    }
    if (j < count) {
        const Floats term = only(taken_lanes(count - j), exp2_bounded(load(scores + j)));
        total += term;
        store(scores + j, term);
    }
    return sum(total);
}

// Whether all numbers are finite.
bool add_block(const CosineRefine& args, const Group& group, const Block& block, int64_t head, double times,
               const Scratch& scratch) {
    const CosineBank& bank = args.bank;
    const Sums sums(args, group, head);
    const float* query = queries(bank, group.slot, head, group.first);
    if (head + 1 < kAttentions * bank.heads) {
        ask(queries(bank, group.slot, head + 1, group.first), group.rows * bank.head_dim);
        ask(Sums(args, group, head + 1).values, group.rows * bank.head_dim);
    }
    score_rows<kColumns>(bank, group.rows, query, block, head, scratch.scores);
    float total[kMostRows];
    for (int64_t r = 0; r < group.rows; ++r)
        total[r] = weigh_row(block.count, scratch.scores + r * kColumns);
    for (int64_t r = 0; r < group.rows; ++r)
        sums.normaliser[r] += times * total[r];
    const float* values = block_values(bank, block, head % bank.heads);
    sum_values<kColumns>(bank, group.rows, scratch.scores, values, block.count, scratch.values);
    return add_times(times, scratch.values, group.rows * bank.head_dim, sums.values);
}

// Brings a head of some groups to the window; clears right[] of a row that is no number, or of which too little is
// left. Block after block, so that its keys and values stay in the first-level cache meanwhile.
void change_head(const CosineRefine& args, const Block* blocks, int64_t count, const Group* groups, const Group* end,
                 int64_t head, const Scratch& scratch, uint8_t* right) {
    bool every_block = false;  // is of use
    for (const Group* group = groups; group < end; ++group) {
        if (!group->restart) continue;
        every_block = true;
        const Sums sums(args, *group, head);
        memset(sums.values, 0, sizeof(double) * group->rows * args.bank.head_dim);
        memset(sums.normaliser, 0, sizeof(double) * group->rows);
        memset(sums.peak, 0, sizeof(double) * group->rows);
    }
    for (int64_t b = 0; b < count; ++b) {
        if (every_block && b + 1 < count) ask_block(args.bank, blocks[b + 1], head);
        for (const Group* group = groups; group < end; ++group) {
            const double times = group->change[blocks[b].frame];
            if (times == 0.0) continue;
            if (!add_block(args, *group, blocks[b], head, times, scratch))
                memset(right + group->position, 0, group->rows);
        }
    }
    for (const Group* group = groups; group < end; ++group) {
        const Sums sums(args, *group, head);
        for (int64_t r = 0; r < group->rows; ++r) {
            const double normaliser = sums.normaliser[r];
            if (normaliser > sums.peak[r]) sums.peak[r] = normaliser;
            right[group->position + r] &= normaliser > kLeft * sums.peak[r];
        }
    }
}

// What a call does, by the frames of the window and all slots of the bank.
struct Plan {
    explicit Plan(const CosineRefine& args)
        : every(args.bank.slots),
          wanted(args.bank.slots),
          change(larger(args.frames * args.bank.slots, 1)),
          restart(larger(args.frames, 1)) {
        const int64_t slots = args.bank.slots;
        memset(wanted, 0, slots);
        for (int64_t i = 0; i < args.frames; ++i)
            wanted[args.slot[i]] = 1;
        for (int64_t s = 0; s < slots; ++s)
            every[s] = s;
        for (int64_t i = 0; i < args.frames; ++i) {
            const int8_t* included = args.included + args.slot[i] * slots;
            int8_t* mine = change + i * slots;
            int64_t changes = 0;
            for (int64_t s = 0; s < slots; ++s) {
                mine[s] = static_cast<int8_t>(wanted[s] - included[s]);
                changes += mine[s] != 0;
            }
            restart[i] = changes >= args.frames;  // as where nothing is included
            if (restart[i]) memcpy(mine, wanted, slots);
        }
    }

    Array<int64_t> every;    // [slots] 0, 1, 2, ...
    Array<int8_t> wanted;    // [slots] 1: part of the window
    Array<int8_t> change;    // [frames, slots] 1: the slot comes into the sums of a frame's rows, -1: it goes
    Array<uint8_t> restart;  // [frames] the sums begin at zero
};

// Rows that have summed another number of a slot's proposals begin anew; so do the slot's own, which may be more.
void forget_other_counts(const CosineRefine& args) {
    const int64_t slots = args.bank.slots;
    for (int64_t s = 0; s < slots; ++s) {
        if (args.count[s] == args.summed[s]) continue;
        for (int64_t row = 0; row < slots; ++row)
            if (row == s || args.included[row * slots + s] != 0) memset(args.included + row * slots, 0, slots);
        args.summed[s] = args.count[s];
    }
}

// A pair costs each head of either attention its channels twice, and some thirty for the softmax.
double operations(const CosineRefine& args, const Plan& plan) {
    double pairs = 0;
    for (int64_t i = 0; i < args.frames; ++i)
        for (int64_t s = 0; s < args.bank.slots; ++s)
            if (plan.change[i * args.bank.slots + s] != 0)
                pairs += static_cast<double>(args.summed[args.slot[i]]) * args.summed[s];
    return pairs * kAttentions * args.bank.heads * (4.0 * args.bank.head_dim + 30.0);
}

}  // namespace

void cosine_refine(const CosineRefine& args) {
    const CosineBank& bank = args.bank;
    forget_other_counts(args);
    const Plan plan(args);
    int64_t all = 0;
    for (int64_t i = 0; i < args.frames; ++i)
        all += args.summed[args.slot[i]];
    Array<Group> groups(larger(all, 1));
    int64_t group_count = 0;
    for (int64_t i = 0, at = 0; i < args.frames; at += args.summed[args.slot[i++]]) {
        const int64_t rows = args.summed[args.slot[i]], height = even_part(rows, kMostRows);
        for (int64_t first = 0; first < rows; first += height)
            groups[group_count++] = {plan.change + i * bank.slots,
                                     plan.restart[i] != 0,
                                     args.slot[i],
                                     first,
                                     smaller(height, rows - first),
                                     at + first};
    }
    const SupportFrames support = {plan.every, args.summed, bank.slots};
    const int64_t count = count_blocks(support, kColumns);
    Array<Block> blocks(larger(count, 1));
    cut_blocks(support, kColumns, blocks);
    const int threads = worth_waking(args.threads, operations(args, plan));
    const int64_t tasks = ceil_div(group_count, kGroups), size = kMostRows * (kColumns + bank.head_dim);
    Array<float> memory(larger(smaller(threads, tasks) * size, 1));
    Array<uint8_t> right(larger(all, 1));
    memset(right, 1, all);
    // Nothing, should a task fail half way.
    for (int64_t i = 0; i < args.frames; ++i)
        memset(args.included + args.slot[i] * bank.slots, 0, bank.slots);
    parallel_for(tasks, threads, [&](int64_t task, int worker) {
        float* mine = memory + worker * size;
        const Scratch scratch = {mine, mine + kMostRows * kColumns};
        const Group *begin = groups + task * kGroups, *end = groups + smaller((task + 1) * kGroups, group_count);
        for (int64_t head = 0; head < kAttentions * bank.heads; ++head)
            change_head(args, blocks, count, begin, end, head, scratch, right);
        for (const Group* group = begin; group < end; ++group) {
            for (int64_t r = 0; r < group->rows; ++r) {
                const int64_t position = group->position + r;
                if (right[position] || group->restart) continue;
                const Group row = {plan.wanted, true, group->slot, group->first + r, 1, position};
                right[position] = 1;
                for (int64_t head = 0; head < kAttentions * bank.heads; ++head)
                    change_head(args, blocks, count, &row, &row + 1, head, scratch, right);
            }
        }
    });
    for (int64_t i = 0, at = 0; i < args.frames; ++i) {
        const int64_t end = at + args.summed[args.slot[i]];
        bool finite = true;
        for (; at < end; ++at)
            finite &= right[at] != 0;
        if (finite) memcpy(args.included + args.slot[i] * bank.slots, plan.wanted, bank.slots);
    }
}

}  // namespace rdn::cpu::RDN_ISA
