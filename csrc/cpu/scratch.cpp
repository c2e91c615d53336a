#include "scratch.h"

#include <cstdlib>
#include <mutex>
#include <new>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace rdn::cpu {

namespace {

constexpr std::size_t kLarge = 1 << 18, kHugePage = 1 << 21;

// Large blocks come from the system page by page, for more than some kernels take, so the last few are kept.
class Kept {
  public:
    void* take(std::size_t bytes) {
        std::lock_guard lock(mutex_);
        for (Block& block : blocks_) {
            if (block.memory == nullptr || block.taken || block.bytes < bytes || block.bytes > 4 * bytes) continue;
            block.taken = true;
            return block.memory;
        }
        return nullptr;
    }

    // Takes the place of one that nobody holds; where all are held, it will not be kept.
    void keep(void* memory, std::size_t bytes) {
        std::lock_guard lock(mutex_);
        for (std::size_t i = 0; i < kBlocks; ++i) {
            Block& block = blocks_[next_++ % kBlocks];
            if (block.taken) continue;
            std::free(block.memory);
            block = {memory, bytes, true};
            return;
        }
    }

    bool give_back(void* memory) {
        std::lock_guard lock(mutex_);
        for (Block& block : blocks_) {
            if (block.memory != memory) continue;
            block.taken = false;
            return true;
        }
        return false;
    }

  private:
    static constexpr std::size_t kBlocks = 16;

    struct Block {
        void* memory;
        std::size_t bytes;
        bool taken;
    };

    std::mutex mutex_;
    Block blocks_[kBlocks] = {};
    std::size_t next_ = 0;
};

Kept& kept() {
    static Kept* blocks = new Kept;  // never destroyed: the pool's threads outlive static destructors
    return *blocks;
}

void* aligned(std::size_t bytes, std::size_t alignment) {
    void* memory = std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
    if (memory == nullptr) throw std::bad_alloc();
    return memory;
}

}  // namespace

void* allocate(std::size_t bytes) {
    if (bytes < kLarge) return aligned(bytes, 64);
    if (void* memory = kept().take(bytes)) return memory;
    const bool huge = bytes >= kHugePage / 2;
    void* memory = aligned(bytes, huge ? kHugePage : 64);
#ifdef __linux__
    if (huge) madvise(memory, (bytes + kHugePage - 1) / kHugePage * kHugePage, MADV_HUGEPAGE);
#endif
    kept().keep(memory, bytes);
    return memory;
}

void release(void* memory) {
    if (!kept().give_back(memory)) std::free(memory);
}

}  // namespace rdn::cpu
