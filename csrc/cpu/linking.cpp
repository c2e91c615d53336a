// Box linking (paper, section 3.4). Small, so compiled once.
#include "linking.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <numeric>
#include <queue>
#include <utility>
#include <vector>

#include "rdn/box.h"

namespace rdn::cpu {

namespace {

constexpr int64_t kOpen = -2;  // path of a box that none has taken yet

// Viterbi's forward pass, repaired and not repeated when boxes leave: a box whose way in is still there keeps its gain.
class Forward {
  public:
    explicit Forward(const LinkPaths& args)
        : args_(args), gain_(args.boxes), before_(args.boxes), queued_(args.boxes, 0), out_start_(args.boxes + 1) {
        std::fill_n(args.path, args.boxes, kOpen);
        turn_links();
        for (int64_t box = 0; box < args.boxes; ++box)
            arrive(box);
    }

    double gain(int64_t last) const { return gain_[last]; }

    bool open(int64_t box) const { return args_.path[box] == kOpen; }

    // Takes the best path that ends with box `last`, and the rivals of its boxes.
    void take(int64_t last, int64_t number) {
        for (int64_t box = last; box >= 0; box = before_[box]) {
            leave(box, number);
            for (int64_t k = args_.rival_start[box]; k < args_.rival_start[box + 1]; ++k)
                if (open(args_.rival[k])) leave(args_.rival[k], -1);
        }
        // Smallest first, so that every way into a box is settled before the box is.
        while (!dirty_.empty()) {
            const int64_t box = dirty_.top();
            dirty_.pop();
            queued_[box] = false;
            if (!open(box)) continue;
            const double had = gain_[box];
            arrive(box);
            if (gain_[box] != had) disturb_from(box);
        }
    }

  private:
    void turn_links() {
        for (int64_t k = 0; k < args_.links; ++k)
            ++out_start_[args_.source[k] + 1];
        for (int64_t box = 0; box < args_.boxes; ++box)
            out_start_[box + 1] += out_start_[box];
        target_.resize(args_.links);
        std::vector<int64_t> next(out_start_.begin(), out_start_.end());
        for (int64_t box = 0; box < args_.boxes; ++box)
            for (int64_t k = args_.link_start[box]; k < args_.link_start[box + 1]; ++k)
                target_[next[args_.source[k]]++] = box;
    }

    void arrive(int64_t box) {
        double most = 0.0;
        before_[box] = -1;
        for (int64_t k = args_.link_start[box]; k < args_.link_start[box + 1]; ++k) {
            const int64_t from = args_.source[k];
            const double total = gain_[from] + args_.score[k];
            if (open(from) && total > most) most = total, before_[box] = from;
        }
        gain_[box] = most + args_.value[box];
    }

    void leave(int64_t box, int64_t number) {
        args_.path[box] = number;
        disturb_from(box);
    }

    void disturb_from(int64_t box) {
        for (int64_t k = out_start_[box]; k < out_start_[box + 1]; ++k) {
            const int64_t to = target_[k];
            if (!open(to) || before_[to] != box || queued_[to]) continue;
            queued_[to] = true;
            dirty_.push(to);
        }
    }

    const LinkPaths& args_;
    std::vector<double> gain_;     // [boxes] of the best path that ends here
    std::vector<int64_t> before_;  // [boxes] box before it on that path, -1 where it starts here
    std::vector<char> queued_;     // [boxes] in dirty_
    std::vector<int64_t> out_start_, target_;
    std::priority_queue<int64_t, std::vector<int64_t>, std::greater<>> dirty_;
};

// Boxes that no link and no rivalry joins do not know of each other: the work of each group lies together in memory,
// and a long video costs what its frames cost, not more for their number.
class Groups {
  public:
    explicit Groups(const LinkPaths& args) : args_(args), parent_(args.boxes), place_(args.boxes), order_(args.boxes) {
        std::iota(parent_.begin(), parent_.end(), int64_t{0});
        for (int64_t box = 0; box < args.boxes; ++box) {
            for (int64_t k = args.link_start[box]; k < args.link_start[box + 1]; ++k)
                join(box, args.source[k]);
            for (int64_t k = args.rival_start[box]; k < args.rival_start[box + 1]; ++k)
                join(box, args.rival[k]);
        }
        sort_boxes();
        copy();
    }

