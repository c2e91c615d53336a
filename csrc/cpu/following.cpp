// Template matching by normalised cross-correlation of colours. The inner loops run over places, not over what is
// summed, and no multiplication is fused with an addition: all instruction sets find the same, to the bit.
#include "rdn/following.h"

#include <cmath>

#include "isa.h"
#include "product.h"
#include "scratch.h"

namespace rdn::cpu::RDN_ISA {
namespace {

constexpr int64_t kColours = 3;
constexpr int64_t kArea = kCells + 2 * kReach, kPlaces = 2 * kReach + 1;                 // cells and places of a side
constexpr int64_t kVectors = (kPlaces + kLanes - 1) / kLanes, kRow = kVectors * kLanes;  // of a row of places
constexpr float kStep = kAround / kCells;                                                // of a cell, in sides of a box
constexpr double kNoise = 4;        // grey levels squared, of all colours: two that differ by so little are alike
constexpr float kFarther = 0.5f;    // what a box's side of distance from the guess, squared, takes from a likeness
constexpr float kFade = 1.5f;       // with what a cell counts the less, the farther it is from a box's middle
constexpr float kLeastPart = 0.4f;  // of the cells that lie on both pictures, or they are not compared

// `least` of what is no number.
template <class T>
T clamped(T x, T least, T most) {
    return !(x > least) ? least : x < most ? x : most;
}

double positive(double x) {
    return x > 0.0 ? x : 0.0;
}

// Sums of each colour over all that lies above and left of each corner of a picture's pixels.
class Sums {
  public:
    Sums(const uint8_t* picture, int64_t height, int64_t width)
        : height_(height), width_(width), sums_((height + 1) * (width + 1) * kColours) {
        const int64_t line = (width + 1) * kColours;
        memset(sums_, 0, sizeof(int64_t) * line);
        for (int64_t y = 0; y < height; ++y) {
            const uint8_t* row = picture + y * width * kColours;
            const int64_t* above = sums_ + y * line;
            int64_t* here = sums_ + (y + 1) * line;
            int64_t left[kColours]{};
            memset(here, 0, sizeof left);
            for (int64_t i = kColours; i < line; i += kColours)
                for (int64_t c = 0; c < kColours; ++c)
                    here[i + c] = left[c] += row[i + c - kColours];
            for (int64_t i = kColours; i < line; ++i)
                here[i] += above[i];
        }
    }

    // A coordinate cut off at the picture's edges: the pixel that it lies in, and how far.
    struct Place {
        float at;
        int64_t pixel;
        double part;
    };
    Place place_y(float y) const { return place(y, height_); }
    Place place_x(float x) const { return place(x, width_); }

    // At a point of the picture, its edges included: exact, because a pixel's colour is the same all over it.
    void at(const Place& y, const Place& x, double* out) const {
        const int64_t* upper = sums_ + (y.pixel * (width_ + 1) + x.pixel) * kColours;
        const int64_t* lower = upper + (width_ + 1) * kColours;
        for (int64_t c = 0; c < kColours; ++c) {
            const double top = upper[c] + x.part * (upper[c + kColours] - upper[c]);
            const double bottom = lower[c] + x.part * (lower[c + kColours] - lower[c]);
            out[c] = top + y.part * (bottom - top);
        }
    }

  private:
    static Place place(float x, int64_t side) {
        const float at = clamped(x, 0.0f, static_cast<float>(side));
        const int64_t pixel = smaller(static_cast<int64_t>(at), side - 1);
        return {at, pixel, at - static_cast<float>(pixel)};
    }

    int64_t height_, width_;
    Array<int64_t> sums_;
};

// Means over cells, of which those that lie on the picture with more than half of either side are looked at: a
// rectangle of them, top to bottom and left to right. The others' means are 0.
template <int64_t kSide>
struct Cells {
    float mean[kColours][kSide * kSide + kRow];  // vectors of places reach beyond the last
    int64_t top = kSide, bottom = 0, left = kSide, right = 0;

