// The mean of each colour over each block of an image. Whole numbers until the end: all instruction sets find the same.
#include "isa.h"
#include "product.h"
#include "scratch.h"

namespace rdn::cpu::RDN_ISA {

void block_means(const BlockMeans& args) {
    const int64_t line = 3 * args.width, taken = smaller(args.most_rows, args.tall);
    const int64_t rows = ceil_div(args.height, args.tall), columns = ceil_div(args.width, args.wide);
    const double part = 1.0 / static_cast<double>(taken * args.wide);
    Array<uint16_t> sums(line);  // of the rows of a block that are read
    float* out = args.out;
    for (int64_t i = 0; i < rows; ++i) {
        const int64_t top = smaller(i * args.tall, args.height - args.tall);
        memset(sums, 0, sizeof(uint16_t) * line);
        for (int64_t k = 0; k < taken; ++k) {
            const uint8_t* row = args.image + (top + (2 * k + 1) * args.tall / (2 * taken)) * line;
            for (int64_t x = 0; x < line; ++x)
                sums[x] = static_cast<uint16_t>(sums[x] + row[x]);
        }
        for (int64_t j = 0; j < columns; ++j, out += 3) {
            const uint16_t* pixel = sums + 3 * smaller(j * args.wide, args.width - args.wide);
            int64_t red = 0, green = 0, blue = 0;
            for (int64_t x = 0; x < args.wide; ++x, pixel += 3)
                red += pixel[0], green += pixel[1], blue += pixel[2];
            out[0] = static_cast<float>(static_cast<double>(red) * part);
            out[1] = static_cast<float>(static_cast<double>(green) * part);
            out[2] = static_cast<float>(static_cast<double>(blue) * part);
        }
    }
}

}  // namespace rdn::cpu::RDN_ISA
