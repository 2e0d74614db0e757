/* Decoding in vectors; neon.h says for which processors. What is left at a row's ends is the plain twin's. */
#include "neon.h"

#include "plain.h"

/* Loops of a constant number of steps, whose vectors are to stay in registers. */
#define UNROLL _Pragma("GCC unroll 8")

/* ------------------------------------------------------------------------------------------------ packed samples */

/* The two halves of each byte become bytes: 16 bytes of samples become 32, in their order. */
#define SPLIT(bits)                                                                                                    \
    MM_INLINE uint8x16x2_t split##bits(uint8x16_t bytes) {                                                             \
        return vzipq_u8(vshrq_n_u8(bytes, bits), vandq_u8(bytes, vdupq_n_u8((1 << (bits)) - 1)));                      \
    }

SPLIT(4)
SPLIT(2)
SPLIT(1)

/* The samples of 16 bytes: 8 / depth vectors. */
MM_INLINE void split_bytes(const uint8_t *bytes, uint32_t depth, uint8x16_t samples[8]) {
    uint8x16x2_t fours = split4(vld1q_u8(bytes));
    UNROLL
    for (int i = 0; i < 2; i++) {
        if (depth == 4) {
            samples[i] = fours.val[i];
            continue;
        }
        uint8x16x2_t twos = split2(fours.val[i]);
        UNROLL
        for (int j = 0; j < 2; j++) {
            if (depth == 2) {
                samples[2 * i + j] = twos.val[j];
                continue;
            }
            uint8x16x2_t ones = split1(twos.val[j]);
            samples[4 * i + 2 * j] = ones.val[0];
            samples[4 * i + 2 * j + 1] = ones.val[1];
        }
    }
}

/* The three below: count samples that fill vectors, from a whole byte on. */

MM_INLINE void unpack(const uint8_t *bytes, size_t count, uint32_t depth, uint8_t *codes) {
    const size_t vectors = 8 / depth;
    for (const uint8_t *end = codes + count; codes < end; bytes += 16) {
        uint8x16_t samples[8];
        split_bytes(bytes, depth, samples);
        UNROLL
        for (size_t i = 0; i < vectors; i++, codes += 16) {
            vst1q_u8(codes, samples[i]);
        }
    }
}

/* 16 floats are four tables of 16 bytes. */
MM_INLINE void palette_f32(const uint8_t *bytes, size_t count, uint32_t depth, const float *table, float *out) {
    const size_t vectors = 8 / depth;
    const uint8x16x4_t tables = mm_split4(table);
    for (const float *end = out + count; out < end; bytes += 16) {
        uint8x16_t samples[8];
        split_bytes(bytes, depth, samples);
        UNROLL
        for (size_t i = 0; i < vectors; i++, out += 16) {
            mm_store_joined4((uint8_t *)out, mm_lookup(tables.val[0], samples[i]), mm_lookup(tables.val[1], samples[i]),
                             mm_lookup(tables.val[2], samples[i]), mm_lookup(tables.val[3], samples[i]));
        }
    }
}

MM_INLINE void palette_f16(const uint8_t *bytes, size_t count, uint32_t depth, const uint16_t *table, uint16_t *out) {
    const size_t vectors = 8 / depth;
    const uint8x16x2_t tables = mm_split2(table);
    for (const uint16_t *end = out + count; out < end; bytes += 16) {
        uint8x16_t samples[8];
        split_bytes(bytes, depth, samples);
        UNROLL
        for (size_t i = 0; i < vectors; i++, out += 16) {
            mm_store_joined2((uint8_t *)out, mm_lookup(tables.val[0], samples[i]),
                             mm_lookup(tables.val[1], samples[i]));
        }
    }
}

/* Where the vectors of a stretch of samples begin, and how many samples they take. */
typedef struct stretch {
    size_t before, whole, behind;
} stretch;

MM_INLINE stretch divide(size_t first, size_t count, uint32_t depth) {
    size_t in_byte = 8 / depth;
    stretch s;
    s.before = (in_byte - first % in_byte) % in_byte;
    s.before = s.before < count ? s.before : count;
    s.whole = (count - s.before) / (16 * in_byte) * (16 * in_byte);
    s.behind = s.before + s.whole;
    return s;
}

