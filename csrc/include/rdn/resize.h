// PIL's bilinear filter along one side of an image: a triangle as wide as the scale (antialiasing), its weights rounded
// to fixed point. Everything is computed as PIL does, so that resized images are PIL's to the bit.
#pragma once

#include <cstdint>

#include "rdn/host_device.h"

namespace rdn {

constexpr int kTapBits = 22;  // a weight of 1 is 1 << kTapBits; between the two passes pixels are bytes again

struct ResizeSide {
    int64_t in_size;
    double scale, support;  // input pixels per output pixel, and the triangle's half width
};

RDN_HD ResizeSide resize_side(int64_t in_size, int64_t out_size) {
    const double scale = static_cast<double>(in_size) / static_cast<double>(out_size);
    return {in_size, scale, scale > 1.0 ? scale : 1.0};
}

RDN_HD int64_t most_taps(ResizeSide side) {
    return static_cast<int64_t>(ceil(side.support)) * 2 + 1;
}

// Input pixels that output pixel `position` is made of.
struct TapRange {
    int64_t first, count;
};

RDN_HD double tap_centre(ResizeSide side, int64_t position) {
    return (static_cast<double>(position) + 0.5) * side.scale;
}

RDN_HD TapRange tap_range(ResizeSide side, int64_t position) {
    const double centre = tap_centre(side, position);
    int64_t low = static_cast<int64_t>(centre - side.support + 0.5);
    int64_t high = static_cast<int64_t>(centre + side.support + 0.5);
    if (low < 0) low = 0;
    if (high > side.in_size) high = side.in_size;
    return {low, high - low};
}

RDN_HD double triangle(ResizeSide side, double centre, int64_t pixel) {
    const double distance = fabs((static_cast<double>(pixel) - centre + 0.5) * (1.0 / side.support));
    return distance < 1.0 ? 1.0 - distance : 0.0;
}

// weights [taps.count]
RDN_HD void tap_weights(ResizeSide side, int64_t position, TapRange taps, int32_t* weights) {
    const double centre = tap_centre(side, position);
    double sum = 0.0;
    for (int64_t k = 0; k < taps.count; ++k)
        sum += triangle(side, centre, taps.first + k);
    for (int64_t k = 0; k < taps.count; ++k) {
        const double raw = triangle(side, centre, taps.first + k);  // not negative, so this rounds half up:
        weights[k] = static_cast<int32_t>(0.5 + (sum != 0.0 ? raw / sum : raw) * (1 << kTapBits));
    }
}

// A sum of byte * weight + (1 << (kTapBits - 1)) as a byte; weights are not negative.
RDN_HD int32_t tap_byte(int32_t sum) {
    const int32_t value = sum >> kTapBits;
    return value > 255 ? 255 : value;
}

// ---- NV12, as video decoders give it, to red, green and blue rounded to 0..255 (ITU-T H.273, section 8.3)

struct Rgb {
    int32_t red, green, blue;
};

enum class YuvMatrix : int32_t { kBt601 = 0, kBt709 = 1, kBt2020 = 2 };

// Coefficients in 16 fractional bits.
struct YuvScale {
    int32_t black, luma, red_v, green_u, green_v, blue_u;
};

// full: y, u and v are 0..255; otherwise y is 16..235, u and v are 16..240.
inline YuvScale yuv_scale(YuvMatrix matrix, bool full) {
    constexpr double kRed[] = {0.299, 0.2126, 0.2627}, kBlue[] = {0.114, 0.0722, 0.0593};
    const double kr = kRed[static_cast<int>(matrix)], kb = kBlue[static_cast<int>(matrix)], kg = 1 - kr - kb;
    const double luma = full ? 1 : 255.0 / 219, chroma = full ? 1 : 255.0 / 224;
    const double red_v = 2 * (1 - kr) * chroma, blue_u = 2 * (1 - kb) * chroma;
    const auto fixed = [](double value) { return static_cast<int32_t>(value * (1 << 16) + 0.5); };
    return {full ? 0 : 16, fixed(luma), fixed(red_v), fixed(blue_u * kb / kg), fixed(red_v * kr / kg), fixed(blue_u)};
}

RDN_HD int32_t colour_byte(int32_t sum) {
    const int32_t value = (sum + (1 << 15)) >> 16;
    return value < 0 ? 0 : (value > 255 ? 255 : value);
}

RDN_HD Rgb yuv_to_rgb(int32_t y, int32_t u, int32_t v, const YuvScale& scale) {
    const int32_t luma = scale.luma * (y - scale.black), cb = u - 128, cr = v - 128;
    return {colour_byte(luma + scale.red_v * cr), colour_byte(luma - scale.green_u * cb - scale.green_v * cr),
            colour_byte(luma + scale.blue_u * cb)};
}

}  // namespace rdn