    // Rows of cells begin at `y`, columns at `x`.
    void look(const Sums& sums, float y, float x, float tall, float wide) {
        double corners[2][kSide + 1][kColours];
        Sums::Place ys[kSide + 1], xs[kSide + 1];
        for (int64_t j = 0; j <= kSide; ++j) {
            ys[j] = sums.place_y(y + static_cast<float>(j) * tall);
            xs[j] = sums.place_x(x + static_cast<float>(j) * wide);
        }
        for (int64_t j = 0; j < kSide; ++j) {
            if (ys[j + 1].at - ys[j].at > 0.5f * tall) top = smaller(top, j), bottom = j + 1;
            if (xs[j + 1].at - xs[j].at > 0.5f * wide) left = smaller(left, j), right = j + 1;
        }
        memset(mean, 0, sizeof mean);
        for (int64_t i = top; i <= bottom && top < bottom; ++i) {
            auto &above = corners[(i + 1) % 2], &below = corners[i % 2];
            for (int64_t j = left; j <= right; ++j)
                sums.at(ys[i], xs[j], below[j]);
            if (i == top) continue;
            for (int64_t j = left; j < right; ++j)
                for (int64_t c = 0; c < kColours; ++c) {
                    const double sum = (below[j + 1][c] - below[j][c]) - (above[j + 1][c] - above[j][c]);
                    const float area = (ys[i].at - ys[i - 1].at) * (xs[j + 1].at - xs[j].at);
                    mean[c][(i - 1) * kSide + j] = static_cast<float>(sum / area);
                }
        }
        centre();
    }

  private:
    // Correlations do not know where colours begin, and squares of small numbers swallow no differences.
    void centre() {
        if (top >= bottom || left >= right) return;
        const auto count = static_cast<float>((bottom - top) * (right - left));
        for (auto& colour : mean) {
            constexpr int64_t kParts = 16;  // sums that do not wait for each other, of whatever instruction set
            static_assert(kSide * kSide % kParts == 0);
            float parts[kParts]{}, sum = 0;
            for (int64_t i = 0; i < kSide * kSide; i += kParts)
                for (int64_t k = 0; k < kParts; ++k)
                    parts[k] += colour[i + k];
            for (const float part : parts)
                sum += part;
            for (int64_t i = top; i < bottom; ++i)
                for (int64_t j = left; j < right; ++j)
                    colour[i * kSide + j] -= sum / count;
        }
    }
};

// What a cell counts by its row, or by its column: what is far from the middle of a box is rather not of its object.
struct Weights {
    float of[kCells];
    double before[kCells + 1];  // sum of all before

    Weights() {
        before[0] = 0.0;
        for (int64_t a = 0; a < kCells; ++a) {
            const float far = kAround * (2 * (static_cast<float>(a) + 0.5f) / kCells - 1);  // in halves of a box's side
            of[a] = expf(-kFade * far * far);
            before[a + 1] = before[a] + of[a];
        }
    }
};

constexpr int64_t kKinds = kColours + 1;  // of sums: of each colour, and of the squares of all

// Weighted sums over the known cells above and left of each corner.
struct Totals {
    double sums[kCells + 1][kCells + 1][kKinds];

    Totals(const Weights& weights, const Cells<kCells>& cells) {
        memset(sums, 0, sizeof sums);
        for (int64_t i = 0; i < kCells; ++i) {
            double row[kKinds]{};
            for (int64_t j = 0; j < kCells; ++j) {
                const double weight = weights.of[i] * weights.of[j];
                for (int64_t c = 0; c < kColours; ++c) {
                    const double one = cells.mean[c][i * kCells + j];
                    row[c] += weight * one;
                    row[kColours] += weight * one * one;
                }
                for (int64_t k = 0; k < kKinds; ++k)
                    sums[i + 1][j + 1][k] = sums[i][j + 1][k] + row[k];
            }
        }
    }

