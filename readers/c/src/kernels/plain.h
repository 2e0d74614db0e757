/* The plain kernels, and the steps they share. Every other kernel is tested against these. */
#ifndef MM_KERNELS_PLAIN_H
#define MM_KERNELS_PLAIN_H

#include "members.h"

#include <string.h>

MM_DECLARE_KERNELS(plain)

/* Sample number index of a packed row of 1, 2, 4 or 8 bits (tensors.md §3.3). */
static inline uint32_t mm_sample(const uint8_t *row, size_t index, uint32_t depth) {
    size_t in_byte = 8 / depth;
    uint32_t shift = (uint32_t)(in_byte - 1 - index % in_byte) * depth;
    return (uint32_t)row[index / in_byte] >> shift & (0xFFu >> (8 - depth));
}

#if defined(__aarch64__) /* has instructions for single halves as well */

static inline float mm_half_to_float(uint16_t half) {
    __fp16 value;
    memcpy(&value, &half, sizeof value);
    return (float)value;
}

static inline uint16_t mm_float_to_half(float value) {
    const __fp16 rounded = (__fp16)value;
    uint16_t half;
    memcpy(&half, &rounded, sizeof half);
    return half;
}

#else

/* The value of a binary16 number; a NaN stays one. */
static inline float mm_half_to_float(uint16_t half) {
    uint32_t magnitude = half & 0x7FFFu;
    uint32_t bits = magnitude << 13;
    float value;
    if (magnitude >= 0x7C00) {
        bits |= 0x7F800000;
    } else if (magnitude >= 0x0400) {
        bits += (127u - 15u) << 23;
    } else { /* zero, subnormal */
        value = (float)(int32_t)magnitude * 0x1p-24f;
        memcpy(&bits, &value, sizeof bits);
    }
    bits |= (uint32_t)(half & 0x8000u) << 16;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Rounded to nearest, ties to even; a NaN stays one. */
static inline uint16_t mm_float_to_half(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint32_t sign = bits >> 16 & 0x8000;
    uint32_t magnitude = bits & 0x7FFFFFFF;
    uint32_t half;
    if (magnitude > 0x7F800000) {
        half = 0x7E00;
    } else if (magnitude >= 0x477FF000) { /* 65,520 */
        half = 0x7C00;
    } else if (magnitude >= 0x38800000) { /* 2^-14 */
        half = (magnitude + 0xFFF + (magnitude >> 13 & 1) - ((127u - 15u) << 23)) >> 13;
    } else { /* at 0.5 a unit in the last place is 2^-24, that of a subnormal half: the addition rounds */
        float sum;
        memcpy(&sum, &magnitude, sizeof sum);
        sum += 0.5f;
        memcpy(&half, &sum, sizeof half);
        half -= 0x3F000000;
    }
    return (uint16_t)(sign | half);
}

#endif

static inline uint16_t mm_load_half(const uint8_t *bytes) { return (uint16_t)(bytes[0] | bytes[1] << 8); }

#endif
