// What a process may know of its processor, without AVX-512, AVX-VNNI and AMX: CPUID traps and is answered here.
//
// Libraries choose their kernels by CPUID. Linux lets a process have the instruction fault (arch_prctl, ARCH_CPUID);
// threads and forked children inherit that, programs that it starts have LD_PRELOAD. XGETBV goes on telling the truth:
// whoever reads it asks CPUID first. Intel's manual, volume 2A, CPUID, has the leaves.
#define _GNU_SOURCE
#include <cpuid.h>
#include <dlfcn.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define ARCH_CPUID 0x1012

#define BIT(n) (1u << (n))

// Without libc, whose errno belongs to who was interrupted.
static long let_cpuid(unsigned long run) {
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "0"((long)SYS_arch_prctl), "D"((long)ARCH_CPUID), "S"(run)
                     : "rcx", "r11", "memory");
    return result;
}

static void answer(uint32_t leaf, uint32_t subleaf, uint32_t* a, uint32_t* b, uint32_t* c, uint32_t* d) {
    __cpuid_count(leaf, subleaf, *a, *b, *c, *d);
    if (leaf == 7 && subleaf == 0) {
        *b &= ~(BIT(16) | BIT(17) | BIT(21) | BIT(26) | BIT(27) | BIT(28) | BIT(30) | BIT(31));  // F, DQ, .., BW, VL
        *c &= ~(BIT(1) | BIT(6) | BIT(11) | BIT(12) | BIT(14));  // VBMI, VBMI2, VNNI, BITALG, VPOPCNTDQ
        *d &=
            ~(BIT(2) | BIT(3) | BIT(8) | BIT(22) | BIT(23) | BIT(24) | BIT(25));  // .., AMX-BF16, FP16, AMX-TILE, -INT8
    } else if (leaf == 7 && subleaf == 1) {
        *a &= ~(BIT(4) | BIT(5) | BIT(21) | BIT(23));           // AVX-VNNI, AVX512-BF16, AMX-FP16, AVX-IFMA
        *d &= ~(BIT(4) | BIT(5) | BIT(8) | BIT(10) | BIT(19));  // AVX-VNNI-INT8, .., AMX-COMPLEX, AVX-VNNI-INT16, AVX10
    } else if (leaf == 0xd && subleaf == 0) {
        *a &= ~(BIT(5) | BIT(6) | BIT(7) | BIT(17) | BIT(18));  // state of the masks, of ZMM, of tiles
    } else if (leaf == 0x1d || leaf == 0x1e || leaf == 0x24) {  // tiles, their products, AVX10
        *a = *b = *c = *d = 0;
    }
}

static int (*real_sigaction)(int, const struct sigaction*, struct sigaction*);

static void trapped(int signal_number, siginfo_t* info, void* context) {
    greg_t* r = ((ucontext_t*)context)->uc_mcontext.gregs;
    const uint8_t* code = (const uint8_t*)r[REG_RIP];
    (void)info;
    // A fault that CPUID raises has no address; any other signal ends the process as ever, one that was sent to it too.
    if (info->si_code != SI_KERNEL || code[0] != 0x0f || code[1] != 0xa2) {
        struct sigaction usual = {0};
        usual.sa_handler = SIG_DFL;
        real_sigaction(signal_number, &usual, 0);
        raise(signal_number);
        return;
    }
    uint32_t a, b, c, d;
    let_cpuid(1);
    answer((uint32_t)r[REG_RAX], (uint32_t)r[REG_RCX], &a, &b, &c, &d);
    let_cpuid(0);
    r[REG_RAX] = a, r[REG_RBX] = b, r[REG_RCX] = c, r[REG_RDX] = d;
    r[REG_RIP] += 2;
}

// Python's faulthandler would take the signal.
int sigaction(int signal_number, const struct sigaction* action, struct sigaction* before) {
    if (!real_sigaction) *(void**)&real_sigaction = dlsym(RTLD_NEXT, "sigaction");
    if (signal_number == SIGSEGV) action = 0;
    return real_sigaction(signal_number, action, before);
}

__attribute__((constructor)) static void hide(void) {
    struct sigaction trap = {0};
    trap.sa_sigaction = trapped;
    trap.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;
    *(void**)&real_sigaction = dlsym(RTLD_NEXT, "sigaction");
    if (real_sigaction(SIGSEGV, &trap, 0) || let_cpuid(0)) {
        fputs("without_avx512: this processor or its kernel cannot let CPUID trap\n", stderr);
        _exit(125);
    }
}
