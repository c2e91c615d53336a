// The launchers of one instruction set in one table.
#include "isa.h"

namespace rdn::cpu::RDN_ISA {

#define RDN_KERNEL(name, Args) void name(const Args& args);
RDN_KERNELS(RDN_KERNEL)
#undef RDN_KERNEL

extern const Kernels table;
const Kernels table = {
#define RDN_KERNEL(name, Args) &name,
    RDN_KERNELS(RDN_KERNEL)
#undef RDN_KERNEL
};

}  // namespace rdn::cpu::RDN_ISA
