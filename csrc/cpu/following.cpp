// Template matching by normalised cross-correlation of colours. Small, so compiled once: the inner loops run over
// places, not over what is summed, so that they are vectorised without another order of additions.
#include "following.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace rdn::cpu {

namespace {

constexpr int64_t kColours = 3;
constexpr int64_t kArea = kCells + 2 * kReach, kPlaces = 2 * kReach + 1;  // cells and places of a side
constexpr float kStep = kAround / kCells;                                 // of a cell, in sides of a box
constexpr float kNoise = 4;         // grey levels squared, of all colours: two that differ by so little are alike
constexpr float kFarther = 0.5f;    // what a box's side of distance from the guess, squared, takes from a likeness
constexpr float kLeastPart = 0.4f;  // of the cells that lie on both pictures, or they are not compared

// Sums of each colour over all that lies above and left of each corner of a picture's pixels.
class Sums {
  public:
    Sums(const float* picture, int64_t height, int64_t width)
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

// Means over cells, and which of them lie on the picture: 1 or, with means of 0, 0.
template <int64_t kSide>
struct Cells {
    float mean[kColours][kSide * kSide], there[kSide * kSide];

    // Rows of cells begin at `top`, columns at `left`.
    void look(const Sums& sums, float top, float left, float tall, float wide) {
        double corners[2][kSide + 1][kColours];
        float xs[kSide + 1];
        for (int64_t j = 0; j <= kSide; ++j)
            xs[j] = sums.inside_x(left + static_cast<float>(j) * wide);
        float y = sums.inside_y(top);
        for (int64_t j = 0; j <= kSide; ++j)
            sums.at(y, xs[j], corners[0][j]);
        for (int64_t i = 0; i < kSide; ++i) {
            const auto& above = corners[i % 2];
            auto& below = corners[1 - i % 2];
            const float next = sums.inside_y(top + static_cast<float>(i + 1) * tall);
            for (int64_t j = 0; j <= kSide; ++j)
                sums.at(next, xs[j], below[j]);
            for (int64_t j = 0; j < kSide; ++j) {
                const float area = (next - y) * (xs[j + 1] - xs[j]);
                const bool seen = area > 0.25f * tall * wide;
                there[i * kSide + j] = seen ? 1.0f : 0.0f;
                for (int64_t c = 0; c < kColours; ++c) {
                    const double sum = (below[j + 1][c] - below[j][c]) - (above[j + 1][c] - above[j][c]);
                    mean[c][i * kSide + j] = seen ? static_cast<float>(sum / area) : 0.0f;
                }
            }
            y = next;
        }
        centre();
    }

  private:
    // Correlations do not know where colours begin, and squares of small numbers swallow no differences.
    void centre() {
        float count = 0;
        for (const float one : there)
            count += one;
        if (count == 0) return;
        for (auto& colour : mean) {
            float sum = 0;
            for (const float one : colour)
                sum += one;
            for (int64_t k = 0; k < kSide * kSide; ++k)
                colour[k] -= there[k] * (sum / count);
        }
    }
};

// The sums that a correlation is made of, at the places of one row: of what is known and of what is seen there.
struct Row {
    float count[kPlaces], squares[kPlaces], other_squares[kPlaces], products[kPlaces];
    float sum[kColours][kPlaces], other_sum[kColours][kPlaces];

    void add(const Cells<kCells>& known, int64_t cell, const Cells<kArea>& seen, int64_t first) {
        float values[kColours], square = 0;
        for (int64_t c = 0; c < kColours; ++c) {
            values[c] = known.mean[c][cell];
            square += values[c] * values[c];
        }
        const float* there = seen.there + first;
        for (int64_t j = 0; j < kPlaces; ++j) {
            count[j] += there[j];
            squares[j] += square * there[j];
        }
        for (int64_t c = 0; c < kColours; ++c) {
            const float* colour = seen.mean[c] + first;
            const float value = values[c];
            for (int64_t j = 0; j < kPlaces; ++j) {
                sum[c][j] += value * there[j];
                other_sum[c][j] += colour[j];
                other_squares[j] += colour[j] * colour[j];
                products[j] += value * colour[j];
            }
        }
    }

    float likeness(int64_t j) const {
        const float n = count[j];
        if (n < kLeastPart * kCells * kCells) return -1;
        float variance = squares[j] / n, other = other_squares[j] / n, shared = products[j] / n;
        for (int64_t c = 0; c < kColours; ++c) {
            const float mean = sum[c][j] / n, other_mean = other_sum[c][j] / n;
            variance -= mean * mean, other -= other_mean * other_mean, shared -= mean * other_mean;
        }
        const float both = (std::max(variance, 0.0f) + kNoise) * (std::max(other, 0.0f) + kNoise);
        return std::clamp((shared + kNoise) / std::sqrt(both), -1.0f, 1.0f);  // but for rounding it is there anyway
    }
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

    float worth[kPlaces][kPlaces], like[kPlaces][kPlaces];
    int64_t row = kReach, column = kReach;
    float best = -1e9f;
    for (int64_t i = 0; i < kPlaces; ++i) {
        Row sums{};
        for (int64_t a = 0; a < kCells; ++a)
            for (int64_t b = 0; b < kCells; ++b)
                if (known.there[a * kCells + b] > 0) sums.add(known, a * kCells + b, seen, (i + a) * kArea + b);
        for (int64_t j = 0; j < kPlaces; ++j) {
            const float y = static_cast<float>(i - kReach) * kStep, x = static_cast<float>(j - kReach) * kStep;
            like[i][j] = sums.likeness(j);
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
