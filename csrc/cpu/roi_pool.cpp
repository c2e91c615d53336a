// RoIAlign and RoI max pooling on a channels-last map: the inner loops run over contiguous channels. One RoI a task.
#include <cfloat>
#include <cstring>

#include "isa.h"
#include "parallel.h"
#include "rdn/bilinear.h"
#include "scratch.h"

namespace rdn::cpu::RDN_ISA {

namespace {

struct BinWeights {
    CellRange cells;
    float* weights;  // [extent], set on the cells
};

void fill(BinWeights& bin, RoiAxis axis, int64_t index, int extent) {
    bin.cells = bin_weights(axis, static_cast<float>(index), extent, bin.weights);
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
    for (int y = rows.cells.first; y < rows.cells.stop; ++y)
        for (int x = columns.cells.first; x < columns.cells.stop; first = false) {
            const float* cells = map + (y * args.width + x) * args.channels;
            const float* weights = columns.weights + x;
            const int left = columns.cells.stop - x, taken = left > 4 ? 4 : left;
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
        BinWeights rows{{}, scratch}, columns{{}, scratch + height};
        fill(rows, vertical, row, height);
        for (int64_t column = 0; column < args.size; ++column) {
            fill(columns, horizontal, column, width);
            align_bin(map, args, rows, columns, out + (row * args.size + column) * args.channels);
        }
    }
}

void max_roi(const RoiPool& args, const float* box, const float* map, float* out) {
    for (int64_t row = 0; row < args.size; ++row)
        for (int64_t column = 0; column < args.size; ++column, out += args.channels) {
            const CellRange rows = max_range(box[1], box[3], args.scale, row, args.size, args.height);
            const CellRange columns = max_range(box[0], box[2], args.scale, column, args.size, args.width);
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
        float* out = args.out + roi * args.row;
        const int64_t filled = args.size * args.size * args.channels;
        memset(out + filled, 0, sizeof(float) * (args.row - filled));
        if (args.max) {
            max_roi(args, args.boxes + 4 * roi, map, out);
            return;
        }
        Array<float> scratch(args.height + args.width);
        align_roi(args, args.boxes + 4 * roi, map, scratch, out);
    });
}

}  // namespace rdn::cpu::RDN_ISA