    double of(int64_t top, int64_t bottom, int64_t left, int64_t right, int64_t kind) const {
        return sums[bottom][right][kind] - sums[top][right][kind] - sums[bottom][left][kind] + sums[top][left][kind];
    }
};

// A rectangle of cells, and what is known of those that lie in it.
struct Known {
    int64_t top = 0, bottom = 0, left = 0, right = 0;
    double part;                      // 1 over the sum of their weights
    double mean[kColours], variance;  // of all colours together, less their means
};

// What is known, and how like it is what is seen at each place.
class Likeness {
  public:
    Likeness(const Weights& weights, const Cells<kCells>& known, const Cells<kArea>& seen)
        : weights_(weights), known_(known), seen_(seen), totals_(weights, known) {
        for (int64_t c = 0; c < kColours; ++c)
            for (int64_t a = 0; a < kCells; ++a)
                for (int64_t b = 0; b < kCells; ++b)
                    weighted_[c][a * kCells + b] = known.mean[c][a * kCells + b] * weights.of[a] * weights.of[b];
        float squares[kArea * kArea + kRow]{};
        for (const auto& colour : seen.mean)
            for (int64_t i = 0; i < kArea * kArea; ++i)
                squares[i] += colour[i] * colour[i];
        for (int64_t k = 0; k < kKinds; ++k)
            sum(k < kColours ? seen.mean[k] : squares, seen_sums_[k]);
    }

    // Of all places.
    void of_all(float (*likeness)[kPlaces]) {
        alignas(64) float products[kPlaces][kRow];
        int64_t i = 0;
        for (; i + kTogether <= kPlaces; i += kTogether)
            multiply_rows<kTogether>(i, products + i);
        multiply_rows<kPlaces % kTogether>(i, products + i);
        for (i = 0; i < kPlaces; ++i)
            compare_row(i, products[i], likeness[i]);
    }

  private:
    // Rows of places whose sums fit the registers: a single row's would wait for each other.
    static constexpr int64_t kTogether = kLanes == 16 ? 6 : kLanes == 8 ? 4 : 2;

    // What is known times what is seen at each place of some rows.
    template <int64_t kRows>
    void multiply_rows(int64_t i, float (*products)[kRow]) const {
        Floats sums[kRows][kVectors] = {};
        for (int64_t c = 0; c < kColours; ++c)
            for (int64_t a = known_.top; a < known_.bottom; ++a)
                for (int64_t b = known_.left; b < known_.right; ++b) {
                    const float* seen = seen_.mean[c] + (i + a) * kArea + b;
#pragma GCC unroll 6
                    for (int64_t r = 0; r < kRows; ++r)
                        add(weighted_[c][a * kCells + b], seen + r * kArea, sums[r]);
                }
        for (int64_t r = 0; r < kRows; ++r)
            put(sums[r], products[r]);
    }

    // Of the places of row i. Their cells that lie on both pictures are a rectangle.
    void compare_row(int64_t i, const float* products, float* likeness) {
        const int64_t top = larger(known_.top, seen_.top - i), bottom = smaller(known_.bottom, seen_.bottom - i);
        double shared[kPlaces], both[kPlaces];
        bool compared[kPlaces];
        for (int64_t j = 0; j < kPlaces; ++j) {
            const int64_t left = larger(known_.left, seen_.left - j), right = smaller(known_.right, seen_.right - j);
            const int64_t count = larger(bottom - top, 0) * larger(right - left, 0);
            compared[j] = static_cast<float>(count) >= kLeastPart * kCells * kCells;
            shared[j] = 0.0, both[j] = 1.0;
            if (!compared[j]) continue;
            const Known& known = within(top, bottom, left, right);
            double other = seen_sums_[kColours][i][j] * known.part;
            shared[j] = products[j] * known.part + kNoise;
            for (int64_t c = 0; c < kColours; ++c) {
                const double mean = seen_sums_[c][i][j] * known.part;
                other -= mean * mean, shared[j] -= known.mean[c] * mean;
            }
            both[j] = (positive(known.variance) + kNoise) * (positive(other) + kNoise);
        }
        for (int64_t j = 0; j < kPlaces; ++j)
            shared[j] /= sqrt(both[j]);
        for (int64_t j = 0; j < kPlaces; ++j)  // but for rounding they are in their range anyway
            likeness[j] = compared[j] ? static_cast<float>(clamped(shared[j], -1.0, 1.0)) : -1.0f;
    }

    // One number times those of every place, added to their sums.
    static void add(float number, const float* places, Floats* sums) {
#pragma GCC unroll 5
        for (int64_t v = 0; v < kVectors; ++v)
            sums[v] += number * load(places + v * kLanes);
    }

    static void put(const Floats* sums, float* places) {
        for (int64_t v = 0; v < kVectors; ++v)
            store(places + v * kLanes, sums[v]);
    }

