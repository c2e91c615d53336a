// Vectors of floats, and the few elementary functions that the relation kernel needs.
//
// The functions are templates over T, which is float (host and device) or Floats (host): they are written in operators
// that mean the same for both. Polynomials are minimax fits, their errors stand beside them.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

#include "rdn/host_device.h"

#if defined(__FMA__) && !defined(__CUDACC__)
#include <immintrin.h>
#endif

namespace rdn {

template <class T>
struct BitsOf;
template <>
struct BitsOf<float> {
    using Type = int32_t;
};

template <class To, class From>
RDN_HD To bits_as(From from) {
    static_assert(sizeof(To) == sizeof(From), "the same bits");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}

// The bfloat16 nearest to x, ties to even; NaN stays NaN.
RDN_HD uint16_t bfloat16_bits(float x) {
    const uint32_t bits = bits_as<uint32_t>(x);
    return static_cast<uint16_t>(x == x ? (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16 : bits >> 16 | 0x40u);
}

// A float16 in memory: the bits of IEEE 754's binary16.
struct Half {
    uint16_t bits;
};

constexpr float kHalfLargest = 65504.0f;

template <class T>
RDN_HD T broadcast(float x) {
    return x - T{};
}

// The larger of the two, b where either is no number: one instruction where a comparison and a choice are several.
RDN_HD float larger_else(float a, float b) {
    return a > b ? a : b;
}

#ifndef __CUDACC__

// What one register of the target holds: a wider vector would be split by the compiler, and split through memory.
#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

// Columns of a panel (cpu/product.h): the same on every instruction set, since packed arrays outlive a call.
constexpr int kPanel = 16;

typedef float Floats __attribute__((vector_size(kLanes * sizeof(float))));
typedef int32_t Ints __attribute__((vector_size(kLanes * sizeof(int32_t))));

template <>
struct BitsOf<Floats> {
    using Type = Ints;
};

RDN_HD Floats fused(Floats a, Floats b, Floats c) {
#if defined(__AVX512F__)
    return (Floats)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__)
    return (Floats)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    return a * b + c;
#endif
}

// c + a b over the two bfloat16 of every lane, the first in the low bits.
RDN_HD Floats dot_pairs(Ints a, Ints b, Floats c) {
#if defined(__AVX512BF16__)
    return (Floats)_mm512_dpbf16_ps((__m512)c, (__m512bh)a, (__m512bh)b);
#else
    constexpr int32_t high = static_cast<int32_t>(0xffff0000u);
    return fused((Floats)(a & high), (Floats)(b & high), fused((Floats)(a << 16), (Floats)(b << 16), c));
#endif
}

// Of every lane, in the low half of a word.
RDN_HD Ints nearest_bfloat16(Floats x) {
    const Ints bits = bits_as<Ints>(x), known = x == x ? bits : Ints{};
    const Ints nearest = known + 0x7fff + (known >> 16 & 1);
    return (x == x ? nearest : bits | 0x400000) >> 16 & 0xffff;
}

// Lanes 0, 2, 4, ... (First = 0) or 1, 3, 5, ... of two vectors, one after the other.
template <int First, int... Lane>
RDN_HD Ints every_other(Ints a, Ints b, std::integer_sequence<int, Lane...>) {
    return __builtin_shufflevector(a, b, (2 * Lane + First)...);
}

// Two vectors, one after the other, as the pairs of bfloat16 that dot_pairs takes.
RDN_HD Ints round_pairs(Floats a, Floats b) {
#if defined(__AVX512BF16__)
    return (Ints)_mm512_cvtne2ps_pbh((__m512)b, (__m512)a);
#else
    using Lanes = std::make_integer_sequence<int, kLanes>;
    const Ints first = nearest_bfloat16(a), second = nearest_bfloat16(b);
    return every_other<0>(first, second, Lanes{}) | every_other<1>(first, second, Lanes{}) << 16;
#endif
}

// The same of lane after lane: word i is of the i-th of either.
RDN_HD Ints pair_up(Floats first, Floats second) {
#if defined(__AVX512BF16__)
    const Ints apart = round_pairs(first, second);
    return (Ints)_mm512_permutexvar_epi16(_mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8,
                                                           23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0),
                                          (__m512i)apart);
#else
    return nearest_bfloat16(first) | nearest_bfloat16(second) << 16;
#endif
}

RDN_HD Floats load(const float* from) {
    Floats v;
    memcpy(&v, from, sizeof v);
    return v;
}

RDN_HD void store(float* to, Floats v) {
    memcpy(to, &v, sizeof v);
}

