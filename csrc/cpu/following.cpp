// Template matching by normalised cross-correlation of colours. Small, so compiled once: the inner loop runs over
// places, not over what is summed, so that it is vectorised without another order of additions.
#include "following.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace rdn::cpu {

namespace {

constexpr int64_t kColours = 3;
constexpr int64_t kArea = kCells + 2 * kReach, kPlaces = 2 * kReach + 1;  // cells and places of a side
constexpr float kStep = kAround / kCells;                                 // of a cell, in sides of a box
constexpr double kNoise = 4;        // grey levels squared, of all colours: two that differ by so little are alike
constexpr float kFarther = 0.5f;    // what a box's side of distance from the guess, squared, takes from a likeness
constexpr float kFade = 1.5f;       // with what a cell counts the less, the farther it is from a box's middle
constexpr float kLeastPart = 0.4f;  // of the cells that lie on both pictures, or they are not compared

// Sums of each colour over all that lies above and left of each corner of a picture's pixels.
class Sums {
  public:
    Sums(const uint8_t* picture, int64_t height, int64_t width)
        : height_(height), width_(width), sums_((height + 1) * (width + 1) * kColours) {
        for (int64_t y = 0; y < height; ++y) {
            const double* above = sums_.data() + y * (width + 1) * kColours;
            double* here = sums_.data() + (y + 1) * (width + 1) * kColours;
            double row[kColours]{};
            for (int64_t x = 0; x < width; ++x)
                for (int64_t c = 0; c < kColours; ++c) {
                    row[c] += picture[(y * width + x) * kColours + c];
                    here[(x + 1) * kColours + c] = above[(x + 1) * kColours + c] + row[c];
                }
        }
    }

    float inside_y(float y) const { return std::clamp(y, 0.0f, static_cast<float>(height_)); }
    float inside_x(float x) const { return std::clamp(x, 0.0f, static_cast<float>(width_)); }

    // At a point of the picture, its edges included: exact, because a pixel's colour is the same all over it.
    void at(float y, float x, double* out) const {
        const int64_t row = std::min(static_cast<int64_t>(y), height_ - 1);
        const int64_t column = std::min(static_cast<int64_t>(x), width_ - 1);
        const double down = y - static_cast<float>(row), right = x - static_cast<float>(column);
        const double* upper = sums_.data() + (row * (width_ + 1) + column) * kColours;
        const double* lower = upper + (width_ + 1) * kColours;
        for (int64_t c = 0; c < kColours; ++c) {
            const double top = upper[c] + right * (upper[c + kColours] - upper[c]);
            const double bottom = lower[c] + right * (lower[c + kColours] - lower[c]);
            out[c] = top + down * (bottom - top);
        }
    }

  private:
    int64_t height_, width_;
    std::vector<double> sums_;
};

// Means over cells, of which those that lie on the picture with more than half of either side are looked at: a
// rectangle of them, top to bottom and left to right. The others' means are 0.
template <int64_t kSide>
struct Cells {
    float mean[kColours][kSide * kSide];
    int64_t top = kSide, bottom = 0, left = kSide, right = 0;

    // Rows of cells begin at `y`, columns at `x`.
    void look(const Sums& sums, float y, float x, float tall, float wide) {
        double corners[2][kSide + 1][kColours];
        float ys[kSide + 1], xs[kSide + 1];
        for (int64_t j = 0; j <= kSide; ++j) {
            ys[j] = sums.inside_y(y + static_cast<float>(j) * tall);
            xs[j] = sums.inside_x(x + static_cast<float>(j) * wide);
        }
        for (int64_t j = 0; j < kSide; ++j) {
            if (ys[j + 1] - ys[j] > 0.5f * tall) top = std::min(top, j), bottom = j + 1;
            if (xs[j + 1] - xs[j] > 0.5f * wide) left = std::min(left, j), right = j + 1;
        }
        std::fill(mean[0], mean[0] + kColours * kSide * kSide, 0.0f);
        for (int64_t i = top; i <= bottom && top < bottom; ++i) {
            auto &above = corners[(i + 1) % 2], &below = corners[i % 2];
            for (int64_t j = left; j <= right; ++j)
                sums.at(ys[i], xs[j], below[j]);
            if (i == top) continue;
            for (int64_t j = left; j < right; ++j)
                for (int64_t c = 0; c < kColours; ++c) {
                    const double sum = (below[j + 1][c] - below[j][c]) - (above[j + 1][c] - above[j][c]);
                    const float area = (ys[i] - ys[i - 1]) * (xs[j + 1] - xs[j]);
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
            float sum = 0;
            for (const float one : colour)
                sum += one;
            for (int64_t i = top; i < bottom; ++i)
                for (int64_t j = left; j < right; ++j)
                    colour[i * kSide + j] -= sum / count;
        }
    }
};

// What a cell counts by its row, or by its column: what is far from the middle of a box is rather not of its object.
struct Weights {
    float of[kCells];

    Weights() {
        for (int64_t a = 0; a < kCells; ++a) {
            const float far = kAround * (2 * (static_cast<float>(a) + 0.5f) / kCells - 1);  // in halves of a box's side
            of[a] = std::exp(-kFade * far * far);
        }
    }
};
const Weights kWeights;

constexpr int64_t kKinds = kColours + 1;  // of sums: of each colour, and of the squares of all

// Weighted sums over the known cells above and left of each corner.
struct Totals {
    double sums[kCells + 1][kCells + 1][kKinds];

