/*
 * Dot products of rows of packed codes with x in paired order (kernels.h): two rows at a time, which share what they
 * load of x, over whole groups. In NEON's form for all processors, and in AVX2's.
 */
#ifndef MM_KERNELS_DOT_ROWS_H
#define MM_KERNELS_DOT_ROWS_H

#include "neon.h"

/* Loops of a constant number of steps, whose vectors are to stay in registers. */
#define UNROLL _Pragma("GCC unroll 8")

enum { ROWS = 2, LANES = 16 };

MM_INLINE float add_lanes(float32x4_t values) {
    float32x2_t pair = vadd_f32(vget_low_f32(values), vget_high_f32(values));
    return vget_lane_f32(vpadd_f32(pair, pair), 0);
}

/* What codes stand for: halves or floats of a table of 16 entries, or themselves less a zero point. */
enum { HALVES, FLOATS, CODES };

#if defined(__AVX2__)

/*
 * Twice NEON's width, and permutations of 8 floats in place of tables of bytes. They look at the low three bits of a
 * code alone, so the samples before it need not be cleared; the fourth one chooses between two permutations.
 */
typedef struct meaning {
    __m256 low, high; /* entries 0 to 7, 8 to 15; below depth 4 the first 2 or 4 again and again */
    __m256i zero;
} meaning;

MM_INLINE meaning of_floats(const float *table, uint32_t depth) {
    const __m256i entries = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i repeated = _mm256_and_si256(entries, _mm256_set1_epi32((1 << depth) - 1));
    meaning means = {_mm256_loadu_ps(table), _mm256_loadu_ps(table + 8), _mm256_setzero_si256()};
    means.low = _mm256_permutevar8x32_ps(means.low, repeated);
    return means;
}

MM_INLINE meaning of_codes(int32_t zero) {
    return (meaning){_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_set1_epi32(zero)};
}

/* What sample number `sample` of each of 8 bytes stands for */
MM_INLINE __m256 mean(const meaning *means, int kind, uint32_t depth, __m256i bytes, uint32_t sample) {
    if (kind == CODES) {
        return _mm256_cvtepi32_ps(_mm256_sub_epi32(bytes, means->zero));
    }
    const __m256i codes = _mm256_srli_epi32(bytes, (int)(8 - depth * (sample + 1)));
    const __m256 low = _mm256_permutevar8x32_ps(means->low, codes);
    if (depth < 4) {
        return low;
    }
    const __m256 high = _mm256_permutevar8x32_ps(means->high, codes);
    return _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(bytes, (int)(24 + depth * sample))));
}

/* depth and kind are constants. */
MM_INLINE void dot_rows(const uint8_t *codes, size_t stride, size_t groups, uint32_t depth, int kind,
                        const meaning *means, const float *x, float *y) {
    const size_t samples = 8 / depth;
    __m256 sums[ROWS][2];
    UNROLL
    for (size_t i = 0; i < ROWS; i++) {
        sums[i][0] = sums[i][1] = _mm256_setzero_ps();
    }
    for (size_t group = 0; group < groups; group++, codes += LANES, x += LANES * samples) {
        UNROLL
        for (size_t half = 0; half < 2; half++) {
            UNROLL
            for (size_t i = 0; i < ROWS; i++) {
                const uint8_t *eight = codes + i * stride + 8 * half;
                const __m256i bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)eight));
                UNROLL
                for (uint32_t sample = 0; sample < samples; sample++) {
                    const __m256 values = mean(means, kind, depth, bytes, sample);
                    const __m256 inputs = _mm256_loadu_ps(x + LANES * sample + 8 * half);
                    __m256 *sum = &sums[i][samples > 1 ? sample % 2 : half];
                    *sum = _mm256_fmadd_ps(values, inputs, *sum);
                }
            }
        }
    }
    UNROLL
    for (size_t i = 0; i < ROWS; i++) {
        const __m256 sum = _mm256_add_ps(sums[i][0], sums[i][1]);
        y[i] = add_lanes((float32x4_t)_mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps(sum, 1)));
    }
}

#else

typedef struct meaning {
    uint8x16_t bytes[4]; /* of the 16 entries: byte 0 of all, byte 1 of all, ... */
    uint8x8_t zero;
} meaning;

typedef struct sixteen {
    float32x4_t part[4];
} sixteen;

MM_INLINE meaning of_floats(const float *table, uint32_t depth) {
    uint8x16x4_t bytes = mm_split4(table);
    (void)depth;
    return (meaning){{bytes.val[0], bytes.val[1], bytes.val[2], bytes.val[3]}, vdup_n_u8(0)};
}

MM_INLINE meaning of_codes(int32_t zero) {
    uint8x16_t none = vdupq_n_u8(0);
    return (meaning){{none, none, none, none}, vdup_n_u8((uint8_t)zero)};
}

#if !defined(MM_ON_X86)
MM_INLINE meaning of_halves(const uint16_t *table) {
    uint8x16x2_t bytes = mm_split2(table);
    uint8x16_t none = vdupq_n_u8(0);
    return (meaning){{bytes.val[0], bytes.val[1], none, none}, vdup_n_u8(0)};
}
#endif