// Four floats, over and over.
RDN_HD Floats load_fours(const float* from) {
#if defined(__AVX512F__)
    return (Floats)_mm512_maskz_broadcast_f32x4(0xffff, _mm_loadu_ps(from));
#elif defined(__AVX__)
    return (Floats)_mm256_broadcast_ps((const __m128*)from);
#else
    return load(from);
#endif
}

#if defined(__AVX512F__)
constexpr __mmask16 kEvery = 0xffff;  // GCC 12 warns of what intrinsics without a mask leave undefined
#endif

RDN_HD Floats larger_else(Floats a, Floats b) {
#if defined(__AVX512F__)
    return (Floats)_mm512_maskz_max_ps(kEvery, (__m512)a, (__m512)b);
#elif defined(__AVX__)
    return (Floats)_mm256_max_ps((__m256)a, (__m256)b);
#else
    return a > b ? a : b;
#endif
}

// kLanes float16, exactly.
RDN_HD Floats load(const Half* from) {
#if defined(__AVX512F__)
    return (Floats)_mm512_maskz_cvtph_ps(kEvery, _mm256_loadu_si256((const __m256i*)from));
#elif defined(__F16C__)
    return (Floats)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)from));
#else
    Ints bits;
    for (int i = 0; i < kLanes; ++i)
        bits[i] = from[i].bits;
    const Ints magnitude = bits & 0x7fff;
    // The exponent's bias is made up for by a product, which is exact and takes the subnormals along.
    const Floats finite = bits_as<Floats>(magnitude << 13) * 5.192296858534828e33f;  // 2^112
    const Ints known = magnitude < 0x7c00 ? bits_as<Ints>(finite) : magnitude << 13 | 0x7f800000;
    return bits_as<Floats>(known | (bits & 0x8000) << 16);
#endif
}

