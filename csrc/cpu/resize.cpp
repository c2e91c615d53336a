// PIL's bilinear resize of a uint8 image, to the bit, then the normalisation of the network's input.
//
// PIL filters with a triangle as wide as the scale (antialiasing), first along rows, then along columns, in fixed point
// with 22 fractional bits and 8-bit values in between. A side that keeps its length is not filtered at all.
// Since version 13 PIL begins with the columns where a height shrinks far more than the width, which frames that keep
// their aspect never do; rows come first here always, as in the PIL that the public checkpoints were trained with.
#include <cmath>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "isa.h"
#include "parallel.h"
#include "rdn/resize.h"
#include "scratch.h"

namespace rdn::cpu::RDN_ISA {

namespace {

constexpr int64_t kRowsPerTask = 8;

// Between the passes a pixel has 4 bytes: red, green, blue, unused. Rows are filtered as many at a time as fill a
// vector, their pixels side by side, so that one instruction takes them all through a tap.
#if defined(__AVX512F__)
constexpr int64_t kRows = 4;
#elif defined(__AVX2__)
constexpr int64_t kRows = 2;
#else
constexpr int64_t kRows = 1;
#endif
typedef uint8_t Bytes __attribute__((vector_size(4 * kRows)));
typedef int32_t Sums __attribute__((vector_size(16 * kRows)));

// GCC takes __builtin_convertvector from and to bytes apart into scalars, and warns of unmasked AVX-512 intrinsics.
Sums widen(const Bytes& bytes) {
#if defined(__AVX512F__)
    return reinterpret_cast<Sums>(
        _mm512_maskz_cvtepu8_epi32(0xffff, _mm_loadu_si128(reinterpret_cast<const __m128i*>(&bytes))));
#elif defined(__AVX2__)
    return reinterpret_cast<Sums>(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(&bytes))));
#else
    return __builtin_convertvector(bytes, Sums);
#endif
}

// Sums of byte * weight as bytes (tap_byte).
void store_bytes(Sums sums, Bytes* bytes) {
    sums >>= kTapBits;
#if defined(__AVX512F__)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(bytes),
                     _mm512_maskz_cvtusepi32_epi8(0xffff, reinterpret_cast<__m512i>(sums)));
#elif defined(__AVX2__)
    const __m256i whole = reinterpret_cast<__m256i>(sums);
    const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(bytes), _mm_packus_epi16(words, words));
#else
    *bytes = __builtin_convertvector(sums > 255 ? Sums{} + 255 : sums, Bytes);
#endif
}

// Taps of each output position along one side.
struct Filter {
    Filter(int64_t in_size, int64_t out_size)
        : side(resize_side(in_size, out_size)),
          stride(most_taps(side)),
          first(out_size),
          count(out_size),
          weights(out_size * stride) {}

    ResizeSide side;
    int64_t stride;
    Array<int64_t> first, count;
    Array<int32_t> weights;  // [out_size, stride]
};

void fill(const Filter& filter, int64_t out_size) {
    for (int64_t position = 0; position < out_size; ++position) {
        const TapRange taps = tap_range(filter.side, position);
        filter.first[position] = taps.first;
        filter.count[position] = taps.count;
        tap_weights(filter.side, position, taps, filter.weights + position * filter.stride);
    }
}

// in [width, 3] -> out, a pixel every `step` bytes. Copies 4 bytes a pixel, but for the last, behind which nothing may
// be.
void spread_row(const uint8_t* in, int64_t width, int64_t step, uint8_t* out) {
    for (int64_t x = 0; x < width - 1; ++x)
        __builtin_memcpy(out + x * step, in + 3 * x, 4);
    __builtin_memcpy(out + (width - 1) * step, in + 3 * (width - 1), 3);
}