#define DEPTH(depth)                                                                                                   \
    void MM_VECTOR(unpack##depth)(const uint8_t *row, size_t first, size_t count, uint8_t *codes) {                    \
        stretch s = divide(first, count, depth);                                                                       \
        mm_plain_unpack##depth(row, first, s.before, codes);                                                           \
        unpack(row + (first + s.before) / (8 / depth), s.whole, depth, codes + s.before);                              \
        mm_plain_unpack##depth(row, first + s.behind, count - s.behind, codes + s.behind);                             \
    }                                                                                                                  \
    void MM_VECTOR(palette##depth##_f32)(const uint8_t *row, size_t first, size_t count, const float *table,           \
                                         float *out) {                                                                 \
        stretch s = divide(first, count, depth);                                                                       \
        mm_plain_palette##depth##_f32(row, first, s.before, table, out);                                               \
        palette_f32(row + (first + s.before) / (8 / depth), s.whole, depth, table, out + s.before);                    \
        mm_plain_palette##depth##_f32(row, first + s.behind, count - s.behind, table, out + s.behind);                 \
    }                                                                                                                  \
    void MM_VECTOR(palette##depth##_f16)(const uint8_t *row, size_t first, size_t count, const uint16_t *table,        \
                                         uint16_t *out) {                                                              \
        stretch s = divide(first, count, depth);                                                                       \
        mm_plain_palette##depth##_f16(row, first, s.before, table, out);                                               \
        palette_f16(row + (first + s.before) / (8 / depth), s.whole, depth, table, out + s.before);                    \
        mm_plain_palette##depth##_f16(row, first + s.behind, count - s.behind, table, out + s.behind);                 \
    }

DEPTH(1)
DEPTH(2)
DEPTH(4)

/* ----------------------------------------------------------------------------------------------- codes of 8 bits */

#ifdef __aarch64__

/*
 * 256 halves are two tables of 256 bytes, each 16 registers. 64 codes at a time go through one quarter after the other:
 * tbx leaves alone what is outside of its quarter.
 */
MM_INLINE uint8x16x4_t load_64(const uint8_t *bytes) { return vld1q_u8_x4(bytes); }

MM_INLINE void palette8_f16(const uint8_t *codes, const uint8_t low[256], const uint8_t high[256], uint16_t *out) {
    uint8x16x4_t code = load_64(codes);
    uint8x16x4_t low_quarter = load_64(low), high_quarter = load_64(high);
    uint8x16_t low_bytes[4], high_bytes[4];
    UNROLL
    for (int i = 0; i < 4; i++) {
        low_bytes[i] = vqtbl4q_u8(low_quarter, code.val[i]);
        high_bytes[i] = vqtbl4q_u8(high_quarter, code.val[i]);
    }
    UNROLL
    for (int quarter = 1; quarter < 4; quarter++) {
        low_quarter = load_64(low + 64 * quarter);
        high_quarter = load_64(high + 64 * quarter);
        UNROLL
        for (int i = 0; i < 4; i++) {
            code.val[i] = vsubq_u8(code.val[i], vdupq_n_u8(64));
            low_bytes[i] = vqtbx4q_u8(low_bytes[i], low_quarter, code.val[i]);
            high_bytes[i] = vqtbx4q_u8(high_bytes[i], high_quarter, code.val[i]);
        }
    }
    UNROLL
    for (int i = 0; i < 4; i++) {
        mm_store_joined2((uint8_t *)(out + 16 * i), low_bytes[i], high_bytes[i]);
    }
}

void MM_VECTOR(palette8_f16)(const uint8_t *row, size_t first, size_t count, const uint16_t *table, uint16_t *out) {
    size_t done = 0;
    if (count >= 256) { /* fewer are not worth taking the table apart */
        uint8_t low[256], high[256];
        for (size_t i = 0; i < 256; i += 16) {
            uint8x16x2_t bytes = mm_split2(table + i);
            vst1q_u8(low + i, bytes.val[0]);
            vst1q_u8(high + i, bytes.val[1]);
        }
        for (; done + 64 <= count; done += 64) {
            palette8_f16(row + first + done, low, high, out + done);
        }
    }
    mm_plain_palette8_f16(row, first + done, count - done, table, out + done);
}

#endif

/* -------------------------------------------------------------------------------------------------------- affine */

