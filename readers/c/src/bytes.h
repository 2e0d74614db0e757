/* Numbers in bytes, and the two divisions that the specification uses. */
#ifndef MM_BYTES_H
#define MM_BYTES_H

#include <stdint.h>
#include <string.h>

static inline uint16_t mm_load16(const uint8_t *p) { return (uint16_t)(p[0] | p[1] << 8); }

static inline uint32_t mm_load32(const uint8_t *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline uint64_t mm_load64(const uint8_t *p) { return mm_load32(p) | (uint64_t)mm_load32(p + 4) << 32; }

static inline uint32_t mm_load32_big(const uint8_t *p) {
    return (uint32_t)p[3] | (uint32_t)p[2] << 8 | (uint32_t)p[1] << 16 | (uint32_t)p[0] << 24;
}

static inline float mm_load_float(const uint8_t *p) {
    uint32_t bits = mm_load32(p);
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* b is not 0; a + b - 1 may not overflow as it is written here. */
static inline uint64_t mm_ceil_div(uint64_t a, uint64_t b) { return a / b + (a % b != 0); }

/* Zeros above the highest one of x, which is not 0. */
static inline uint32_t mm_leading_zeros(uint32_t x) {
#if defined(__GNUC__)
    return (uint32_t)__builtin_clz(x);
#else
    uint32_t zeros = 0;
    for (; (x & 0x80000000u) == 0; x <<= 1) {
        zeros++;
    }
    return zeros;
#endif
}

static inline uint64_t mm_min(uint64_t a, uint64_t b) { return a < b ? a : b; }

static inline uint64_t mm_max(uint64_t a, uint64_t b) { return a > b ? a : b; }

#endif
