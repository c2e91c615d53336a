#include "emulator.h"

#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <cstdlib>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

namespace rdn::emulator {

dim3 thread_index, block_index, block_size, grid_size;
unsigned char* block_memory = nullptr;

namespace {

constexpr std::size_t kStack = 64 * 1024;
constexpr int kWarp = 32;

enum class State { ready, at_block_barrier, at_warp_barrier, done };

struct Fiber {
    ucontext_t start;
    jmp_buf resume;
    bool started;
    State state;
};

struct Block {
    std::vector<Fiber> fibers;
    std::unique_ptr<unsigned char[][kSlotBytes]> slots;
    int current = 0;
    jmp_buf scheduler;
    ucontext_t entry;
    Body body = nullptr;
    const void* context = nullptr;

    explicit Block(int threads) : fibers(threads), slots(new unsigned char[threads][kSlotBytes]) {}
};

Block* block = nullptr;
bool descending = false;

// Only where the stack is the caller's, not a fiber's: the fibers are then left where they are.
[[noreturn]] void fail(const std::string& message) {
    throw std::runtime_error("emulated kernel, block (" + std::to_string(block_index.x) + ", " +
                             std::to_string(block_index.y) + ", " + std::to_string(block_index.z) + "): " + message);
}

void set_indices() {
    thread_index = dim3(static_cast<unsigned>(block->current), 0, 0);
}

// Gives the CPU to the scheduler; returns when this fiber may go on.
void wait(State state) {
    Fiber& fiber = block->fibers[block->current];
    fiber.state = state;
    if (_setjmp(fiber.resume) == 0) _longjmp(block->scheduler, 1);
    set_indices();
}

void enter() {
    set_indices();
    block->body(block->context);
    block->fibers[block->current].state = State::done;
    _longjmp(block->scheduler, 1);
}

void resume(int index) {
    block->current = index;
    Fiber& fiber = block->fibers[index];
    if (_setjmp(block->scheduler) != 0) return;
    if (fiber.started) _longjmp(fiber.resume, 1);
    fiber.started = true;
    setcontext(&fiber.start);
}

// Lanes go on together, once all of the warp wait for it.
bool release_warp(int first, int threads) {
    int waiting = 0;
    for (int i = first; i < first + kWarp && i < threads; ++i)
        waiting += block->fibers[i].state == State::at_warp_barrier;
    if (waiting == 0) return false;
    if (waiting != kWarp) fail("a warp's lanes do not all take part in a shuffle, a vote or a __syncwarp");
    for (int i = first; i < first + kWarp; ++i)
        block->fibers[i].state = State::ready;
    return true;
}

bool release_block(int threads) {
    int waiting = 0, done = 0;
    for (const Fiber& fiber : block->fibers) {
        waiting += fiber.state == State::at_block_barrier;
        done += fiber.state == State::done;
    }
    if (done == threads) return false;
    if (waiting != threads) fail("some threads of the block never reach a __syncthreads that others wait at");
    for (Fiber& fiber : block->fibers)
        fiber.state = State::ready;
    return true;
}

void run_block(int threads, unsigned char* stacks) {
    for (int i = 0; i < threads; ++i) {
        Fiber& fiber = block->fibers[i];
        fiber.started = false, fiber.state = State::ready;
        getcontext(&fiber.start);
        fiber.start.uc_stack.ss_sp = stacks + i * kStack;
        fiber.start.uc_stack.ss_size = kStack;
        makecontext(&fiber.start, enter, 0);
    }
    for (bool any = true; any;) {
        any = false;
        const int warps = (threads + kWarp - 1) / kWarp;
        for (int w = 0; w < warps; ++w) {
            const int first = (descending ? warps - 1 - w : w) * kWarp;
            do {
                for (int lane = 0; lane < kWarp; ++lane) {
                    const int i = first + (descending ? kWarp - 1 - lane : lane);
                    if (i < threads && block->fibers[i].state == State::ready) resume(i);
                }
            } while (release_warp(first, threads));
        }
        any = release_block(threads);
    }
}

// Memory that ends where touching it is an error.
struct Guarded {
    explicit Guarded(std::size_t bytes)
        : page(static_cast<std::size_t>(sysconf(_SC_PAGESIZE))), size((bytes + page - 1) / page * page) {
        base = static_cast<unsigned char*>(
            mmap(nullptr, size + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        if (base == MAP_FAILED || mprotect(base + size, page, PROT_NONE) != 0) fail("no memory");
    }
    ~Guarded() { munmap(base, size + page); }

    std::size_t page, size;
    unsigned char* base;
};

}  // namespace

void set_descending(bool asked) {
    descending = asked;
}

void block_barrier() {
    wait(State::at_block_barrier);
}

const unsigned char (*exchange(const void* mine, std::size_t bytes)) [kSlotBytes] {
    if (bytes > kSlotBytes) std::abort();
    wait(State::at_warp_barrier);  // the last exchange has been read
    if (bytes > 0) std::memcpy(block->slots[block->current], mine, bytes);
    wait(State::at_warp_barrier);
    return &block->slots[block->current / kWarp * kWarp];
}

void run_grid(dim3 grid, int threads, std::size_t shared_bytes, Body body, const void* context) {
    static std::mutex one_at_a_time;
    const std::lock_guard lock(one_at_a_time);
    Block here(threads);
    here.body = body, here.context = context;
    block = &here;
    block_size = dim3(static_cast<unsigned>(threads)), grid_size = grid;
    const std::unique_ptr<unsigned char[]> stacks(new unsigned char[threads * kStack]);
    const std::size_t shared = (shared_bytes + 15) / 16 * 16;
    const Guarded memory(shared);
    block_memory = memory.base + memory.size - shared;
    const int64_t blocks = int64_t{grid.x} * grid.y * grid.z;
    for (int64_t k = 0; k < blocks; ++k) {
        const int64_t b = descending ? blocks - 1 - k : k;
        block_index = dim3(static_cast<unsigned>(b % grid.x), static_cast<unsigned>(b / grid.x % grid.y),
                           static_cast<unsigned>(b / grid.x / grid.y));
        std::memset(block_memory, 0xff, shared);
        run_block(threads, stacks.get());
    }
    block = nullptr;
}

}  // namespace rdn::emulator

namespace rdn::cuda {

const char* status_text(Status status) {
    return status == 0 ? "no error" : status == 1 ? "invalid argument" : "invalid configuration argument";
}

}  // namespace rdn::cuda