// quads [width] -> out [rows, out_width, 4]
void filter_rows(const Bytes* quads, const Filter& filter, int64_t rows, int64_t out_width, uint8_t* out) {
    for (int64_t x = 0; x < out_width; ++x) {
        const Bytes* quad = quads + filter.first[x];
        const int32_t* weights = filter.weights + x * filter.stride;
        Sums sums = Sums{} + (1 << (kTapBits - 1));
        for (int64_t k = 0; k < filter.count[x]; ++k)
            sums += widen(quad[k]) * weights[k];
        Bytes bytes;
        store_bytes(sums, &bytes);
        for (int64_t row = 0; row < rows; ++row)
            __builtin_memcpy(out + 4 * (row * out_width + x), reinterpret_cast<const uint8_t*>(&bytes) + 4 * row, 4);
    }
}

// -> pixels [height, out_width, 4]
void resize_rows(const ResizeNormalize& args, uint8_t* pixels) {
    const Filter filter(args.width, args.out_width);
    fill(filter, args.out_width);
    const int threads = worth_waking(args.threads, 32.0 * args.height * (args.width + args.out_width));
    parallel_for((args.height + kRows - 1) / kRows, threads, [&](int64_t task, int) {
        const int64_t first = task * kRows, left = args.height - first, rows = left < kRows ? left : kRows;
        const uint8_t* in = args.image + 3 * first * args.width;
        uint8_t* out = pixels + 4 * first * args.out_width;
        if (args.width == args.out_width) {
            spread_row(in, rows * args.width, 4, out);
            return;
        }
        Array<Bytes> quads(args.width);  // rows past the image stay unset, their sums are not stored
        for (int64_t row = 0; row < rows; ++row)
            spread_row(in + 3 * row * args.width, args.width, sizeof(Bytes),
                       reinterpret_cast<uint8_t*>(quads.data) + 4 * row);
        filter_rows(quads, filter, rows, args.out_width, out);
    });
}

// pixels [height, width, 4] -> values [width, 4] of output row y
void filter_column(const uint8_t* pixels, int64_t width, const Filter& filter, int64_t y, int32_t* values) {
    for (int64_t x = 0; x < 4 * width; ++x)
        values[x] = 1 << (kTapBits - 1);
    for (int64_t k = 0; k < filter.count[y]; ++k) {
        const uint8_t* row = pixels + (filter.first[y] + k) * 4 * width;
        const int32_t weight = filter.weights[y * filter.stride + k];
        for (int64_t x = 0; x < 4 * width; ++x)
            values[x] += row[x] * weight;
    }
    for (int64_t x = 0; x < 4 * width; ++x)
        values[x] = tap_byte(values[x]);
}

// values [out_width, 4] -> output row y of each channel
void normalize_row(const ResizeNormalize& args, const int32_t* values, int64_t y) {
    for (int64_t channel = 0; channel < 3; ++channel) {
        const int64_t color = args.bgr ? 2 - channel : channel;
        float* out = args.out + (channel * args.out_height + y) * args.out_width;
        const float mean = args.mean[channel], std = args.std[channel];
        for (int64_t x = 0; x < args.out_width; ++x)
            out[x] = (static_cast<float>(values[4 * x + color]) - mean) / std;
    }
}

void resize_columns(const ResizeNormalize& args, const uint8_t* pixels) {
    const int64_t width = args.out_width;
    const Filter filter(args.height, args.out_height);
    fill(filter, args.out_height);
    const int threads = worth_waking(args.threads, 32.0 * args.out_width * (args.height + args.out_height));
    parallel_for((args.out_height + kRowsPerTask - 1) / kRowsPerTask, threads, [&](int64_t task, int) {
        Array<int32_t> values(4 * width);
        for (int64_t y = task * kRowsPerTask; y < (task + 1) * kRowsPerTask && y < args.out_height; ++y) {
            if (args.height == args.out_height)
                for (int64_t x = 0; x < 4 * width; ++x)
                    values[x] = pixels[4 * y * width + x];
            else
                filter_column(pixels, width, filter, y, values);
            normalize_row(args, values, y);
        }
    });
}

}  // namespace

void resize_normalize(const ResizeNormalize& args) {
    Array<uint8_t> pixels(args.height * 4 * args.out_width);
    resize_rows(args, pixels);
    resize_columns(args, pixels);
}

}  // namespace rdn::cpu::RDN_ISA
