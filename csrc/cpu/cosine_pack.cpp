// The proposals of a frame as the cosine attention's products want them.
#include "cosine.h"
#include "isa.h"

namespace rdn::cpu::RDN_ISA {
namespace {

constexpr double kLog2E = 1.4426950408889634;

// 1 over the length of a head, 0 where it has none.
double inverse_length(const double* head, int64_t head_dim) {
    double squares = 0.0;
    for (int64_t d = 0; d < head_dim; ++d)
        squares += head[d] * head[d];
    return squares > 0.0 ? 1.0 / sqrt(squares) : squares * 0.0;  // no number stays none
}

struct Slot {
    explicit Slot(const PackCosine& args) : args(args), bank(args.bank), room(bank.capacity * bank.width()) {}

    float* query() const { return bank.query + args.slot * kAttentions * room; }
    float* keys() const { return bank.keys + args.slot * kAttentions * room; }
    float* values() const { return bank.values + args.slot * room; }
    float* unit(int64_t mask) const { return bank.unit + (args.slot * bank.masks + mask) * room; }
    float* unit_panels(int64_t mask) const { return bank.unit_panels + (args.slot * bank.masks + mask) * room; }

    const PackCosine& args;
    const CosineBank& bank;
    int64_t room;
};

void pack_attention(const Slot& to, int64_t row, int64_t a) {
    const CosineBank& bank = to.bank;
    const int64_t width = bank.width(), dim = bank.head_dim;
    const double* query = to.args.projected[a] + row * 3 * width;
    const double sharpness = kSharpness * kLog2E * to.args.score[a][row];
    for (int64_t head = 0; head < bank.heads; ++head) {
        const double* q = query + head * dim;
        const double* k = q + width;
        const double of_query = inverse_length(q, dim), of_key = sharpness * inverse_length(k, dim);
        float* to_query = to.query() + ((a * bank.heads + head) * bank.capacity + row) * dim;
        float* to_key = to.keys() + ((a * bank.heads + head) * bank.capacity + row / kPanel * kPanel) * dim;
        for (int64_t d = 0; d < dim; ++d) {
            to_query[d] = static_cast<float>(q[d] * of_query);
            to_key[d * kPanel + row % kPanel] = static_cast<float>(k[d] * of_key);
        }
    }
}

void pack_values(const Slot& to, int64_t row) {
    const CosineBank& bank = to.bank;
    const int64_t width = bank.width(), dim = bank.head_dim;
    const double* v = to.args.projected[to.args.values_of] + row * 3 * width + 2 * width;
    for (int64_t head = 0; head < bank.heads; ++head)
        for (int64_t d = 0; d < dim; ++d)
            to.values()[(head * bank.capacity + row) * dim + d] = static_cast<float>(v[head * dim + d]);
}

// The first mask is always of cls.
void pack_unit(const Slot& to, int64_t row, int64_t mask) {
    const CosineBank& bank = to.bank;
    const int64_t width = bank.width(), dim = bank.head_dim;
    const double* v = to.args.projected[mask == 0 ? 0 : to.args.values_of] + row * 3 * width + 2 * width;
    float* rows = to.unit(mask) + row * width;
    float* panel = to.unit_panels(mask) + row / kPanel * kPanel * width + row % kPanel;
    for (int64_t head = 0; head < bank.heads; ++head) {
        const double inverse = inverse_length(v + head * dim, dim);
        for (int64_t d = head * dim; d < (head + 1) * dim; ++d) {
            rows[d] = static_cast<float>(v[d] * inverse);
            panel[d * kPanel] = static_cast<float>(v[d] * inverse / static_cast<double>(bank.heads));
        }
    }
}

}  // namespace

void pack_cosine(const PackCosine& args) {
    const Slot to(args);
    const CosineBank& bank = args.bank;
    memset(to.query(), 0, sizeof(float) * kAttentions * to.room);
    memset(to.keys(), 0, sizeof(float) * kAttentions * to.room);
    memset(to.values(), 0, sizeof(float) * to.room);
    memset(to.unit(0), 0, sizeof(float) * bank.masks * to.room);
    memset(to.unit_panels(0), 0, sizeof(float) * bank.masks * to.room);
    for (int64_t row = 0; row < args.rows; ++row) {
        for (int64_t a = 0; a < kAttentions; ++a)
            pack_attention(to, row, a);
        pack_values(to, row);
        for (int64_t mask = 0; mask < bank.masks; ++mask)
            pack_unit(to, row, mask);
    }
}

}  // namespace rdn::cpu::RDN_ISA
