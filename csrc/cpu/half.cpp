// Floats to float16 and back.
#include "isa.h"
#include "rdn/relation.h"

namespace rdn::cpu::RDN_ISA {
namespace {

// Of the last ones, fewer than a vector.
template <class From, class To>
void convert_part(const From* from, int64_t count, To* to) {
    From some[kLanes] = {};
    To converted[kLanes];
    memcpy(some, from, sizeof(From) * count);
    store(converted, load(some));
    memcpy(to, converted, sizeof(To) * count);
}

template <class From, class To>
void convert(const From* from, int64_t count, To* to) {
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes)
        store(to + i, load(from + i));
    convert_part(from + i, count - i, to + i);
}

}  // namespace

void narrow(const Narrow& args) {
    convert(args.from, args.count, args.out);
}

void widen(const Widen& args) {
    convert(args.from, args.count, args.out);
}

}  // namespace rdn::cpu::RDN_ISA