    explicit Totals(const Cells<kCells>& cells) : sums{} {
        for (int64_t i = 0; i < kCells; ++i) {
            double row[kKinds]{};
            for (int64_t j = 0; j < kCells; ++j) {
                const double weight = kWeights.of[i] * kWeights.of[j];
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

// What is known, and how like it is what is seen at each place.
class Likeness {
  public:
    Likeness(const Cells<kCells>& known, const Cells<kArea>& seen) : known_(known), seen_(seen), totals_(known) {
        for (int64_t c = 0; c < kColours; ++c)
            for (int64_t a = 0; a < kCells; ++a)
                for (int64_t b = 0; b < kCells; ++b)
                    weighted_[c][a * kCells + b] = known.mean[c][a * kCells + b] * kWeights.of[a] * kWeights.of[b];
        float squares[kArea * kArea]{};
        for (const auto& colour : seen.mean)
            for (int64_t i = 0; i < kArea * kArea; ++i)
                squares[i] += colour[i] * colour[i];
        for (int64_t k = 0; k < kKinds; ++k)
            sum(k < kColours ? seen.mean[k] : squares, seen_sums_[k]);
    }

    // Of the places of row i. Their cells that lie on both pictures are a rectangle.
    void row(int64_t i, float* likeness) const {
        float products[kPlaces]{};
        for (int64_t c = 0; c < kColours; ++c)
            for (int64_t a = known_.top; a < known_.bottom; ++a)
                for (int64_t b = known_.left; b < known_.right; ++b) {
                    const float value = weighted_[c][a * kCells + b];
                    const float* colour = seen_.mean[c] + (i + a) * kArea + b;
                    for (int64_t j = 0; j < kPlaces; ++j)
                        products[j] += value * colour[j];
                }
        const int64_t top = std::max(known_.top, seen_.top - i), bottom = std::min(known_.bottom, seen_.bottom - i);
        for (int64_t j = 0; j < kPlaces; ++j) {
            const int64_t left = std::max(known_.left, seen_.left - j), right = std::min(known_.right, seen_.right - j);
            const int64_t count = std::max(bottom - top, int64_t{0}) * std::max(right - left, int64_t{0});
            likeness[j] = -1;
            if (static_cast<float>(count) < kLeastPart * kCells * kCells) continue;
            const double n = weight(top, bottom) * weight(left, right);
            double variance = totals_.of(top, bottom, left, right, kColours) / n;
            double other = seen_sums_[kColours][i][j] / n;
            double shared = products[j] / n;
            for (int64_t c = 0; c < kColours; ++c) {
                const double mean = totals_.of(top, bottom, left, right, c) / n;
                const double other_mean = seen_sums_[c][i][j] / n;
                variance -= mean * mean, other -= other_mean * other_mean, shared -= mean * other_mean;
            }
            const double both = (std::max(variance, 0.0) + kNoise) * (std::max(other, 0.0) + kNoise);
            const double like = (shared + kNoise) / std::sqrt(both);
            likeness[j] = static_cast<float>(std::clamp(like, -1.0, 1.0));  // but for rounding it is there anyway
        }
    }

  private:
    static double weight(int64_t from, int64_t to) {
        double sum = 0;
        for (int64_t a = from; a < to; ++a)
            sum += kWeights.of[a];
        return sum;
    }

    // Weighted sums over the cells at each place: of rows first, then of the columns of those. Cells off the picture
    // are 0.
    void sum(const float* cells, float (*sums)[kPlaces]) const {
        float along[kArea][kPlaces]{};
        for (int64_t i = 0; i < kArea; ++i)
            for (int64_t b = known_.left; b < known_.right; ++b)
                for (int64_t j = 0; j < kPlaces; ++j)
                    along[i][j] += kWeights.of[b] * cells[i * kArea + b + j];
        for (int64_t i = 0; i < kPlaces; ++i) {
            std::fill(sums[i], sums[i] + kPlaces, 0.0f);
            for (int64_t a = known_.top; a < known_.bottom; ++a)
                for (int64_t j = 0; j < kPlaces; ++j)
                    sums[i][j] += kWeights.of[a] * along[i + a][j];
        }
    }

    const Cells<kCells>& known_;
    const Cells<kArea>& seen_;
    Totals totals_;
    float weighted_[kColours][kCells * kCells];
    float seen_sums_[kKinds][kPlaces][kPlaces];
};

// Where the parabola through three neighbours has its top, from the middle one, which is the largest.
float top_of(float before, float middle, float after) {
    const float bend = before - 2 * middle + after;
    return bend < 0 ? std::clamp(0.5f * (before - after) / bend, -0.5f, 0.5f) : 0.0f;
}

void follow_box(const Sums& before, const Sums& after, const float* box, const float* guess, float* moved,
                float* likeness) {
    const float wide = kAround * (box[2] - box[0]) / kCells, tall = kAround * (box[3] - box[1]) / kCells;
    const float left = (box[0] + box[2] - kCells * wide) / 2, top = (box[1] + box[3] - kCells * tall) / 2;
    Cells<kCells> known;
    Cells<kArea> seen;
    known.look(before, top, left, tall, wide);
    seen.look(after, top + guess[1] - kReach * tall, left + guess[0] - kReach * wide, tall, wide);

    const Likeness alike(known, seen);
    float worth[kPlaces][kPlaces], like[kPlaces][kPlaces];
    int64_t row = kReach, column = kReach;
    float best = -1e9f;
    for (int64_t i = 0; i < kPlaces; ++i) {
        alike.row(i, like[i]);
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
    const Sums before(args.before, args.height, args.width), after(args.after, args.height, args.width);
    for (int64_t k = 0; k < args.rows; ++k)
        follow_box(before, after, args.boxes + 4 * k, args.guess + 2 * k, args.moved + 2 * k, args.likeness + k);
}

}  // namespace rdn::cpu
