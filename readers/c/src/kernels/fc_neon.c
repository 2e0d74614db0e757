/* Fully connected layers in vectors; neon.h says for which processors. */
#include "dot_rows.h"
#include "plain.h"

#include <stdbool.h>

#if defined(__AVX2__)
#define ONE_FOR_ALL_DEPTHS MM_INLINE /* shifts by constants: a function for each depth */
#else
#define ONE_FOR_ALL_DEPTHS static __attribute__((noinline))
#endif

/* ------------------------------------------------------------------------------------------------ packed rows */

/* Whole groups of rows of packed codes, or of codes of 8 bits; the columns behind them remain. A row without a partner
 * is its own. */
MM_INLINE void dot_groups(const uint8_t *codes, size_t stride, size_t rows, size_t groups, uint32_t depth, int kind,
                          const meaning *means, const float *x, float *y) {
    for (size_t row = 0; row < rows; row += 2, codes += 2 * stride) {
        const bool paired = row + 1 < rows;
        float sums[2];
        dot_rows(codes, paired ? stride : 0, groups, depth, kind, means, x, sums);
        y[row] = sums[0];
        if (paired) {
            y[row + 1] = sums[1];
        }
    }
}

static void add_remaining(const uint8_t *codes, size_t stride, size_t rows, size_t count, uint32_t depth,
                          const float *table, const float *x, float *y) {
    const size_t group = LANES * 8 / depth, whole = count / group * group;
    for (size_t row = 0; row < rows && whole < count; row++, codes += stride) {
        float sum = 0;
        for (size_t i = whole; i < count; i++) {
            sum += table[mm_sample(codes, i, depth)] * x[i];
        }
        y[row] += sum;
    }
}

ONE_FOR_ALL_DEPTHS void dot_floats(const uint8_t *codes, size_t stride, size_t rows, size_t count, uint32_t depth,
                                   const float *table, const float *x, float *y) {
    const meaning means = of_floats(table, depth);
    dot_groups(codes, stride, rows, count / (LANES * 8 / depth), depth, FLOATS, &means, x, y);
    add_remaining(codes, stride, rows, count, depth, table, x, y);
}

ONE_FOR_ALL_DEPTHS void dot_halves(const uint8_t *codes, size_t stride, size_t rows, size_t count, uint32_t depth,
                                   const uint16_t *table, const float *x, float *y) {
    float floats[LANES];
    for (size_t i = 0; i < LANES; i += 4) {
        vst1q_f32(floats + i, mm_widen4(vld1_u16(table + i)));
    }
#if defined(MM_ON_X86)
    dot_floats(codes, stride, rows, count, depth, floats, x, y);
#else
    const meaning means = of_halves(table);
    dot_groups(codes, stride, rows, count / (LANES * 8 / depth), depth, HALVES, &means, x, y);
    add_remaining(codes, stride, rows, count, depth, floats, x, y);
#endif
}

#define DEPTH(depth)                                                                                                   \
    void MM_VECTOR(dot_palette##depth##_f32)(const uint8_t *codes, size_t stride, size_t rows, size_t count,           \
                                             const float *table, const float *x, float *y) {                           \
        dot_floats(codes, stride, rows, count, depth, table, x, y);                                                    \
    }                                                                                                                  \
    void MM_VECTOR(dot_palette##depth##_f16)(const uint8_t *codes, size_t stride, size_t rows, size_t count,           \
                                             const uint16_t *table, const float *x, float *y) {                        \
        dot_halves(codes, stride, rows, count, depth, table, x, y);                                                    \
    }

DEPTH(1)
DEPTH(2)
DEPTH(4)

void MM_VECTOR(dot_codes8)(const uint8_t *codes, size_t stride, size_t rows, size_t count, int32_t zero, const float *x,
                           float *y) {
    const meaning means = of_codes(zero);
    const size_t whole = count / LANES * LANES;
    dot_groups(codes, stride, rows, count / LANES, 8, CODES, &means, x, y);
    for (size_t row = 0; row < rows && whole < count; row++, codes += stride) {
        float rest;
        mm_plain_dot_codes8(codes + whole, stride, 1, count - whole, zero, x + whole, &rest);
        y[row] += rest;
    }
}

void MM_VECTOR(dot_codes16)(const uint8_t *high, const uint8_t *low, size_t stride, size_t rows, size_t count,
                            int32_t zero, const float *x, float *y) {
    size_t whole = count / 8 * 8;
    uint16x4_t zeros = vdup_n_u16((uint16_t)zero);
    for (size_t row = 0; row < rows; row++, high += stride, low += stride) {
        float32x4_t sum0 = vdupq_n_f32(0), sum1 = sum0;
        for (size_t i = 0; i < whole; i += 8) {
            uint16x8_t codes = vorrq_u16(vshlq_n_u16(vmovl_u8(vld1_u8(high + i)), 8), vmovl_u8(vld1_u8(low + i)));
            int32x4_t first = vreinterpretq_s32_u32(vsubl_u16(vget_low_u16(codes), zeros));
            int32x4_t second = vreinterpretq_s32_u32(vsubl_u16(vget_high_u16(codes), zeros));
            sum0 = vfmaq_f32(sum0, vcvtq_f32_s32(first), vld1q_f32(x + i));
            sum1 = vfmaq_f32(sum1, vcvtq_f32_s32(second), vld1q_f32(x + i + 4));
        }
        mm_plain_dot_codes16(high + whole, low + whole, stride, 1, count - whole, zero, x + whole, &y[row]);
        y[row] += add_lanes(vaddq_f32(sum0, sum1));
    }
}