    // The same problem, its boxes numbered group by group and within a group as before.
    LinkPaths sorted(int64_t* path) const {
        return {value_.data(), link_start_.data(), source_.data(), score_.data(), rival_start_.data(),
                rival_.data(), args_.boxes,        args_.links,    path};
    }

    const std::vector<int64_t>& starts() const { return starts_; }  // of the groups, and the end of the last
    int64_t box(int64_t place) const { return order_[place]; }

  private:
    int64_t root(int64_t box) {
        while (parent_[box] != box)
            box = parent_[box] = parent_[parent_[box]];
        return box;
    }

    // The root is a group's first box.
    void join(int64_t a, int64_t b) {
        const int64_t one = root(a), other = root(b);
        parent_[std::max(one, other)] = std::min(one, other);
    }

    void sort_boxes() {
        std::vector<int64_t> next(args_.boxes, 0);  // by root: boxes, then the place of the next one
        for (int64_t box = 0; box < args_.boxes; ++box)
            ++next[root(box)];
        int64_t total = 0;
        for (int64_t box = 0; box < args_.boxes; ++box) {
            if (root(box) != box) continue;
            starts_.push_back(total);
            total += std::exchange(next[box], total);
        }
        starts_.push_back(total);
        for (int64_t box = 0; box < args_.boxes; ++box) {
            place_[box] = next[root(box)]++;
            order_[place_[box]] = box;
        }
    }

    void copy() {
        for (int64_t place = 0; place < args_.boxes; ++place) {
            const int64_t box = order_[place];
            value_.push_back(args_.value[box]);
            for (int64_t k = args_.link_start[box]; k < args_.link_start[box + 1]; ++k) {
                source_.push_back(place_[args_.source[k]]);
                score_.push_back(args_.score[k]);
            }
            for (int64_t k = args_.rival_start[box]; k < args_.rival_start[box + 1]; ++k)
                rival_.push_back(place_[args_.rival[k]]);
            link_start_.push_back(static_cast<int64_t>(source_.size()));
            rival_start_.push_back(static_cast<int64_t>(rival_.size()));
        }
    }

    const LinkPaths& args_;
    std::vector<int64_t> parent_, place_, order_, starts_;
    std::vector<double> value_, score_;
    std::vector<int64_t> link_start_{0}, source_, rival_start_{0}, rival_;
};

// Takes the paths of boxes begin..end, a group; returns the number of the next path.
int64_t take_paths(Forward& forward, int64_t begin, int64_t end, int64_t number) {
    // Highest gain first, then the smallest last box. Gains only fall, so an entry out of date is too high, never too
    // low.
    using Entry = std::pair<double, int64_t>;  // gain, -last
    std::vector<Entry> entries;
    for (int64_t box = begin; box < end; ++box)
        entries.emplace_back(forward.gain(box), -box);
    std::priority_queue<Entry> ends(std::less<Entry>(), std::move(entries));
    while (!ends.empty()) {
        const auto [gain, minus_last] = ends.top();
        ends.pop();
        const int64_t last = -minus_last;
        if (!forward.open(last)) continue;
        if (forward.gain(last) != gain)
            ends.emplace(forward.gain(last), -last);
        else
            forward.take(last, number++);
    }
    return number;
}

// The Hungarian method by shortest augmenting paths (Kuhn 1955; Jonker and Volgenant 1987): potentials keep the reduced
// cost of every pair at 0 or more, and that of every pair that was chosen at 0. Each row has a column of its own beyond
// the others, worth nothing, so that it may stay alone.
class Hungarian {
  public:
    explicit Hungarian(const Assignment& args)
        : args_(args),
          width_(args.columns + args.rows),
          row_potential_(args.rows),
          potential_(width_),
          owner_(width_, -1) {}

    const std::vector<int64_t>& solve() {
        for (int64_t row = 0; row < args_.rows; ++row)
            place(row);
        return owner_;
    }

  private:
    double cost(int64_t row, int64_t column) const {
        if (column >= args_.columns) return column - args_.columns == row ? 0.0 : kNever;
        const double gain = args_.gain[row * args_.columns + column];
        return gain > 0.0 ? -gain : kNever;
    }

