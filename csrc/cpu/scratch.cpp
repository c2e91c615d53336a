#include "scratch.h"

#include <new>

namespace rdn::cpu {

void* allocate(std::size_t bytes) {
    return ::operator new(bytes, std::align_val_t{64});
}
void release(void* memory) {
    ::operator delete(memory, std::align_val_t{64});
}

}  // namespace rdn::cpu
