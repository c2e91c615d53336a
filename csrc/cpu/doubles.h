// Vectors of float64, half as many as of floats.
#pragma once

#include "rdn/simd.h"

namespace rdn {

constexpr int kDoubles = kLanes / 2;

typedef double Doubles __attribute__((vector_size(kDoubles * sizeof(double))));
typedef int64_t Longs __attribute__((vector_size(kDoubles * sizeof(int64_t))));
#if defined(__AVX512F__)
constexpr __mmask8 kEveryDouble = 0xff;
#endif

typedef float HalfFloats __attribute__((vector_size(kDoubles * sizeof(float))));

RDN_HD Doubles fused(Doubles a, Doubles b, Doubles c) {
#if defined(__AVX512F__)
    return (Doubles)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
#elif defined(__FMA__)
    return (Doubles)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
#else
    return a * b + c;
#endif
}

// The conversions are intrinsics because GCC 12 makes two of one that fills a register.
RDN_HD Doubles load_doubles(const float* from) {
#if defined(__AVX512F__)
    return (Doubles)_mm512_maskz_cvtps_pd(kEveryDouble, _mm256_loadu_ps(from));
#else
    HalfFloats half;
    memcpy(&half, from, sizeof half);
    return __builtin_convertvector(half, Doubles);
#endif
}

RDN_HD Doubles load_doubles(const double* from) {
    Doubles v;
    memcpy(&v, from, sizeof v);
    return v;
}

RDN_HD void store(double* to, Doubles v) {
    memcpy(to, &v, sizeof v);
}

// Two vectors, one after the other, rounded to float32.
template <int... Lane>
RDN_HD Floats round_doubles(Doubles low, Doubles high, std::integer_sequence<int, Lane...>) {
#if defined(__AVX512F__)
    const __m256 first = _mm512_maskz_cvtpd_ps(kEveryDouble, (__m512d)low);
    return (Floats)_mm512_insertf32x8(_mm512_castps256_ps512(first), _mm512_maskz_cvtpd_ps(kEveryDouble, (__m512d)high),
                                      1);
#else
    return __builtin_shufflevector(__builtin_convertvector(low, HalfFloats), __builtin_convertvector(high, HalfFloats),
                                   Lane...);
#endif
}
RDN_HD Floats round_doubles(Doubles low, Doubles high) {
    return round_doubles(low, high, std::make_integer_sequence<int, kLanes>{});
}

// Rounded to float32.
RDN_HD void store(float* to, Doubles v) {
#if defined(__AVX512F__)
    _mm256_storeu_ps(to, _mm512_maskz_cvtpd_ps(kEveryDouble, (__m512d)v));
#else
    const HalfFloats half = __builtin_convertvector(v, HalfFloats);
    memcpy(to, &half, sizeof half);
#endif
}

}  // namespace rdn