    // Most places have the same rectangle as the one before.
    const Known& within(int64_t top, int64_t bottom, int64_t left, int64_t right) {
        Known& one = within_;
        if (one.top == top && one.bottom == bottom && one.left == left && one.right == right) return one;
        const double rows = weights_.before[bottom] - weights_.before[top];
        one = {top, bottom, left, right, 1.0 / (rows * (weights_.before[right] - weights_.before[left])), {}, 0.0};
        one.variance = totals_.of(top, bottom, left, right, kColours) * one.part;
        for (int64_t c = 0; c < kColours; ++c) {
            one.mean[c] = totals_.of(top, bottom, left, right, c) * one.part;
            one.variance -= one.mean[c] * one.mean[c];
        }
        return one;
    }

    // Weighted sums over the cells at each place: of rows first, then of the columns of those. Cells off the picture
    // are 0.
    void sum(const float* cells, float (*sums)[kRow]) const {
        alignas(64) float along[kArea][kRow];
        for (int64_t i = 0; i < kArea; ++i) {
            Floats row[kVectors] = {};
            for (int64_t b = known_.left; b < known_.right; ++b)
                add(weights_.of[b], cells + i * kArea + b, row);
            put(row, along[i]);
        }
        for (int64_t i = 0; i < kPlaces; ++i) {
            Floats row[kVectors] = {};
            for (int64_t a = known_.top; a < known_.bottom; ++a)
                add(weights_.of[a], along[i + a], row);
            put(row, sums[i]);
        }
    }

    const Weights& weights_;
    const Cells<kCells>& known_;
    const Cells<kArea>& seen_;
    Totals totals_;
    Known within_;
    float weighted_[kColours][kCells * kCells];
    float seen_sums_[kKinds][kPlaces][kRow];
};

// Where the parabola through three neighbours has its top, from the middle one, which is the largest.
float top_of(float before, float middle, float after) {
    const float bend = before - 2 * middle + after;
    return bend < 0 ? clamped(0.5f * (before - after) / bend, -0.5f, 0.5f) : 0.0f;
}

void follow_box(const Weights& weights, const Sums& before, const Sums& after, const float* box, const float* guess,
                float* moved, float* likeness) {
    const float wide = kAround * (box[2] - box[0]) / kCells, tall = kAround * (box[3] - box[1]) / kCells;
    const float left = (box[0] + box[2] - kCells * wide) / 2, top = (box[1] + box[3] - kCells * tall) / 2;
    Cells<kCells> known;
    Cells<kArea> seen;
    known.look(before, top, left, tall, wide);
    seen.look(after, top + guess[1] - kReach * tall, left + guess[0] - kReach * wide, tall, wide);

    Likeness alike(weights, known, seen);
    float worth[kPlaces][kPlaces], like[kPlaces][kPlaces];
    int64_t row = kReach, column = kReach;
    float best = -1e9f;
    alike.of_all(like);
    for (int64_t i = 0; i < kPlaces; ++i) {
        for (int64_t j = 0; j < kPlaces; ++j) {
            const float y = static_cast<float>(i - kReach) * kStep, x = static_cast<float>(j - kReach) * kStep;
            worth[i][j] = like[i][j] - kFarther * (x * x + y * y);
            if (worth[i][j] > best) best = worth[i][j], row = i, column = j;
        }
    }
    float y = static_cast<float>(row - kReach), x = static_cast<float>(column - kReach);
    if (row > 0 && row < kPlaces - 1) y += top_of(worth[row - 1][column], best, worth[row + 1][column]);
    if (column > 0 && column < kPlaces - 1) x += top_of(worth[row][column - 1], best, worth[row][column + 1]);
    moved[0] = guess[0] + x * wide;
    moved[1] = guess[1] + y * tall;
    *likeness = like[row][column];
}

}  // namespace

void follow(const Follow& args) {
    if (args.rows == 0) return;
    const Weights weights;
    const Sums before(args.before, args.height, args.width), after(args.after, args.height, args.width);
    for (int64_t k = 0; k < args.rows; ++k)
        follow_box(weights, before, after, args.boxes + 4 * k, args.guess + 2 * k, args.moved + 2 * k,
                   args.likeness + k);
}

}  // namespace rdn::cpu::RDN_ISA
