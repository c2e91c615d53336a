// A persistent pool of threads, shared by all calls of the process.
//
// The caller always takes part, and goes on alone where the pool is busy with other callers, so calls may come from
// several threads at once and may nest. The first exception of a body reaches the caller; indices not yet started are
// then left out. A forked child starts with an empty pool.
#pragma once

#include <cstdint>

namespace rdn::cpu {

using Body = void (*)(const void* context, int64_t index, int worker);

void parallel_for(int64_t count, int threads, Body body, const void* context);

// How many of `threads` are worth waking for so many arithmetic operations, at least 1. A thread begins some tens of
// microseconds late, and milliseconds late where another process holds its core: it gets a millisecond's work or none.
static inline int worth_waking(int threads, double operations) {
    constexpr double least = 5e7;
    const double most = operations / least;
    return most >= threads ? threads : most < 1.0 ? 1 : static_cast<int>(most);
}

// function(index, worker) for index in 0..count-1, in any order, on at most `threads` threads. No two bodies with the
// same worker (0..threads-1) run at the same time, so scratch[worker] needs no lock.
template <class Function>
static inline void parallel_for(int64_t count, int threads, const Function& function) {
    const Body body = [](const void* context, int64_t index, int worker) {
        (*static_cast<const Function*>(context))(index, worker);
    };
    parallel_for(count, threads, body, &function);
}

}  // namespace rdn::cpu
