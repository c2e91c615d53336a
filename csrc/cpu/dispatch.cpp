// Chooses the instruction set, once.
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "isa.h"

namespace rdn::cpu {

namespace baseline {
extern const Kernels table;
}
#ifdef RDN_X86_64
namespace avx2 {
extern const Kernels table;
}
namespace avx512 {
extern const Kernels table;
}
namespace avx512_bf16 {
extern const Kernels table;
}
#endif

namespace {

struct Isa {
    const char* name;
    const Kernels* table;
    bool supported;
};

// The features asked for are those of the compiler flags in CMakeLists.txt.
Isa choose() {
#ifdef RDN_X86_64
    __builtin_cpu_init();
    const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                          __builtin_cpu_supports("f16c") && __builtin_cpu_supports("bmi") &&
                          __builtin_cpu_supports("bmi2");
    const bool has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                            __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                            __builtin_cpu_supports("avx512vl");
    const bool has_bf16 = has_avx512 && __builtin_cpu_supports("avx512bf16");
    const Isa best_first[] = {{"avx512_bf16", &avx512_bf16::table, has_bf16},
                              {"avx512", &avx512::table, has_avx512},
                              {"avx2", &avx2::table, has_avx2},
                              {"baseline", &baseline::table, true}};
#else
    const Isa best_first[] = {{"baseline", &baseline::table, true}};
#endif
    const char* wanted = std::getenv("RDN_ISA");
    std::string available;
    for (const Isa& isa : best_first) {
        if (!isa.supported) continue;
        if (wanted == nullptr || std::string(wanted) == isa.name) return isa;
        available += (available.empty() ? "" : ", ") + std::string(isa.name);
    }
    throw std::runtime_error("RDN_ISA is '" + std::string(wanted) + "', this machine and build have " + available);
}

const Isa& chosen() {
    static const Isa isa = choose();
    return isa;
}

}  // namespace

const Kernels& kernels() {
    return *chosen().table;
}
const char* isa_name() {
    return chosen().name;
}

}  // namespace rdn::cpu
