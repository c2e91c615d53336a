// Memory for kernels, allocated in a file that is compiled once (cpu/isa.h, rule 2).
#pragma once

#include <cstddef>
#include <cstdint>

namespace rdn::cpu {

void* allocate(std::size_t bytes);  // 64-byte aligned, not cleared; throws std::bad_alloc
void release(void* memory);

// The unnamed namespace gives every including file its own copy: a class template would be a weak symbol.
namespace {

template <class T>
struct Array {
    explicit Array(int64_t count) : data(static_cast<T*>(allocate(static_cast<std::size_t>(count) * sizeof(T)))) {}
    ~Array() { release(data); }
    Array(const Array&) = delete;
    Array& operator=(const Array&) = delete;
    operator T*() const { return data; }

    T* data;
};

}  // namespace

}  // namespace rdn::cpu
