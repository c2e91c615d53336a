// What a process may know of its processor, without AVX-512, AVX-VNNI and AMX: its CPUID instructions are answered
// here.
//
// Libraries choose their kernels by CPUID, which no machine but some of Intel's can let trap. So each CPUID of a
// library becomes UD2, which has as many bytes and raises SIGILL, before the library's own code runs (rtld-audit(7),
// la_objopen). objdump tells where they are, once for each file. XGETBV goes on telling the truth: whoever reads it
// asks CPUID first. Intel's manual, volume 2A, CPUID, has the leaves. The library is loaded twice: as an auditor, and
// into the program itself, where it keeps others from SIGILL.
#define _GNU_SOURCE
#include <cpuid.h>
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <link.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#define BIT(n) (1u << (n))
#define CANNOT 125
#define MOST 65536

static const uint8_t kCpuid[2] = {0x0f, 0xa2}, kUd2[2] = {0x0f, 0x0b};

// Addresses of the instructions that were CPUID, 0 of those that are gone, and whose they are.
static uintptr_t replaced[MOST];
static const uintptr_t* owner[MOST];
static int count;

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

static int is_replaced(uintptr_t at) {
    for (int i = __atomic_load_n(&count, __ATOMIC_ACQUIRE); i-- > 0;)
        if (replaced[i] == at) return memcmp((const void*)at, kUd2, sizeof kUd2) == 0;
    return 0;
}

static void illegal(int signal_number, siginfo_t* info, void* context) {
    greg_t* r = ((ucontext_t*)context)->uc_mcontext.gregs;
    // A signal that was sent, or raised by another instruction, ends the process as ever.
    if (info->si_code <= 0 || !is_replaced((uintptr_t)r[REG_RIP])) {
        struct sigaction usual = {0};
        usual.sa_handler = SIG_DFL;
        real_sigaction(signal_number, &usual, 0);
        raise(signal_number);
        return;
    }
    uint32_t a, b, c, d;
    answer((uint32_t)r[REG_RAX], (uint32_t)r[REG_RCX], &a, &b, &c, &d);
    r[REG_RAX] = a, r[REG_RBX] = b, r[REG_RCX] = c, r[REG_RDX] = d;
    r[REG_RIP] += sizeof kUd2;
}

// Python's faulthandler would take the signal; programs that set it back to what it was would lose it.
int sigaction(int signal_number, const struct sigaction* action, struct sigaction* before) {
    if (!real_sigaction) *(void**)&real_sigaction = dlsym(RTLD_NEXT, "sigaction");
    if (signal_number == SIGILL) action = 0;
    return real_sigaction(signal_number, action, before);
}

__sighandler_t signal(int signal_number, __sighandler_t handler) {
    static __sighandler_t (*real)(int, __sighandler_t);
    if (!real) *(void**)&real = dlsym(RTLD_NEXT, "signal");
    return signal_number == SIGILL ? SIG_DFL : real(signal_number, handler);
}

static void give_up(const char* what, const char* path) {
    fprintf(stderr, "without_avx512: %s %s\n", what, path);
    _exit(CANNOT);
}

// Writes the addresses of a file's CPUIDs, one a line, and a last line that says that all are there. Tables may lie in
// the code, and objdump takes them for instructions: near those stand some that are none ("(bad)"), and nothing that
// says which leaf is wanted.
static void find_cpuids(const char* path, const char* to) {
    static const char command[] =
        "{ LC_ALL=C objdump -d --no-show-raw-insn \"$0\" && echo end; } | awk '"
        "/%[er]ax$/ { leaf = NR }"
        "/\\(bad\\)/ { bad = NR; given = found }"
        "/[ \\t]cpuid *$/ && NR - leaf <= 12 && NR - bad > 12 {"
        "  line[++found] = leaf = NR; address[found] = substr($1, 1, length($1) - 1) }"
        "given < found && NR - line[given + 1] > 12 { print address[++given] }"
        "END { while (given < found) print address[++given]; if ($0 == \"end\") print }"
        "' > \"$1.$$\" && [ \"$(tail -n 1 \"$1.$$\")\" = end ] && mv \"$1.$$\" \"$1\"";
    char* words[] = {"sh", "-c", (char*)command, (char*)path, (char*)to, 0};
    char path_variable[4096];
    snprintf(path_variable, sizeof path_variable, "PATH=%s", getenv("PATH") ? getenv("PATH") : "/usr/bin:/bin");
    char* variables[] = {path_variable, 0};  // nothing is hidden from objdump
    pid_t child;
    if (posix_spawn(&child, "/bin/sh", 0, 0, words, variables)) give_up("/bin/sh does not start, for", path);
    while (waitpid(child, 0, 0) < 0 && errno == EINTR) {
    }
}

static void replace(uintptr_t at, const char* path, const uintptr_t* cookie) {
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), first = at / page * page;
    const size_t size = (at + sizeof kUd2 - first + page - 1) / page * page;
    if (memcmp((const void*)at, kCpuid, sizeof kCpuid)) return;  // its code is not where objdump says
    int place = 0;
    while (place < count && replaced[place])
        ++place;
    if (place == MOST) give_up("too many CPUIDs up to", path);
    replaced[place] = at, owner[place] = cookie;
    if (place == count) __atomic_store_n(&count, count + 1, __ATOMIC_RELEASE);
    if (mprotect((void*)first, size, PROT_READ | PROT_WRITE | PROT_EXEC)) give_up("may not write to the code of", path);
    memcpy((void*)at, kUd2, sizeof kUd2);
    mprotect((void*)first, size, PROT_READ | PROT_EXEC);
}

unsigned la_version(unsigned version) {
    struct sigaction action = {0};
    action.sa_sigaction = illegal;
    action.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;
    *(void**)&real_sigaction = dlsym(RTLD_NEXT, "sigaction");
    if (real_sigaction(SIGILL, &action, 0)) give_up("may not handle", "SIGILL");
    return version < LAV_CURRENT ? version : LAV_CURRENT;
}

unsigned la_objopen(struct link_map* map, Lmid_t namespace, uintptr_t* cookie) {
    char own[PATH_MAX] = "";
    if (!map->l_name[0] && readlink("/proc/self/exe", own, sizeof own - 1) < 0) own[0] = 0;
    const char* path = map->l_name[0] ? map->l_name : own;
    const char* folder = getenv("RDN_CPUIDS");
    struct stat about;
    char known[4096], line[64];
    (void)namespace;
    if (!folder || stat(path, &about)) return 0;  // the kernel's own has no file
    snprintf(known, sizeof known, "%s/%llx-%llx-%llx-%llx", folder, (unsigned long long)about.st_dev,
             (unsigned long long)about.st_ino, (unsigned long long)about.st_size, (unsigned long long)about.st_mtime);
    FILE* file = fopen(known, "r");
    if (!file) {
        find_cpuids(path, known);
        file = fopen(known, "r");
    }
    int whole = 0;
    while (file && fgets(line, sizeof line, file)) {
        whole = !strcmp(line, "end\n");
        if (!whole) replace(map->l_addr + strtoull(line, 0, 16), path, cookie);
    }
    if (!whole) give_up("objdump fails, or its result cannot be kept under build/, of", path);
    fclose(file);
    return 0;
}

// What comes to lie there is another library's.
unsigned la_objclose(uintptr_t* cookie) {
    for (int i = 0; i < count; ++i)
        if (owner[i] == cookie) replaced[i] = 0;
    return 0;
}