/* The product of an integer and a normal number is never subnormal; others are the plain twin's on armv7, where NEON
 * flushes them. */
MM_INLINE int exact_scale(float scale) {
#ifdef __arm__
    uint32_t bits;
    memcpy(&bits, &scale, sizeof bits);
    return (bits & 0x7F800000) != 0;
#else
    (void)scale;
    return 1;
#endif
}

void MM_VECTOR(affine4_f32)(const uint8_t *row, size_t first, size_t count, int32_t zero, float scale, float *out) {
    float table[16];
    for (int32_t code = 0; code < 16; code++) {
        table[code] = (float)(code - zero) * scale;
    }
    MM_VECTOR(palette4_f32)(row, first, count, table, out);
}

/* 16 codes of 16 bits */
MM_INLINE void affine_16(uint16x8x2_t codes, int32x4_t zero, float scale, float *out) {
    UNROLL
    for (int i = 0; i < 2; i++) {
        int32x4_t low = vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(codes.val[i])));
        int32x4_t high = vreinterpretq_s32_u32(vmovl_u16(vget_high_u16(codes.val[i])));
        vst1q_f32(out + 8 * i, vmulq_n_f32(vcvtq_f32_s32(vsubq_s32(low, zero)), scale));
        vst1q_f32(out + 8 * i + 4, vmulq_n_f32(vcvtq_f32_s32(vsubq_s32(high, zero)), scale));
    }
}

void MM_VECTOR(affine8_f32)(const uint8_t *row, size_t first, size_t count, int32_t zero, float scale, float *out) {
    size_t i = 0;
    for (; exact_scale(scale) && i + 16 <= count; i += 16) {
        uint8x16_t bytes = vld1q_u8(row + first + i);
        uint16x8x2_t codes = {{vmovl_u8(vget_low_u8(bytes)), vmovl_u8(vget_high_u8(bytes))}};
        affine_16(codes, vdupq_n_s32(zero), scale, out + i);
    }
    mm_plain_affine8_f32(row, first + i, count - i, zero, scale, out + i);
}

void MM_VECTOR(affine16_f32)(const uint8_t *high, const uint8_t *low, size_t count, int32_t zero, float scale,
                             float *out) {
    size_t i = 0;
    for (; exact_scale(scale) && i + 16 <= count; i += 16) {
        uint8x16x2_t bytes = vzipq_u8(vld1q_u8(low + i), vld1q_u8(high + i));
        uint16x8x2_t codes = {{vreinterpretq_u16_u8(bytes.val[0]), vreinterpretq_u16_u8(bytes.val[1])}};
        affine_16(codes, vdupq_n_s32(zero), scale, out + i);
    }
    mm_plain_affine16_f32(high + i, low + i, count - i, zero, scale, out + i);
}

/* --------------------------------------------------------------------------------------------- floats and halves */

/* Vectors that a step of the loops below takes: enough for a processor that runs instructions in their order. */
enum { VECTORS = 4, STEP = 4 * VECTORS };

void MM_VECTOR(widen)(const uint8_t *halves, size_t count, float *out) {
    size_t i = 0;
    for (; i + STEP <= count; i += STEP) {
        uint16x4_t vectors[VECTORS];
        UNROLL
        for (int v = 0; v < VECTORS; v += 2) {
            uint16x8_t both = vreinterpretq_u16_u8(vld1q_u8(halves + 2 * i + 8 * (size_t)v));
            vectors[v] = vget_low_u16(both);
            vectors[v + 1] = vget_high_u16(both);
        }
        UNROLL
        for (int v = 0; v < VECTORS; v++) {
            vst1q_f32(out + i + 4 * v, mm_widen4(vectors[v]));
        }
    }
    mm_plain_widen(halves + 2 * i, count - i, out + i);
}

void MM_VECTOR(narrow)(const float *values, size_t count, uint16_t *out) {
    size_t i = 0;
    for (; i + STEP <= count; i += STEP) {
        uint16x4_t vectors[VECTORS];
        UNROLL
        for (int v = 0; v < VECTORS; v++) {
            vectors[v] = mm_narrow4(vld1q_f32(values + i + 4 * v));
        }
        UNROLL
        for (int v = 0; v < VECTORS; v += 2) {
            vst1q_u16(out + i + 4 * v, vcombine_u16(vectors[v], vectors[v + 1]));
        }
    }
    mm_plain_narrow(values + i, count - i, out + i);
}

