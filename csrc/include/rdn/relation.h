// Relation module (paper, eq. 1 to 4; DESIGN section 2): the geometry between two boxes, and the kernel's arguments.
//
// With w = x2 - x1 + 1 and c = (x1 + x2) / 2 the geometry of box i to support j is
//     p = [log(|cx - cx'| / w + 1e-3), log(|cy - cy'| / h + 1e-3), log(w / w'), log(h / h')]
//     E = for each of the 4: 8 sines, then 8 cosines of 100 p / 1000^(k/8)
// Phases are counted in turns of 2 pi and logarithms taken to base 2, so that whole turns drop out exactly.
#pragma once

#include <cstdint>

#include "rdn/simd.h"

namespace rdn {

// What a number of keys and values is. Those of bfloat16 are multiplied with such numbers, the others with floats.
enum class Stored : uint8_t { kFloat32, kBfloat16, kFloat16 };

// Support proposals, packed for the products: `slots` frames of room for `capacity` each, a multiple of kPanel.
// In float16 they lie as in float32. In bfloat16 a word holds two, the first in the low bits: of a key two channels
// that follow each other, of values one channel of two supports.
struct SupportBank {
    const void* keys;         // [slots][heads][capacity / kPanel][head_dim][kPanel]; [head_dim / 2] of words
    const void* values;       // [slots][heads][capacity][head_dim]; [capacity / 2] of words
    const float* key_length;  // [slots][heads] at least the Euclidean length of every key of the slot
    const float* boxes;       // [slots][capacity][4]
    int64_t slots, capacity;
    Stored stored;
};

// The supports that a call looks at: the first count[f] of slot[f], for each frame f.
struct SupportFrames {
    const int64_t* slot;   // [frames]
    const int64_t* count;  // [frames]
    int64_t frames;
};

// out = residual + rel(x, s), or the residual alone where there is no support.
struct RelationAttention {
    const float* query;             // [rows, heads * head_dim] not yet divided by sqrt(head_dim)
    const float* boxes;             // [rows, 4]
    const float* residual;          // [rows, heads * head_dim]
    const float* value_bias;        // [heads * head_dim]
    int64_t rows, heads, head_dim;  // head_dim a multiple of 16
    SupportBank bank;
    SupportFrames support;
    const float* multiplicity;  // [supports] positive: how often each counts, frame after frame
    const float* geometry;      // [geometry_rows][heads, padded to a multiple of kPanel], of cpu/prepare_geometry.h
    int64_t omega_begin, omega_end;  // part of the supports whose weights are wanted
    float* out;                      // [rows, heads * head_dim]
    float* omega;                    // [rows, omega_end - omega_begin] multiplicity included, mean of the heads
    int threads;
};

// Rows whose sums over the window are kept from step to step: what a frame that left had added is computed again, to
// the same bits, and subtracted.
struct RelationRefine {
    const float* query;       // [rows, heads * head_dim]
    const float* boxes;       // [rows, 4]
    const float* residual;    // [rows, heads * head_dim]
    const float* value_bias;  // [heads * head_dim]
    const int64_t* place;     // [rows] where a row's sums are, distinct
    int64_t rows, heads, head_dim;
    SupportBank bank;
    SupportFrames support;   // every frame that comes or goes
    const float* change;     // [rows, frames] how many times more a frame counts than before, 0 where as often
    const uint8_t* restart;  // [rows] 1: the sums begin at zero
    const float* geometry;   // [geometry_rows][heads, padded to a multiple of kPanel], of cpu/prepare_geometry.h
    double* values;          // [places, heads * head_dim] sums of weight times value
    double* normaliser;      // [places, heads] sums of weights
    double* peak;            // [places, heads] largest normaliser since the restart
    float* shift;            // [places, heads] what is subtracted from scores, base 2, since the restart
    float* out;       // [rows, heads * head_dim] residual + relation, of no meaning where the status is not kRight
    uint8_t* status;  // [rows] RefineStatus
    int threads;
};

// Keys and values of some support proposals into one slot of a bank.
struct PackSupports {
    const float* keys;    // [rows, heads * head_dim]
    const float* values;  // [rows, heads * head_dim]
    int64_t rows, heads, head_dim, capacity;
    Stored stored;
    void* packed_keys;    // as of SupportBank, zero where there is no row
    void* packed_values;  // likewise
    float* key_length;    // [heads]
};

// Rows of floats to the nearest float16, and back.
struct Narrow {
    const float* from;  // [count]
    int64_t count;
    Half* out;  // [count]
};
struct Widen {
    const Half* from;  // [count]
    int64_t count;
    float* out;  // [count]
};

// out = x W^T + bias, and where asked for no less than 0. With bfloat16, x and W are rounded to it before they are
// multiplied; sums are floats.
struct Linear {
    const float* x;       // [rows, depth]
    const float* weight;  // [panels][depth][kPanel] rows of W, zeros past the last one; bfloat16: see below
    const float* bias;    // [columns]
    int64_t rows, depth, columns;
    bool relu;
    bool bfloat16;  // weight is [panels][depth / 2][kPanel] words of two bfloat16, the first in the low bits
    float* out;     // [rows, columns]
    int threads;
};

enum RefineStatus : uint8_t {
    kRight = 0,
    kCancelled = 1,  // too little is left of a sum, or it is no finite number
};

constexpr int kFrequencies = 8;
constexpr int kTermChannels = 2 * kFrequencies;  // of one of the 4 terms: sines, then cosines
constexpr int kGeometryChannels = 4 * kTermChannels;
// Of a module's prepared geometry (cpu/geometry.h). That of few heads is always float32.
constexpr int64_t kFewHeads = 4;
constexpr bool bfloat16_geometry(bool bfloat16, int64_t heads) {
    return bfloat16 && heads > kFewHeads;
}
constexpr int64_t geometry_rows(bool bfloat16) {
    return bfloat16 ? 10097 : 20177;
}

// 100 ln 2 / (2 pi 1000^(k/8)): turns of frequency k for each doubling. `coarse` has few enough bits that its product
// with a whole number below 256 is exact; `fine` is the rest.
struct Frequencies {
    double exact[kFrequencies];
    float all[kFrequencies], coarse[kFrequencies], fine[kFrequencies];
};

static constexpr Frequencies make_frequencies() {
    Frequencies f{};
    double turns = 11.03178000763258;
    for (int k = 0; k < kFrequencies; ++k) {
        f.exact[k] = turns;
        f.all[k] = static_cast<float>(turns);
        f.coarse[k] = static_cast<float>(static_cast<int>(turns * 2048 + 0.5)) / 2048;
        f.fine[k] = static_cast<float>(turns - f.coarse[k]);
        turns *= 0.4216965034285822;  // 1000^(-1/8)
    }
    return f;
}

// A number as the sum of two of T: what the first rounds off stands in the second.
template <class T>
struct Split {
    T high, low;
};

RDN_HD Split<float> split(double x) {
    const float high = static_cast<float>(x);
    return {high, static_cast<float>(x - high)};
}

RDN_HD Split<float> centre(float low, float high) {
    return split(0.5 * (static_cast<double>(low) + high));
}

// NaN where the side is not positive: such a box has no logarithm.
RDN_HD double relation_side(float low, float high) {
    const double s = static_cast<double>(high) - low + 1.0;
    return s > 0.0 ? s : 0.0 * INFINITY;
}

RDN_HD Split<float> inverse_side(float low, float high) {
    return split(1.0 / relation_side(low, high));
}

// What a + b rounds off.
template <class T>
RDN_HD T lost_in_sum(T a, T b) {
    const T s = a + b, rest = s - a;
    return (a - (s - rest)) + (b - rest);
}

// log2(|c - c'| / side + 1e-3). A phase is up to 100 times the logarithm, so the argument is kept to more than float's
// precision: `lost` is what u lacks. Without a fused multiply-add the product's rounding stays in; a compiler that
// fuses by itself (nvcc: -fmad=false) would spoil it.
template <class T>
RDN_HD Log2<T> log2_offset(Split<T> c, Split<T> other, Split<T> inverse) {
    const T far = c.high - other.high;
    const T near = (c.low - other.low) + lost_in_sum(c.high, -other.high);
    const T difference = far + near, d_low = near - (difference - far);
    const Bits<T> sign = bits_as<Bits<T>>(difference) & static_cast<int32_t>(0x80000000u);
    const T d = bits_as<T>(bits_as<Bits<T>>(difference) ^ sign);

    const T scaled = d * inverse.high;
    const T offset = broadcast<T>(1e-3f);
    const T u = scaled + offset;
    T lost = lost_in_sum(scaled, offset) - 4.7497451e-11f;  // 1e-3f is that much above 1e-3
    lost = lost + fused(d, inverse.high, -scaled) +
           fused(d, inverse.low, bits_as<T>(bits_as<Bits<T>>(d_low) ^ sign) * inverse.high);

    Log2<T> log2 = log2_parts(u);
    log2.fraction = fused(lost / u, broadcast<T>(1.44269504f), log2.fraction);
    return log2;
}

// Phase of frequency k for a logarithm, in turns, whole ones partly dropped.
template <class T>
RDN_HD T offset_turns(Log2<T> log2, const Frequencies& f, int k) {
    const T whole = log2.exponent * f.coarse[k];
    const T rest = fused(log2.exponent, broadcast<T>(f.fine[k]), whole - nearest_integer(whole));
    return fused(log2.fraction, broadcast<T>(f.all[k]), rest);
}

// The same for the size of one box alone: the phase of log(w / w') is the difference of two of these.
RDN_HD float side_turns(double log2_side, const Frequencies& f, int k) {
    constexpr double rounder = 6755399441055744.0;  // 1.5 * 2^52
    const double turns = log2_side * f.exact[k];
    return static_cast<float>(turns - ((turns + rounder) - rounder));
}

// u sin(a - b) + v cos(a - b) = sin(b) (v sin(a) - u cos(a)) + cos(b) (u sin(a) + v cos(a)): given a weight (u, v) and
// the box's own angle a, the weight of the support's sin(b), cos(b).
RDN_HD void turn_weight(float u, float v, float sin_a, float cos_a, float* of_sine, float* of_cosine) {
    *of_sine = v * sin_a - u * cos_a;
    *of_cosine = u * sin_a + v * cos_a;
}

// exp(log(relu(g) + 1e-6)): what the geometry multiplies a softmax term with. NaN stays NaN.
template <class T>
RDN_HD T gate(T g) {
    return larger_else(T{}, g) + 1e-6f;
}

}  // namespace rdn