MM_INLINE float32x4_t widen_high(uint16x8_t halves) {
#if defined(__aarch64__)
    return vcvt_high_f32_f16(vreinterpretq_f16_u16(halves));
#else
    return mm_widen4(vget_high_u16(halves));
#endif
}

MM_INLINE sixteen mean(const meaning *means, int kind, uint8x16_t codes) {
    if (kind == CODES) {
        int16x8_t first = vreinterpretq_s16_u16(vsubl_u8(vget_low_u8(codes), means->zero));
        int16x8_t second = vreinterpretq_s16_u16(vsubl_u8(vget_high_u8(codes), means->zero));
        return (sixteen){{vcvtq_f32_s32(vmovl_s16(vget_low_s16(first))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(first))),
                          vcvtq_f32_s32(vmovl_s16(vget_low_s16(second))),
                          vcvtq_f32_s32(vmovl_s16(vget_high_s16(second)))}};
    }
    uint8x16x2_t low = vzipq_u8(mm_lookup(means->bytes[0], codes), mm_lookup(means->bytes[1], codes));
    uint16x8_t low0 = vreinterpretq_u16_u8(low.val[0]), low1 = vreinterpretq_u16_u8(low.val[1]);
    if (kind == HALVES) {
        return (sixteen){
            {mm_widen4(vget_low_u16(low0)), widen_high(low0), mm_widen4(vget_low_u16(low1)), widen_high(low1)}};
    }
    uint8x16x2_t high = vzipq_u8(mm_lookup(means->bytes[2], codes), mm_lookup(means->bytes[3], codes));
    uint16x8x2_t floats0 = vzipq_u16(low0, vreinterpretq_u16_u8(high.val[0]));
    uint16x8x2_t floats1 = vzipq_u16(low1, vreinterpretq_u16_u8(high.val[1]));
    return (sixteen){{vreinterpretq_f32_u16(floats0.val[0]), vreinterpretq_f32_u16(floats0.val[1]),
                      vreinterpretq_f32_u16(floats1.val[0]), vreinterpretq_f32_u16(floats1.val[1])}};
}

/* The first sample of each byte */
MM_INLINE uint8x16_t first_samples(uint8x16_t bytes, uint32_t depth) {
#if defined(MM_ON_X86)
    __m128i shifted = _mm_srli_epi16((__m128i)bytes, (int)(8 - depth));
    return (uint8x16_t)_mm_and_si128(shifted, _mm_set1_epi8((char)(0xFF >> (8 - depth))));
#else
    return vshlq_u8(bytes, vdupq_n_s8((int8_t)((int)depth - 8)));
#endif
}

/* The bytes with their first sample shifted out */
MM_INLINE uint8x16_t without_first(uint8x16_t bytes, uint32_t depth) {
#if defined(MM_ON_X86) /* shifts from byte to byte what never becomes a first sample */
    return (uint8x16_t)_mm_slli_epi16((__m128i)bytes, (int)depth);
#else
    return vshlq_u8(bytes, vdupq_n_s8((int8_t)depth));
#endif
}

/* kind is a constant. Two samples of a byte at a time: there are 2, 4 or 8, or a code is a byte. */
MM_INLINE void dot_rows(const uint8_t *codes, size_t stride, size_t groups, uint32_t depth, int kind,
                        const meaning *means, const float *x, float *y) {
    const uint32_t samples = 8 / depth, at_once = kind == CODES ? 1 : 2;
    float32x4_t sums[ROWS][2];
    UNROLL
    for (size_t i = 0; i < ROWS; i++) {
        sums[i][0] = sums[i][1] = vdupq_n_f32(0);
    }
    for (size_t group = 0; group < groups; group++, codes += LANES) {
        uint8x16_t bytes[ROWS];
        UNROLL
        for (size_t i = 0; i < ROWS; i++) {
            bytes[i] = vld1q_u8(codes + i * stride);
        }
        for (uint32_t sample = 0; sample < samples; sample += at_once) {
            UNROLL
            for (uint32_t twice = 0; twice < at_once; twice++, x += LANES) {
                const sixteen inputs = {{vld1q_f32(x), vld1q_f32(x + 4), vld1q_f32(x + 8), vld1q_f32(x + 12)}};
                UNROLL
                for (size_t i = 0; i < ROWS; i++) {
                    const sixteen values = mean(means, kind, kind == CODES ? bytes[i] : first_samples(bytes[i], depth));
                    bytes[i] = kind == CODES ? bytes[i] : without_first(bytes[i], depth);
                    UNROLL
                    for (size_t part = 0; part < 4; part++) {
                        sums[i][part % 2] = vfmaq_f32(sums[i][part % 2], values.part[part], inputs.part[part]);
                    }
                }
            }
        }
    }
    UNROLL
    for (size_t i = 0; i < ROWS; i++) {
        y[i] = add_lanes(vaddq_f32(sums[i][0], sums[i][1]));
    }
}

#endif

#endif