// The nearest float16, ties to even; what lies beyond the largest becomes that, infinities too. NaN stays NaN.
RDN_HD void store(Half* to, Floats v) {
    v = v > kHalfLargest ? broadcast<Floats>(kHalfLargest) : v;
    v = v < -kHalfLargest ? broadcast<Floats>(-kHalfLargest) : v;
#if defined(__AVX512F__)
    constexpr int nearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    _mm256_storeu_si256((__m256i*)to, _mm512_maskz_cvtps_ph(kEvery, (__m512)v, nearest));
#elif defined(__F16C__)
    _mm_storeu_si128((__m128i*)to, _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#else
    const Ints bits = bits_as<Ints>(v), magnitude = bits & 0x7fffffff;
    const Ints normal = (magnitude + (0xfff - (112 << 23)) + (magnitude >> 13 & 1)) >> 13;
    // Its last place is that of float16's subnormals, so that the sum rounds to them.
    const Floats rounder = broadcast<Floats>(0.5f);
    const Ints subnormal = bits_as<Ints>(bits_as<Floats>(magnitude) + rounder) - bits_as<Ints>(rounder);
    Ints half = magnitude < 0x38800000 ? subnormal : normal;  // 2^-14
    half = (v == v ? half : Ints{} + 0x7e00) | (bits >> 16 & 0x8000);
    for (int i = 0; i < kLanes; ++i)
        to[i].bits = static_cast<uint16_t>(half[i]);
#endif
}

// Lane l of `v` and of its other half, lane l ^ Half.
template <int Half, int... Lane>
RDN_HD Floats other_half(Floats v, std::integer_sequence<int, Lane...>) {
    return __builtin_shufflevector(v, v, (Lane ^ Half)...);
}

template <int Half = kLanes / 2>
RDN_HD float sum(Floats v) {
    v += other_half<Half>(v, std::make_integer_sequence<int, kLanes>{});
    if constexpr (Half > 1)
        return sum<Half / 2>(v);
    else
        return v[0];
}

template <int Half = kLanes / 2>
RDN_HD float largest(Floats v) {
    const Floats other = other_half<Half>(v, std::make_integer_sequence<int, kLanes>{});
    v = v > other ? v : other;
    if constexpr (Half > 1)
        return largest<Half / 2>(v);
    else
        return v[0];
}

#endif  // __CUDACC__

template <class T>
using Bits = typename BitsOf<T>::Type;

// Adding it leaves no bits for a fraction: the sum's low bits are the nearest integer, for |x| < 2^22.
constexpr float kRounder = 12582912.0f;  // 1.5 * 2^23
constexpr int32_t kRounderBits = 0x4b400000;

template <class T>
RDN_HD T nearest_integer(T x) {
    return (x + kRounder) - kRounder;
}

// log2(u) = exponent + fraction, exponent whole and fraction in -0.5..0.5. Apart, because a phase needs the fraction of
// a multiple of their sum, and the sum would round it off.
template <class T>
struct Log2 {
    T exponent, fraction;
};

// log2((1 + z) / (1 - z)) for what lies in -0.5..0.5.
template <class T>
RDN_HD T log2_quotient(T z) {
    const T z2 = z * z;
    // (log2((1 + z) / (1 - z)) / z - 2 / ln 2) / z^2, within 2e-10 of the whole
    T p = broadcast<T>(0.43426585f);
    p = fused(p, z2, broadcast<T>(0.5765841f));
    p = fused(p, z2, broadcast<T>(0.96180076f));
    return fused(p * z2, z, z * 2.88539008f);
}

// u normal and positive; a NaN or an infinity gives NaN. Error of the fraction: 1 ulp of 0.5.
template <class T>
RDN_HD Log2<T> log2_parts(T u) {
    const Bits<T> bits = bits_as<Bits<T>>(u);
    const Bits<T> above_root_half = bits - 0x3f3504f3;
    const T mantissa = bits_as<T>(bits - (above_root_half & static_cast<int32_t>(0xff800000u)));
    const T fraction = log2_quotient((mantissa - 1.0f) / (mantissa + 1.0f));
    const T exponent = bits_as<T>((above_root_half >> 23) + kRounderBits) - kRounder;
    return {exponent, fused(u, T{}, fraction)};  // 0 u is NaN where u is not finite
}

// sin and cos of 2 pi t, |t| < 2^20. Error: 1 ulp of 1.
template <class T>
RDN_HD void sincos_turns(T t, T* sine, T* cosine) {
    const T shifted = t * 4.0f + kRounder;
    const Bits<T> quarter = bits_as<Bits<T>>(shifted);
    const T r = fused(shifted - kRounder, broadcast<T>(-0.25f), t);  // -1/8..1/8, exact
    const T r2 = r * r;
    T s = broadcast<T>(-75.2400641f);  // within 2e-9
    s = fused(s, r2, broadcast<T>(81.5881246f));
    s = fused(s, r2, broadcast<T>(-41.341628f));
    s = fused(s, r2, broadcast<T>(6.28318522f)) * r;
    T c = broadcast<T>(59.2459618f);  // within 1e-10
    c = fused(c, r2, broadcast<T>(-85.4437417f));
    c = fused(c, r2, broadcast<T>(64.9393265f));
    c = fused(c, r2, broadcast<T>(-19.7392087f));
    c = fused(c, r2, broadcast<T>(1.0f));
    const auto odd = (quarter & 1) != 0;
    const T along = odd ? c : s, across = odd ? s : c;
    *sine = bits_as<T>(bits_as<Bits<T>>(along) ^ ((quarter & 2) << 30));
    *cosine = bits_as<T>(bits_as<Bits<T>>(across) ^ (((quarter + 1) & 2) << 30));
}

// 2^t for t in -126..127; NaN stays NaN. Relative error: 1.2e-7 in degree 5, 1e-4 in degree 3.
template <int Degree = 5, class T>
RDN_HD T exp2_bounded(T t) {
    static_assert(Degree == 3 || Degree == 5, "polynomials of 2^f for f in -0.5..0.5");
    const T shifted = t + kRounder, f = t - (shifted - kRounder);
    T p;
    if (Degree == 3) {
        p = broadcast<T>(5.50089255e-2f);
        p = fused(p, f, broadcast<T>(2.42210954e-1f));
        p = fused(p, f, broadcast<T>(6.93282902e-1f));
    } else {
        p = broadcast<T>(1.32647273e-3f);
        p = fused(p, f, broadcast<T>(9.67151299e-3f));
        p = fused(p, f, broadcast<T>(5.55073358e-2f));
        p = fused(p, f, broadcast<T>(2.40222424e-1f));
        p = fused(p, f, broadcast<T>(6.93147004e-1f));
    }
    p = fused(p, f, broadcast<T>(1.0f));
    // The rounder's own bits are shifted out.
    return bits_as<T>(bits_as<Bits<T>>(p) + (bits_as<Bits<T>>(shifted) << 23));
}

// The same for t <= 127; 2^-100 below -100, which keeps products with it out of the slow denormals.
template <int Degree = 5, class T>
RDN_HD T exp2_clamped(T t) {
    return exp2_bounded<Degree>(larger_else(broadcast<T>(-100.0f), t));
}

}  // namespace rdn
