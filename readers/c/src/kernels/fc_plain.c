/*
 * Fully connected layers in plain C. Every sum is kept in 16 parts, one for each place of a group of 16 columns, as the
 * vector kernels keep theirs: compilers can see vectors in it, and errors stay small.
 */
#include "plain.h"

enum { LANES = 16 };

static float add_up(const float sums[LANES]) {
    float halves[LANES];
    memcpy(halves, sums, sizeof halves);
    for (size_t width = LANES / 2; width > 0; width /= 2) {
        for (size_t i = 0; i < width; i++) {
            halves[i] += halves[i + width];
        }
    }
    return halves[0];
}

void mm_plain_pair(uint32_t depth, const float *x, size_t count, float *out) {
    size_t in_byte = 8 / depth, group = LANES * in_byte, whole = count / group * group;
    for (size_t first = 0; first < whole; first += group) {
        for (size_t i = 0; i < group; i++) {
            out[first + i % in_byte * LANES + i / in_byte] = x[first + i];
        }
    }
    if (count > whole) {
        memcpy(out + whole, x + whole, (count - whole) * sizeof *x);
    }
}

float mm_plain_dot_f32(const float *w, const float *x, size_t count) {
    float sums[LANES] = {0};
    for (size_t i = 0; i < count; i++) {
        sums[i % LANES] += w[i] * x[i];
    }
    return add_up(sums);
}

float mm_plain_dot_f16(const uint8_t *halves, const float *x, size_t count) {
    float sums[LANES] = {0};
    for (size_t i = 0; i < count; i++) {
        sums[i % LANES] += mm_half_to_float(mm_load_half(halves + 2 * i)) * x[i];
    }
    return add_up(sums);
}

void mm_plain_axpy_f32(float a, const float *x, size_t count, float *y) {
    for (size_t i = 0; i < count; i++) {
        y[i] += a * x[i];
    }
}

/* No set has a better one: a code finds its value fastest by itself. */
static float dot_palette8(const uint8_t *codes, size_t count, const float *table, const float *x) {
    float a = 0, b = 0, c = 0, d = 0;
    size_t i = 0;
    for (; count - i >= 4; i += 4) {
        a += table[codes[i]] * x[i];
        b += table[codes[i + 1]] * x[i + 1];
        c += table[codes[i + 2]] * x[i + 2];
        d += table[codes[i + 3]] * x[i + 3];
    }
    for (; i < count; i++) {
        a += table[codes[i]] * x[i];
    }
    return (a + b) + (c + d);
}

void mm_plain_dot_palette8_f32(const uint8_t *codes, size_t stride, size_t rows, size_t count, const float *table,
                               const float *x, float *y) {
    for (size_t i = 0; i < rows; i++, codes += stride) {
        y[i] = dot_palette8(codes, count, table, x);
    }
}

void mm_plain_dot_palette8_f16(const uint8_t *codes, size_t stride, size_t rows, size_t count, const uint16_t *table,
                               const float *x, float *y) {
    float floats[256];
    for (size_t i = 0; i < 256; i++) {
        floats[i] = mm_half_to_float(table[i]);
    }
    mm_plain_dot_palette8_f32(codes, stride, rows, count, floats, x, y);
}

#if defined(MM_WITH_TWINS)

static float dot_palette(uint32_t depth, const uint8_t *codes, size_t count, const float *table, const float *x) {
    size_t in_byte = 8 / depth, group = LANES * in_byte, whole = count / group * group;
    float sums[LANES] = {0};
    for (size_t first = 0; first < whole; first += LANES) {
        const uint8_t *bytes = codes + first / group * LANES;
        uint32_t shift = 8 - depth * (uint32_t)(first % group / LANES + 1);
        for (size_t i = 0; i < LANES; i++) {
            sums[i] += table[(uint32_t)bytes[i] >> shift & (0xFFu >> (8 - depth))] * x[first + i];
        }
    }
    for (size_t i = whole; i < count; i++) {
        sums[i % LANES] += table[mm_sample(codes, i, depth)] * x[i];
    }
    return add_up(sums);
}

static void dot_rows(uint32_t depth, const uint8_t *codes, size_t stride, size_t rows, size_t count, const float *table,
                     const float *x, float *y) {
    for (size_t i = 0; i < rows; i++, codes += stride) {
        y[i] = dot_palette(depth, codes, count, table, x);
    }
}

static void dot_rows_of_halves(uint32_t depth, const uint8_t *codes, size_t stride, size_t rows, size_t count,
                               const uint16_t *table, const float *x, float *y) {
    float floats[16];
    for (size_t i = 0; i < 16; i++) {
        floats[i] = mm_half_to_float(table[i]);
    }
    dot_rows(depth, codes, stride, rows, count, floats, x, y);
}

#define DEPTH(depth)                                                                                                   \
    void mm_plain_dot_palette##depth##_f32(const uint8_t *codes, size_t stride, size_t rows, size_t count,             \
                                           const float *table, const float *x, float *y) {                             \
        dot_rows(depth, codes, stride, rows, count, table, x, y);                                                      \
    }                                                                                                                  \
    void mm_plain_dot_palette##depth##_f16(const uint8_t *codes, size_t stride, size_t rows, size_t count,             \
                                           const uint16_t *table, const float *x, float *y) {                          \
        dot_rows_of_halves(depth, codes, stride, rows, count, table, x, y);                                            \
    }

DEPTH(1)
DEPTH(2)
DEPTH(4)

float mm_plain_dot_split(const uint8_t *plane, size_t count, const uint8_t *codes, size_t ones, const float *table,
                         const float *x) {
    float sums[LANES] = {0};
    size_t n = 0;
    for (size_t i = 0; i < count && n < ones; i++) {
        if (mm_sample(plane, i, 1) != 0) {
            sums[i % LANES] += table[codes[n]] * x[i];
            n++;
        }
    }
    return add_up(sums);
}

#endif

void mm_plain_dot_codes8(const uint8_t *codes, size_t stride, size_t rows, size_t count, int32_t zero, const float *x,
                         float *y) {
    for (size_t row = 0; row < rows; row++) {
        float sums[LANES] = {0};
        for (size_t i = 0; i < count; i++) {
            sums[i % LANES] += (float)(codes[row * stride + i] - zero) * x[i];
        }
        y[row] = add_up(sums);
    }
}

void mm_plain_dot_codes16(const uint8_t *high, const uint8_t *low, size_t stride, size_t rows, size_t count,
                          int32_t zero, const float *x, float *y) {
    for (size_t row = 0; row < rows; row++) {
        float sums[LANES] = {0};
        for (size_t i = 0; i < count; i++) {
            int32_t code = high[row * stride + i] << 8 | low[row * stride + i];
            sums[i % LANES] += (float)(code - zero) * x[i];
        }
        y[row] = add_up(sums);
    }
}

void mm_plain_inner_products(const float *table, size_t entries, size_t vector, const float *x, float *products) {
    for (size_t entry = 0; entry < entries; entry++) {
        float sum = 0;
        for (size_t j = 0; j < vector; j++) {
            sum += table[entry * vector + j] * x[j];
        }
        products[entry] = sum;
    }
}

void mm_plain_sum_products8(const uint8_t *codes, size_t stride, size_t rows, size_t count, const float *products,
                            size_t entries, float *y) {
    for (size_t row = 0; row < rows; row++) {
        float sums[LANES] = {0};
        for (size_t i = 0; i < count; i++) {
            size_t code = codes[row * stride + i];
            sums[i % LANES] += products[i * entries + (code < entries ? code : entries - 1)];
        }
        y[row] = add_up(sums);
    }
}
