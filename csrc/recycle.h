// Arrays for large results that every frame makes anew. Memory of this size goes back to the system when it is freed,
// and comes from there page by page: for 120 MB that costs more than to compute them. So one such array is kept.
#pragma once

#include <pybind11/numpy.h>

#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

namespace rdn {

// Float arrays; one whose Python object is gone lends its memory to the next. The interpreter's lock guards it.
class Recycler {
  public:
    pybind11::array_t<float> array(const std::vector<pybind11::ssize_t>& shape) {
        std::size_t count = 1;
        for (const pybind11::ssize_t extent : shape)
            count *= static_cast<std::size_t>(extent);
        if (count < kLeast) return pybind11::array_t<float>(shape);
        std::unique_ptr<Block> block = std::move(spare_);
        if (!block || block->capacity < count || block->capacity > 2 * count) {
            block.reset();  // before the next is there, so that never both are held
            // numpy's own memory, because it asks for huge pages
            block.reset(new Block{*this, count, pybind11::array_t<float>(static_cast<pybind11::ssize_t>(count))});
        }
        float* values = block->memory.mutable_data();
        const pybind11::capsule owner(block.get(), [](void* memory) {
            std::unique_ptr<Block> freed(static_cast<Block*>(memory));
            Recycler& home = freed->home;
            home.spare_ = std::move(freed);
        });
        block.release();
        return pybind11::array_t<float>(shape, values, owner);
    }

  private:
    static constexpr std::size_t kLeast = 1 << 18;  // below, the allocator keeps the memory itself

    struct Block {
        Recycler& home;
        std::size_t capacity;
        pybind11::array_t<float> memory;
    };

    std::unique_ptr<Block> spare_;
};

}  // namespace rdn