    // Finds the cheapest way to give `row` a column, moving others on, and takes it.
    void place(int64_t row) {
        std::vector<double> distance(width_, kNever);
        std::vector<int64_t> before(width_, -1);  // column whose row moves on to this one, -1 for `row` itself
        std::vector<char> settled(width_, 0);
        int64_t at = -1, from = row;
        double least = 0.0;
        do {
            int64_t next = -1;
            for (int64_t column = 0; column < width_; ++column) {
                if (settled[column]) continue;
                const double price = cost(from, column);
                const double way = least + price - row_potential_[from] - potential_[column];
                if (price < kNever && way < distance[column]) distance[column] = way, before[column] = at;
                if (distance[column] < kNever && (next < 0 || distance[column] < distance[next])) next = column;
            }
            // There always is one: the row's own column, or that of a row that would move.
            at = next, least = distance[next], settled[next] = 1, from = owner_[next];
        } while (from >= 0);
        row_potential_[row] += least;
        for (int64_t column = 0; column < width_; ++column)
            if (settled[column] && column != at) {
                row_potential_[owner_[column]] += least - distance[column];
                potential_[column] += distance[column] - least;
            }
        for (int64_t column = at; column >= 0; column = before[column])
            owner_[column] = before[column] < 0 ? row : owner_[before[column]];
    }

    static constexpr double kNever = std::numeric_limits<double>::infinity();
    const Assignment& args_;
    int64_t width_;
    std::vector<double> row_potential_, potential_;
    std::vector<int64_t> owner_;  // [width] row of each column, -1 for none
};

Box box_at(const float* boxes, int64_t row) {
    const float* box = boxes + 4 * row;
    return {box[0], box[1], box[2], box[3]};
}

}  // namespace

void overlaps(Overlaps& args) {
    // Others by class, in order within a class: most pairs are of different ones.
    std::vector<std::pair<int64_t, int64_t>> others(args.other_rows);
    for (int64_t other = 0; other < args.other_rows; ++other)
        others[other] = {args.other_classes[other], other};
    std::sort(others.begin(), others.end());
    for (int64_t row = 0; row < args.rows; ++row) {
        const Box box = box_at(args.boxes, row);
        const int64_t wanted = args.classes[row];
        auto at = std::lower_bound(others.begin(), others.end(), std::make_pair(wanted, int64_t{0}));
        for (; at != others.end() && at->first == wanted; ++at) {
            const Box second = box_at(args.other_boxes, at->second);
            const float overlap = iou(box, area(box), second, area(second));
            if (!(overlap > args.limit)) continue;
            args.row.push_back(row), args.other.push_back(at->second), args.iou.push_back(overlap);
        }
    }
}

int64_t link_paths(const LinkPaths& args) {
    const Groups groups(args);
    std::vector<int64_t> path(args.boxes);
    const LinkPaths sorted = groups.sorted(path.data());
    Forward forward(sorted);
    int64_t paths = 0;
    for (size_t group = 0; group + 1 < groups.starts().size(); ++group)
        paths = take_paths(forward, groups.starts()[group], groups.starts()[group + 1], paths);
    for (int64_t place = 0; place < args.boxes; ++place)
        args.path[groups.box(place)] = path[place];
    return paths;
}

void group_means(const GroupMeans& args) {
    std::vector<int64_t> starts(args.groups + 1);
    for (int64_t k = 0; k < args.count; ++k)
        ++starts[args.group[k] + 1];
    for (int64_t group = 0; group < args.groups; ++group)
        starts[group + 1] += starts[group];
    std::vector<float> sorted(args.count);
    std::vector<int64_t> next(starts.begin(), starts.end());
    for (int64_t k = 0; k < args.count; ++k)
        sorted[next[args.group[k]]++] = args.score[k];
    for (int64_t group = 0; group < args.groups; ++group) {
        const auto first = sorted.begin() + starts[group], last = sorted.begin() + starts[group + 1];
        const int64_t all = last - first, taken = args.better_half ? (all + 1) / 2 : all;
        if (taken < all) std::nth_element(first, first + taken - 1, last, std::greater<>());
        double sum = 0.0;
        for (int64_t k = 0; k < taken; ++k)
            sum += first[k];
        args.mean[group] = taken ? sum / static_cast<double>(taken) : 0.0;
    }
}

void assign(const Assignment& args) {
    std::fill_n(args.column, args.rows, int64_t{-1});
    Hungarian method(args);
    const std::vector<int64_t>& owner = method.solve();
    for (int64_t column = 0; column < args.columns; ++column)
        if (owner[column] >= 0) args.column[owner[column]] = column;
}

}  // namespace rdn::cpu
