/*
 * Runs one kernel once: `mm-count NUMBER COLUMNS`; alone it lists what there is, a line "name weights" each. count.py
 * runs it under qemu with two numbers of columns: what the second run has more is the kernel's cost per weight.
 *
 * To add a kernel, add a CASE: its name, the weights that a column stands for, and the call with `n` columns.
 */
#include "kernels/kernels.h"

#include <stdio.h>
#include <stdlib.h>

#define MOST 32768u
#define ROWS 16u

static uint8_t bytes[ROWS * MOST * 2], plane[MOST / 8];
static float floats[256], x[MOST], out32[MOST], y[ROWS];
static uint16_t halves[256], out16[MOST];
static const mm_kernels *kernels;

#define CASES(CASE)                                                                                                    \
    CASE(nothing, 1, (void)n)                                                                                          \
    CASE(unpack1, 1, kernels->unpack[0](bytes, 0, n, (uint8_t *)out32))                                                \
    CASE(unpack2, 1, kernels->unpack[1](bytes, 0, n, (uint8_t *)out32))                                                \
    CASE(unpack4, 1, kernels->unpack[2](bytes, 0, n, (uint8_t *)out32))                                                \
    CASE(palette1_f16, 1, kernels->palette_f16[0](bytes, 0, n, halves, out16))                                         \
    CASE(palette2_f16, 1, kernels->palette_f16[1](bytes, 0, n, halves, out16))                                         \
    CASE(palette4_f16, 1, kernels->palette_f16[2](bytes, 0, n, halves, out16))                                         \
    CASE(palette8_f16, 1, kernels->palette_f16[3](bytes, 0, n, halves, out16))                                         \
    CASE(palette1_f32, 1, kernels->palette_f32[0](bytes, 0, n, floats, out32))                                         \
    CASE(palette2_f32, 1, kernels->palette_f32[1](bytes, 0, n, floats, out32))                                         \
    CASE(palette4_f32, 1, kernels->palette_f32[2](bytes, 0, n, floats, out32))                                         \
    CASE(palette8_f32, 1, kernels->palette_f32[3](bytes, 0, n, floats, out32))                                         \
    CASE(affine4_f32, 1, kernels->affine_f32[0](bytes, 0, n, 8, 0.1f, out32))                                          \
    CASE(affine8_f32, 1, kernels->affine_f32[1](bytes, 0, n, 128, 0.1f, out32))                                        \
    CASE(affine16_f32, 1, kernels->affine16_f32(bytes, bytes + n, n, 32768, 0.1f, out32))                              \
    CASE(widen, 1, kernels->widen(bytes, n, out32))                                                                    \
    CASE(narrow, 1, kernels->narrow(x, n, out16))                                                                      \
    CASE(scale_halves, 1, kernels->scale_halves((const uint16_t *)(const void *)out32, n, 0x2E66, out16))              \
    CASE(scale_floats, 1, kernels->scale_floats(x, n, 0.1f, out32))                                                    \
    CASE(join_planes2, 1, kernels->join_planes(bytes, n, n, 2, (uint8_t *)out16))                                      \
    CASE(join_planes4, 1, kernels->join_planes(bytes, n, n, 4, (uint8_t *)out32))                                      \
    CASE(count_ones, 1, y[0] = (float)kernels->count_ones(bytes, n))                                                   \
    CASE(crc32, 1, y[0] = (float)kernels->crc32(0, bytes, n))                                                          \
    CASE(dot_f32, 1, y[0] = kernels->dot_f32(out32, x, n))                                                             \
    CASE(dot_f16, 1, y[0] = kernels->dot_f16(bytes, x, n))                                                             \
    CASE(dot_palette1_f16, ROWS, kernels->dot_palette_f16[0](bytes, n / 8, ROWS, n, halves, x, y))                     \
    CASE(dot_palette2_f16, ROWS, kernels->dot_palette_f16[1](bytes, n / 4, ROWS, n, halves, x, y))                     \
    CASE(dot_palette4_f16, ROWS, kernels->dot_palette_f16[2](bytes, n / 2, ROWS, n, halves, x, y))                     \
    CASE(dot_palette8_f16, ROWS, kernels->dot_palette_f16[3](bytes, n, ROWS, n, halves, x, y))                         \
    CASE(dot_palette1_f32, ROWS, kernels->dot_palette_f32[0](bytes, n / 8, ROWS, n, floats, x, y))                     \
    CASE(dot_palette2_f32, ROWS, kernels->dot_palette_f32[1](bytes, n / 4, ROWS, n, floats, x, y))                     \
    CASE(dot_palette4_f32, ROWS, kernels->dot_palette_f32[2](bytes, n / 2, ROWS, n, floats, x, y))                     \
    CASE(dot_palette8_f32, ROWS, kernels->dot_palette_f32[3](bytes, n, ROWS, n, floats, x, y))                         \
    CASE(dot_codes8, ROWS, kernels->dot_codes8(bytes, n, ROWS, n, 128, x, y))                                          \
    CASE(dot_codes16, ROWS, kernels->dot_codes16(bytes, bytes + ROWS * n, n, ROWS, n, 32768, x, y))                    \
    CASE(dot_split, 1, y[0] = kernels->dot_split(plane, n, bytes, ones(n), floats, x))                                 \
    CASE(vector_palette, 4 * ROWS, vector_palette(n))

/* A plane with a one at every tenth place or so. */
static size_t ones(size_t n) { return (size_t)kernels->count_ones(plane, n); }

/* n codes of 32 entries, each for four weights, in ROWS rows: the inner products once, then the rows' sums. */
static void vector_palette(size_t n) {
    for (size_t at = 0; at + 256 <= n; at += 256) {
        kernels->sum_products8(bytes + at, n, ROWS, 256, out32, 32, y);
    }
}

#define FUNCTION(name, weights, call)                                                                                  \
    static void run_##name(size_t n) { call; }
CASES(FUNCTION)

#define ENTRY(name, weights, call) {#name, weights, run_##name},
static const struct {
    const char *name;
    unsigned weights;
    void (*run)(size_t n);
} cases[] = {CASES(ENTRY)};

static void fill(void) {
    uint32_t random = 12345;
    for (size_t i = 0; i < sizeof bytes; i++) {
        random = random * 1664525 + 1013904223;
        bytes[i] = (uint8_t)(random >> 24) & 31;
    }
    for (size_t i = 0; i < MOST; i++) {
        random = random * 1664525 + 1013904223;
        plane[i / 8] |= (uint8_t)((random >> 16) % 10 == 0 ? 0x80 >> i % 8 : 0);
        x[i] = 1.0f / (float)(i + 1);
    }
    for (size_t i = 0; i < 256; i++) {
        floats[i] = (float)i;
        halves[i] = (uint16_t)(0x3C00 + i);
    }
}

int main(int argc, char **argv) {
    kernels = mm_choose_kernels();
    size_t columns = argc > 2 ? strtoul(argv[2], NULL, 10) : 0;
    if (columns > MOST) {
        return 2;
    }
    fill();
    const size_t count = sizeof cases / sizeof *cases;
    if (argc < 2) {
        for (size_t i = 0; i < count; i++) {
            printf("%s %u\n", cases[i].name, cases[i].weights);
        }
        return 0;
    }
    size_t number = strtoul(argv[1], NULL, 10);
    if (number >= count) {
        return 2;
    }
    cases[number].run(columns);
    return 0;
}
