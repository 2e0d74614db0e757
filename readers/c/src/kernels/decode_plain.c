/* Decoding in plain C: one element at a time, in the words of tensors.md. */
#include "plain.h"

#include "bytes.h"

#include <limits.h>
#include <zlib.h>

static void unpack(const uint8_t *row, size_t first, size_t count, uint32_t depth, uint8_t *codes) {
    for (size_t i = 0; i < count; i++) {
        codes[i] = (uint8_t)mm_sample(row, first + i, depth);
    }
}

static void palette_f32(const uint8_t *row, size_t first, size_t count, uint32_t depth, const float *table,
                        float *out) {
    for (size_t i = 0; i < count; i++) {
        out[i] = table[mm_sample(row, first + i, depth)];
    }
}

static void palette_f16(const uint8_t *row, size_t first, size_t count, uint32_t depth, const uint16_t *table,
                        uint16_t *out) {
    for (size_t i = 0; i < count; i++) {
        out[i] = table[mm_sample(row, first + i, depth)];
    }
}

#define DEPTH(depth)                                                                                                   \
    void mm_plain_unpack##depth(const uint8_t *row, size_t first, size_t count, uint8_t *codes) {                      \
        unpack(row, first, count, depth, codes);                                                                       \
    }                                                                                                                  \
    void mm_plain_palette##depth##_f32(const uint8_t *row, size_t first, size_t count, const float *table,             \
                                       float *out) {                                                                   \
        palette_f32(row, first, count, depth, table, out);                                                             \
    }                                                                                                                  \
    void mm_plain_palette##depth##_f16(const uint8_t *row, size_t first, size_t count, const uint16_t *table,          \
                                       uint16_t *out) {                                                                \
        palette_f16(row, first, count, depth, table, out);                                                             \
    }

DEPTH(1)
DEPTH(2)
DEPTH(4)

void mm_plain_unpack8(const uint8_t *row, size_t first, size_t count, uint8_t *codes) {
    if (count > 0) {
        memcpy(codes, row + first, count);
    }
}

/* No vector lookup has 256 entries, so that this loop serves most processors: eight at a time, all read before the
 * first is written, because the compiler cannot know that out is no part of the table. */
#define PALETTE8(suffix, type)                                                                                         \
    void mm_plain_palette8_##suffix(const uint8_t *row, size_t first, size_t count, const type *table, type *out) {    \
        const uint8_t *codes = row + first;                                                                            \
        size_t i = 0;                                                                                                  \
        for (; i + 8 <= count; i += 8) {                                                                               \
            uint64_t eight = mm_load64(codes + i);                                                                     \
            type values[8];                                                                                            \
            _Pragma("GCC unroll 8") for (int j = 0; j < 8; j++) { values[j] = table[eight >> 8 * j & 0xFF]; }          \
            memcpy(out + i, values, sizeof values);                                                                    \
        }                                                                                                              \
        for (; i < count; i++) {                                                                                       \
            out[i] = table[codes[i]];                                                                                  \
        }                                                                                                              \
    }

PALETTE8(f32, float)
PALETTE8(f16, uint16_t)

#if defined(MM_WITH_TWINS)
void mm_plain_affine4_f32(const uint8_t *row, size_t first, size_t count, int32_t zero, float scale, float *out) {
    for (size_t i = 0; i < count; i++) {
        out[i] = (float)((int32_t)mm_sample(row, first + i, 4) - zero) * scale;
    }
}
#endif

void mm_plain_affine8_f32(const uint8_t *row, size_t first, size_t count, int32_t zero, float scale, float *out) {
    for (size_t i = 0; i < count; i++) {
        out[i] = (float)(row[first + i] - zero) * scale;
    }
}

void mm_plain_affine16_f32(const uint8_t *high, const uint8_t *low, size_t count, int32_t zero, float scale,
                           float *out) {
    for (size_t i = 0; i < count; i++) {
        out[i] = (float)((high[i] << 8 | low[i]) - zero) * scale;
    }
}

void mm_plain_widen(const uint8_t *halves, size_t count, float *out) {
    for (size_t i = 0; i < count; i++) {
        out[i] = mm_half_to_float(mm_load_half(halves + 2 * i));
    }
}

void mm_plain_narrow(const float *values, size_t count, uint16_t *out) {
    for (size_t i = 0; i < count; i++) {
        out[i] = mm_float_to_half(values[i]);
    }
}

void mm_plain_scale_halves(const uint16_t *halves, size_t count, uint16_t scale, uint16_t *out) {
    float factor = mm_half_to_float(scale);
    for (size_t i = 0; i < count; i++) {
        out[i] = mm_float_to_half(mm_half_to_float(halves[i]) * factor);
    }
}

void mm_plain_scale_floats(const float *values, size_t count, float scale, float *out) {
    for (size_t i = 0; i < count; i++) {
        out[i] = values[i] * scale;
    }
}

void mm_plain_join_planes(const uint8_t *planes, size_t stride, size_t count, size_t width, uint8_t *out) {
    for (size_t i = 0; i < count; i++) {
        for (size_t plane = 0; plane < width; plane++) {
            out[i * width + plane] = planes[plane * stride + i];
        }
    }
}

uint64_t mm_plain_count_ones(const uint8_t *row, size_t bits) {
    uint64_t ones = 0;
    for (size_t at = 0; at < bits; at += 8) {
        uint32_t byte = row[at / 8];
        if (bits - at < 8) {
            byte >>= 8 - (bits - at);
        }
        for (; byte != 0; byte &= byte - 1) {
            ones++;
        }
    }
    return ones;
}

uint32_t mm_plain_crc32(uint32_t crc, const uint8_t *data, size_t size) {
    while (size > 0) { /* zlib takes a size of 32 bits */
        uInt piece = (uInt)(size < UINT_MAX / 2 ? size : UINT_MAX / 2);
        crc = (uint32_t)crc32(crc, data, piece);
        data += piece;
        size -= piece;
    }
    return crc;
}
