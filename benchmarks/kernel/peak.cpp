// The most multiply-adds one thread does: independent chains of float vectors that never leave registers.

#include <chrono>

namespace {

#if defined(__AVX512F__)
constexpr int kWidth = 16;
#elif defined(__AVX__)
constexpr int kWidth = 8;
#else
constexpr int kWidth = 4;
#endif
constexpr int kChains = 12;  // more than latency times issue rate, fewer than there are registers
typedef float Vector __attribute__((vector_size(4 * kWidth)));

}  // namespace

// GFLOP/s over `rounds` passes; `sink` keeps the compiler from leaving the work out.
extern "C" double fma_rate(long rounds, float* sink) {
    Vector sum[kChains];
    for (int c = 0; c < kChains; ++c) {
        sum[c] = Vector{} + static_cast<float>(c);
    }
    const Vector a = Vector{} + *sink, b = Vector{} + 1e-7f;
    const auto begin = std::chrono::steady_clock::now();
    for (long r = 0; r < rounds; ++r) {
#pragma GCC unroll 12
        for (int c = 0; c < kChains; ++c) {
            sum[c] = sum[c] * a + b;
        }
    }
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    for (int c = 0; c < kChains; ++c) {
        for (int i = 0; i < kWidth; ++i) {
            *sink += sum[c][i];
        }
    }
    return 2.0 * kWidth * kChains * static_cast<double>(rounds) / seconds.count() / 1e9;
}
