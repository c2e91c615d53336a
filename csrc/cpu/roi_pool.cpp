// RoIAlign and RoI max pooling on a channels-last map: the inner loops run over contiguous channels. One RoI a task.
#include <cfloat>

#include "isa.h"
#include "parallel.h"
#include "rdn/bilinear.h"
#include "scratch.h"

namespace rdn::cpu::RDN_ISA {

namespace {

// Weights of the cells of one side in one bin: the sum of the bilinear weights of the bin's samples. The weight of a
// cell of the map is the product of its row's and its column's, so a cell is read once however many samples touch it.
struct BinWeights {
    int first = 0, stop = 0;
    float* weights = nullptr;  // [extent], set on first..stop
};

void fill(BinWeights& bin, RoiAxis axis, int64_t index, int extent) {
    bin.first = extent, bin.stop = 0;
    const float offset = axis.start + static_cast<float>(index) * axis.bin, step = axis.bin / axis.samples;
    // A RoI may be far larger than the map: only samples that can fall on it are visited, with two to spare.
    const float begin = greater(floorf((-1.0f - offset) / step) - 2.0f, 0.0f);
    const float end = lesser(ceilf((static_cast<float>(extent) - offset) / step) + 2.0f, axis.samples);
    const int64_t visits =
        begin < end ? static_cast<int64_t>(lesser(end - begin, 4.0f * static_cast<float>(extent + 4))) : 0;
    for (int64_t k = 0; k < visits; ++k) {
        const float position = sample_position(axis, static_cast<float>(index), begin + static_cast<float>(k));
        const Taps taps = bilinear_taps(position, extent);
        if (taps.low_weight == 0.0f && taps.high_weight == 0.0f) continue;
        if (taps.low < bin.first && bin.stop == 0) bin.first = bin.stop = taps.low;
        for (; bin.stop <= taps.high; ++bin.stop)
            bin.weights[bin.stop] = 0.0f;
        bin.weights[taps.low] += taps.low_weight;
        bin.weights[taps.high] += taps.high_weight;
    }
    const float share = 1.0f / axis.samples;
    for (int cell = bin.first; cell < bin.stop; ++cell)
        bin.weights[cell] *= share;
}

// out = or += the weighted sum of Cells neighbouring cells: several at once, or the loop waits on loads of out.
template <int Cells>
void add_cells(const float* cells, const float* weights, float row_weight, int64_t channels, bool first, float* out) {
    float scaled[Cells];
    for (int k = 0; k < Cells; ++k)
        scaled[k] = row_weight * weights[k];
    for (int64_t c = 0; c < channels; ++c) {
        float sum = first ? 0.0f : out[c];
        for (int k = 0; k < Cells; ++k)
            sum = fused(scaled[k], cells[k * channels + c], sum);
        out[c] = sum;
    }
}

void align_bin(const float* map, const RoiPool& args, const BinWeights& rows, const BinWeights& columns, float* out) {
    bool first = true;
    for (int y = rows.first; y < rows.stop; ++y)
        for (int x = columns.first; x < columns.stop; first = false) {
            const float* cells = map + (y * args.width + x) * args.channels;
            const float* weights = columns.weights + x;
            const int left = columns.stop - x, taken = left > 4 ? 4 : left;
            if (taken == 4) add_cells<4>(cells, weights, rows.weights[y], args.channels, first, out);
            if (taken == 3) add_cells<3>(cells, weights, rows.weights[y], args.channels, first, out);
            if (taken == 2) add_cells<2>(cells, weights, rows.weights[y], args.channels, first, out);
            if (taken == 1) add_cells<1>(cells, weights, rows.weights[y], args.channels, first, out);
            x += taken;
        }
    if (first)
        for (int64_t c = 0; c < args.channels; ++c)
            out[c] = 0.0f;
}

void align_roi(const RoiPool& args, const float* box, const float* map, float* scratch, float* out) {
    const int height = static_cast<int>(args.height), width = static_cast<int>(args.width);
    const float bins = static_cast<float>(args.size);
    const RoiAxis vertical = roi_axis(box[1], box[3], args.scale, bins);
    const RoiAxis horizontal = roi_axis(box[0], box[2], args.scale, bins);
    for (int64_t row = 0; row < args.size; ++row) {
        BinWeights rows, columns;
        rows.weights = scratch, columns.weights = scratch + height;
        fill(rows, vertical, row, height);
        for (int64_t column = 0; column < args.size; ++column) {
            fill(columns, horizontal, column, width);
            align_bin(map, args, rows, columns, out + (row * args.size + column) * args.channels);
        }
    }
}

// Cells of one side in one bin of RoI max pooling; start and stop are the RoI's, rounded to cells.
struct BinRange {
    int64_t first, stop;
};

int64_t round_cell(float position) {
    const float most = 1e9f;
    return static_cast<int64_t>(roundf(greater(lesser(position, most), -most)));
}

BinRange max_range(float low, float high, const RoiPool& args, int64_t index, int64_t extent) {
    const int64_t start = round_cell(low * args.scale), stop = round_cell(high * args.scale);
    const int64_t length = stop - start + 1 > 1 ? stop - start + 1 : 1;
    const float bin = static_cast<float>(length) / static_cast<float>(args.size);
    const int64_t first = start + static_cast<int64_t>(floorf(static_cast<float>(index) * bin));
    const int64_t last = start + static_cast<int64_t>(ceilf(static_cast<float>(index + 1) * bin));
    return {first < 0 ? 0 : (first > extent ? extent : first), last < 0 ? 0 : (last > extent ? extent : last)};
}

void max_roi(const RoiPool& args, const float* box, const float* map, float* out) {
    for (int64_t row = 0; row < args.size; ++row)
        for (int64_t column = 0; column < args.size; ++column, out += args.channels) {
            const BinRange rows = max_range(box[1], box[3], args, row, args.height);
            const BinRange columns = max_range(box[0], box[2], args, column, args.width);
            const bool empty = rows.first >= rows.stop || columns.first >= columns.stop;
            for (int64_t c = 0; c < args.channels; ++c)
                out[c] = empty ? 0.0f : -FLT_MAX;
            for (int64_t y = rows.first; y < rows.stop; ++y)
                for (int64_t x = columns.first; x < columns.stop; ++x) {
                    const float* cell = map + (y * args.width + x) * args.channels;
                    for (int64_t c = 0; c < args.channels; ++c)
                        out[c] = greater(cell[c], out[c]);
                }
        }
}

}  // namespace

void roi_pool(const RoiPool& args) {
    const double cells = static_cast<double>(args.rois) * args.size * args.size;
    const double operations = 32.0 * cells * args.channels;  // four taps of four samples in a usual bin
    parallel_for(args.rois, worth_waking(args.threads, operations), [&](int64_t roi, int) {
        const float* map = args.feature_map + args.image_index[roi] * args.height * args.width * args.channels;
        float* out = args.out + roi * args.size * args.size * args.channels;
        if (args.max) {
            max_roi(args, args.boxes + 4 * roi, map, out);
            return;
        }
        Array<float> scratch(args.height + args.width);
        align_roi(args, args.boxes + 4 * roi, map, scratch, out);
    });
}

}  // namespace rdn::cpu::RDN_ISA