/* Neither a factor nor the product is subnormal as a float: exact on armv7 too. */
void MM_VECTOR(scale_halves)(const uint16_t *halves, size_t count, uint16_t scale, uint16_t *out) {
    size_t i = 0;
    float factor = mm_half_to_float(scale);
    for (; i + 8 <= count; i += 8) {
        uint16x8_t vector = vld1q_u16(halves + i);
        float32x4_t low = vmulq_n_f32(mm_widen4(vget_low_u16(vector)), factor);
        float32x4_t high = vmulq_n_f32(mm_widen4(vget_high_u16(vector)), factor);
        vst1q_u16(out + i, vcombine_u16(mm_narrow4(low), mm_narrow4(high)));
    }
    mm_plain_scale_halves(halves + i, count - i, scale, out + i);
}

#ifndef __arm__
void MM_VECTOR(scale_floats)(const float *values, size_t count, float scale, float *out) {
    size_t i = 0;
    for (; i + STEP <= count; i += STEP) {
        float32x4_t vectors[VECTORS];
        UNROLL
        for (int v = 0; v < VECTORS; v++) {
            vectors[v] = vmulq_n_f32(vld1q_f32(values + i + 4 * v), scale);
        }
        UNROLL
        for (int v = 0; v < VECTORS; v++) {
            vst1q_f32(out + i + 4 * v, vectors[v]);
        }
    }
    mm_plain_scale_floats(values + i, count - i, scale, out + i);
}
#endif

/* -------------------------------------------------------------------------------------------------- planes, ones */

/* 16 elements of 2 or 4 bytes at a time. A round takes the vectors j and j + width / 2 together; after log2(width)
 * rounds, each element's bytes stand together. */
MM_INLINE void join(const uint8_t *planes, size_t stride, size_t count, size_t width, uint8_t *out) {
    for (const uint8_t *end = planes + count; planes < end; planes += 16, out += 16 * width) {
        uint8x16_t vectors[4];
        UNROLL
        for (size_t j = 0; j < width; j++) {
            vectors[j] = vld1q_u8(planes + j * stride);
        }
        UNROLL
        for (size_t round = 1; round < width; round *= 2) {
            uint8x16_t next[4];
            UNROLL
            for (size_t j = 0; j < width / 2; j++) {
                uint8x16x2_t pair = vzipq_u8(vectors[j], vectors[j + width / 2]);
                next[2 * j] = pair.val[0];
                next[2 * j + 1] = pair.val[1];
            }
            memcpy(vectors, next, width * sizeof *vectors);
        }
        UNROLL
        for (size_t j = 0; j < width; j++) {
            vst1q_u8(out + 16 * j, vectors[j]);
        }
    }
}

void MM_VECTOR(join_planes)(const uint8_t *planes, size_t stride, size_t count, size_t width, uint8_t *out) {
    const size_t whole = count / 16 * 16;
    switch (width) {
    case 2: join(planes, stride, whole, 2, out); break;
    case 4: join(planes, stride, whole, 4, out); break;
    default: mm_plain_join_planes(planes, stride, count, width, out); return; /* wider types are rare */
    }
    mm_plain_join_planes(planes + whole, stride, count - whole, width, out + whole * width);
}

uint64_t MM_VECTOR(count_ones)(const uint8_t *row, size_t bits) {
    size_t bytes = bits / 8, i = 0;
    uint64_t ones = 0;
#ifdef MM_ON_X86
    for (; i + 8 <= bytes; i += 8) {
        uint64_t word;
        memcpy(&word, row + i, sizeof word);
        ones += (uint64_t)__builtin_popcountll(word);
    }
#else
    uint32x4_t sums = vdupq_n_u32(0);
    for (; i + 16 <= bytes; i += 16) { /* 8 ones a byte, 32 a lane at most: 2^31 bits are far away from an overflow */
        sums = vpadalq_u16(sums, vpaddlq_u8(vcntq_u8(vld1q_u8(row + i))));
    }
    uint64x2_t halves = vpaddlq_u32(sums);
    ones = vgetq_lane_u64(halves, 0) + vgetq_lane_u64(halves, 1);
#endif
    return ones + mm_plain_count_ones(row + i, bits - 8 * i);
}