/* ------------------------------------------------------------------------------------------------ floats and halves */

/* Four vectors of four, so that four sums run at a time. */
MM_INLINE float add_four(const float32x4_t sums[4]) {
    return add_lanes(vaddq_f32(vaddq_f32(sums[0], sums[1]), vaddq_f32(sums[2], sums[3])));
}

float MM_VECTOR(dot_f32)(const float *w, const float *x, size_t count) {
    size_t whole = count / LANES * LANES;
    float32x4_t sums[4] = {vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0)};
    for (size_t i = 0; i < whole; i += LANES) {
        UNROLL
        for (size_t j = 0; j < 4; j++) {
            sums[j] = vfmaq_f32(sums[j], vld1q_f32(w + i + 4 * j), vld1q_f32(x + i + 4 * j));
        }
    }
    return add_four(sums) + mm_plain_dot_f32(w + whole, x + whole, count - whole);
}

float MM_VECTOR(dot_f16)(const uint8_t *halves, const float *x, size_t count) {
    size_t whole = count / LANES * LANES;
    float32x4_t sums[4] = {vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0)};
    for (size_t i = 0; i < whole; i += LANES) {
        UNROLL
        for (size_t j = 0; j < 4; j++) {
            uint16x4_t four = vreinterpret_u16_u8(vld1_u8(halves + 2 * i + 8 * j));
            sums[j] = vfmaq_f32(sums[j], mm_widen4(four), vld1q_f32(x + i + 4 * j));
        }
    }
    return add_four(sums) + mm_plain_dot_f16(halves + 2 * whole, x + whole, count - whole);
}

void MM_VECTOR(axpy_f32)(float a, const float *x, size_t count, float *y) {
    size_t whole = count / 4 * 4;
    float32x4_t factor = vdupq_n_f32(a);
    for (size_t i = 0; i < whole; i += 4) {
        vst1q_f32(y + i, vfmaq_f32(vld1q_f32(y + i), vld1q_f32(x + i), factor));
    }
    mm_plain_axpy_f32(a, x + whole, count - whole, y + whole);
}

/* ------------------------------------------------------------------------------------------------ one by one */

/* Columns first .. first + 63 of a plane's row, the first in the high bit; none from count on. */
MM_INLINE uint64_t plane_word(const uint8_t *plane, size_t first, size_t count) {
    uint64_t word = 0;
    if (count - first >= 64) {
        memcpy(&word, plane + first / 8, sizeof word);
        return __builtin_bswap64(word);
    }
    memcpy(&word, plane + first / 8, (count - first + 7) / 8);
    return __builtin_bswap64(word) & ~(UINT64_MAX >> (count - first));
}

/* From the last column to the first, because the lowest bit is the one that processors find and clear at once. */
float MM_VECTOR(dot_split)(const uint8_t *plane, size_t count, const uint8_t *codes, size_t ones, const float *table,
                           const float *x) {
    const uint8_t *code = codes + ones;
    float even = 0, odd = 0;
    for (size_t first = (count + 63) / 64 * 64; first > 0;) {
        first -= 64;
        const float *inputs = x + first;
        for (uint64_t word = plane_word(plane, first, count); word != 0; word &= word - 1) {
            even += table[*--code] * inputs[63 ^ __builtin_ctzll(word)];
            word &= word - 1;
            if (word == 0) {
                break;
            }
            odd += table[*--code] * inputs[63 ^ __builtin_ctzll(word)];
        }
    }
    return even + odd;
}

/* Eight codes of a row in one register, the first in the low byte; those above `last` count as it. */
MM_INLINE uint64_t eight_codes(const uint8_t *codes, uint8_t last) {
#if defined(MM_ON_X86)
    const __m128i eight = _mm_loadl_epi64((const __m128i *)codes);
    return (uint64_t)_mm_cvtsi128_si64(_mm_min_epu8(eight, _mm_set1_epi8((char)last)));
#else
    return vget_lane_u64(vreinterpret_u64_u8(mm_min8(vld1_u8(codes), vdup_n_u8(last))), 0);
#endif
}

/* Two rows share the way through the products; more would not find registers for their codes. */
void MM_VECTOR(sum_products8)(const uint8_t *codes, size_t stride, size_t rows, size_t count, const float *products,
                              size_t entries, float *y) {
    const size_t whole = count / 8 * 8;
    const uint8_t last = (uint8_t)(entries - 1);
    size_t row = 0;
    for (; rows - row >= 2; row += 2, codes += 2 * stride) {
        float first_sums[4] = {0, 0, 0, 0}, second_sums[4] = {0, 0, 0, 0};
        const float *at = products;
        for (size_t i = 0; i < whole; i += 8) {
            uint64_t first = eight_codes(codes + i, last), second = eight_codes(codes + stride + i, last);
            UNROLL
            for (size_t s = 0; s < 8; s++, at += entries) {
                first_sums[s % 4] += at[first >> (8 * s) & 0xFF];
                second_sums[s % 4] += at[second >> (8 * s) & 0xFF];
            }
        }
        y[row] = (first_sums[0] + first_sums[1]) + (first_sums[2] + first_sums[3]);
        y[row + 1] = (second_sums[0] + second_sums[1]) + (second_sums[2] + second_sums[3]);
        for (size_t i = whole; i < count; i++, at += entries) {
            y[row] += at[codes[i] < last ? codes[i] : last];
            y[row + 1] += at[codes[stride + i] < last ? codes[stride + i] : last];
        }
    }
    mm_plain_sum_products8(codes, stride, rows - row, count, products, entries, y + row);
}
