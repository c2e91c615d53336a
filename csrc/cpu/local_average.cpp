// The mean of a frame's rows with those of frames before it that stood in the same place (YOLOV's online head).
#include "isa.h"
#include "parallel.h"
#include "product.h"
#include "rdn/cosine.h"
#include "scratch.h"

namespace rdn::cpu::RDN_ISA {
namespace {

constexpr float kMargin = -0.3f;  // a score this much below one's own, or more, says nothing

// Nearest float16, ties to even, of x in 0..1.
float rounded_to_half(float x) {
    if (x < 6.103515625e-5f) return (x + 0.75f) - 0.75f;  // subnormal: multiples of 2^-24
    const uint32_t bits = bits_as<uint32_t>(x);
    return bits_as<float>((bits + 0xfffu + (bits >> 13 & 1u)) & ~0x1fffu);
}

// A side is x2 - x1: these boxes end before their last coordinate.
float overlap(const float* a, const float* b) {
    const float width = lesser(a[2], b[2]) - greater(a[0], b[0]), height = lesser(a[3], b[3]) - greater(a[1], b[1]);
    if (!(width > 0.0f && height > 0.0f)) return 0.0f;
    const float common = width * height;
    return rounded_to_half(common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common));
}

double dot(const float* a, const float* b, int64_t width) {
    Floats first = {}, second = {};
    int64_t d = 0;
    for (; d + 2 * kLanes <= width; d += 2 * kLanes) {
        first = fused(load(a + d), load(b + d), first);
        second = fused(load(a + d + kLanes), load(b + d + kLanes), second);
    }
    double product = static_cast<double>(sum(first)) + sum(second);
    for (; d < width; ++d)
        product += static_cast<double>(a[d]) * b[d];
    return product;
}

void average_row(const LocalAverage& args, int64_t row, double* sums) {
    const float* own = args.x + row * args.width;
    const double length = sqrt(dot(own, own, args.width));
    const int64_t supports = [&] {
        int64_t all = 0;
        for (int64_t f = 0; f < args.frames; ++f)
            all += args.count[f];
        return all;
    }();
    float* weights = args.weights ? args.weights + row * supports : nullptr;
    double total = 0.0;
    memset(sums, 0, sizeof(double) * args.width);
    int64_t position = 0;
    for (int64_t f = 0; f < args.frames; ++f) {
        for (int64_t j = 0; j < args.count[f]; ++j, ++position) {
            const int64_t other = f * args.capacity + j;
            const float iou = overlap(args.boxes + 4 * row, args.past_boxes + 4 * other);
            if (!(iou > 0.0f)) continue;
            const float* past = args.past + other * args.width;
            const double lengths = length * args.past_length[other];
            const bool counts = args.past_score[other] - args.score[row] > kMargin;
            const double cosine = counts && lengths > 0.0 ? dot(own, past, args.width) / lengths : 0.0;
            const double weight = exp(kSharpness * cosine) * iou;
            total += weight;
            for (int64_t d = 0; d < args.width; ++d)
                sums[d] += weight * past[d];
            if (weights) weights[position] = static_cast<float>(weight);
        }
    }
    float* out = args.out + row * args.width;
    for (int64_t d = 0; d < args.width; ++d)
        out[d] = total > 0.0 ? static_cast<float>(0.5 * (sums[d] / total + own[d])) : own[d];
    for (int64_t j = 0; weights && total > 0.0 && j < supports; ++j)
        weights[j] = static_cast<float>(weights[j] / total);
}

}  // namespace

void local_average(const LocalAverage& args) {
    if (args.rows == 0) return;
    int64_t supports = 0;
    for (int64_t f = 0; f < args.frames; ++f)
        supports += args.count[f];
    if (args.weights) memset(args.weights, 0, sizeof(float) * args.rows * supports);
    // How many overlap is not known: a fifth.
    const int threads = worth_waking(args.threads, 0.8 * args.rows * supports * args.width);
    Array<double> sums(threads * args.width);
    parallel_for(args.rows, threads,
                 [&](int64_t row, int worker) { average_row(args, row, sums + worker * args.width); });
}

}  // namespace rdn::cpu::RDN_ISA
