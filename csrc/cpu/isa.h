// One kernel source, compiled once per instruction set, chosen when the module is loaded.
//
// CMake compiles every file of RDN_ISA_SOURCES four times (once where the machine is not x86-64) with
//     RDN_ISA        baseline | avx2 | avx512 | avx512_bf16: the namespace that the file's launchers live in
//     RDN_ISA_LEVEL  0 | 1 | 2 | 3
// and the matching -m flags (avx2: AVX2, FMA, F16C, BMI, BMI2; avx512: those and F, BW, CD, DQ, VL; avx512_bf16: those
// and BF16), so __AVX2__, __FMA__, __AVX512F__ and __AVX512BF16__ are also there to ask. A kernel file looks like this:
//
//     #include "isa.h"
//     namespace rdn::cpu::RDN_ISA {
//     namespace { ... every helper and type ... }
//     void propose(const Propose& args) { ... }      // the launcher; its line stands in RDN_KERNELS below
//     }
//
// Callers write kernels().propose(args).
//
// Rules for such a file and for every header it includes:
// 1. Emit no weak symbol. The linker keeps one copy of a weak function, perhaps the AVX-512 one, and the baseline then
//    dies of an illegal instruction. So helpers are static or in the unnamed namespace, and neither std:: containers
//    nor std:: algorithms nor classes with inline members outside an unnamed namespace occur. <cmath> and the types of
//    <cstdint> are fine. The build fails (check_isa_symbols.cmake) where a weak symbol slips through.
// 2. Memory comes from Array<T> (scratch.h), sorting from order.h, threads from parallel.h: those are compiled once.
// 3. -ffp-contract=off holds, so that box arithmetic gives the same bits on every instruction set. Where a fused
//    multiply-add is wanted, say so: fused(a, b, c) of host_device.h, or an intrinsic.
#pragma once

#include "rdn/ops.h"

// name of the launcher, type of its arguments (rdn/ops.h)
#define RDN_KERNELS(X)                       \
    X(resize_normalize, ResizeNormalize)     \
    X(block_means, BlockMeans)               \
    X(propose, Propose)                      \
    X(roi_pool, RoiPool)                     \
    X(detect, Detect)                        \
    X(suppress, Suppress)                    \
    X(follow, Follow)                        \
    X(linear, Linear)                        \
    X(narrow, Narrow)                        \
    X(widen, Widen)                          \
    X(pack_supports, PackSupports)           \
    X(relation_attention, RelationAttention) \
    X(relation_refine, RelationRefine)       \
    X(linear_exact, LinearExact)             \
    X(pack_cosine, PackCosine)               \
    X(cosine_refine, CosineRefine)           \
    X(cosine_average, CosineAverage)         \
    X(local_average, LocalAverage)

namespace rdn::cpu {

struct Kernels {
#define RDN_KERNEL(name, Args) void (*name)(const Args& args);
    RDN_KERNELS(RDN_KERNEL)
#undef RDN_KERNEL
};

// The kernels of the best instruction set that both this machine and the environment variable RDN_ISA allow.
// The first call throws std::runtime_error where RDN_ISA names an unknown or unsupported one.
const Kernels& kernels();
const char* isa_name();

}  // namespace rdn::cpu
