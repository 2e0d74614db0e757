/* The arithmetic loops, each in a plain form and, where it pays, a vector form; choose.c has the one table of both. */
#ifndef MM_KERNELS_H
#define MM_KERNELS_H

#include <stddef.h>
#include <stdint.h>

/*
 * Names. A packed row holds samples of 1, 2, 4 or 8 bits, the first in the high bits (spec/tensors.md §3.3). [k] below
 * is depth 1 << k. `first` is the sample to begin with. Halves are binary16 bits in a uint16_t. Input bytes need no
 * alignment. No kernel reads a byte that holds none of its samples, or writes past `count` values.
 *
 * Paired order. The fused products take x so that a vector of codes meets a vector of x: with s = 8 / depth samples in
 * a byte, each whole group of 16 s columns has the 16 columns of sample 0 of its bytes first, then those of sample 1,
 * and so on; what is left behind the last whole group stays in its order. At depth 8 nothing moves.
 */
typedef struct mm_kernels {
    const char *name;

    /* decode: exact */
    void (*unpack[4])(const uint8_t *row, size_t first, size_t count, uint8_t *codes);
    void (*palette_f32[4])(const uint8_t *row, size_t first, size_t count, const float *table, float *out);
    void (*palette_f16[4])(const uint8_t *row, size_t first, size_t count, const uint16_t *table, uint16_t *out);
    /* (code - zero) x scale; depth 4, 8. At depth 16 the high and the low bytes of the codes. */
    void (*affine_f32[2])(const uint8_t *row, size_t first, size_t count, int32_t zero, float scale, float *out);
    void (*affine16_f32)(const uint8_t *high, const uint8_t *low, size_t count, int32_t zero, float scale, float *out);
    void (*widen)(const uint8_t *halves, size_t count, float *out);
    void (*narrow)(const float *values, size_t count, uint16_t *out);
    /* halves times a half, each product rounded once to a half (tensors.md §8: binary32 holds the product exactly) */
    void (*scale_halves)(const uint16_t *halves, size_t count, uint16_t scale, uint16_t *out);
    void (*scale_floats)(const float *values, size_t count, float scale, float *out);
    /* byte 0 of all elements, byte 1 of all, ... become elements of `width` bytes: 2, 4, 8 or 16. `stride` bytes
     * between planes, of which `count` elements are wanted */
    void (*join_planes)(const uint8_t *planes, size_t stride, size_t count, size_t width, uint8_t *out);
    /* Ones in the first `bits` bits of a packed row */
    uint64_t (*count_ones)(const uint8_t *row, size_t bits);
    /* CRC-32 of zlib, `crc` being that of what stands before */
    uint32_t (*crc32)(uint32_t crc, const uint8_t *data, size_t size);

    /* fully connected: |difference| <= 1e-5 sum |w x| */
    void (*pair)(uint32_t depth, const float *x, size_t count, float *out);
    float (*dot_f32)(const float *w, const float *x, size_t count);
    float (*dot_f16)(const uint8_t *halves, const float *x, size_t count);
    void (*axpy_f32)(float a, const float *x, size_t count, float *y);
    /* y[i] = sum over columns of table[code] x, for `rows` packed rows that are `stride` bytes apart; x in paired order
     * from the first sample of the row's first byte. [k]: depth 1, 2, 4 with a table of 16 entries, depth 8 with 256 */
    void (*dot_palette_f16[4])(const uint8_t *codes, size_t stride, size_t rows, size_t count, const uint16_t *table,
                               const float *x, float *y);
    void (*dot_palette_f32[4])(const uint8_t *codes, size_t stride, size_t rows, size_t count, const float *table,
                               const float *x, float *y);
    /* y[i] = sum of (code - zero) x at depth 8, zero below 256 (the sum of code x less zero times the sum of x would
     * cancel); at depth 4 this is a palette */
    void (*dot_codes8)(const uint8_t *codes, size_t stride, size_t rows, size_t count, int32_t zero, const float *x,
                       float *y);
    void (*dot_codes16)(const uint8_t *high, const uint8_t *low, size_t stride, size_t rows, size_t count, int32_t zero,
                        const float *x, float *y);
    /* Sum over the ones of a plane's row, of which there are `ones`: table[code] x[column], a code of 8 bits for each
     * one. */
    float (*dot_split)(const uint8_t *plane, size_t count, const uint8_t *codes, size_t ones, const float *table,
                       const float *x);
    /* products[e] = sum over j of table[e][j] x[j]: inner products of a sub-vector with each entry */
    void (*inner_products)(const float *table, size_t entries, size_t vector, const float *x, float *products);
    /* y[i] = sum over s of products[s * entries + code[s]], codes of 8 bits, `rows` rows `stride` bytes apart. A code
     * that is `entries` or more counts as the last one. */
    void (*sum_products8)(const uint8_t *codes, size_t stride, size_t rows, size_t count, const float *products,
                          size_t entries, float *y);
} mm_kernels;

/* Which kernels this processor has, found anew at each call: a few loads. */
const mm_kernels *mm_choose_kernels(void);

/* All that this build holds, best first, plain last where it is built, ended by NULL; for tests, which compare them.
 * `usable`: this processor has what it needs. */
const mm_kernels *mm_kernels_built(size_t index, int *usable);

#endif
