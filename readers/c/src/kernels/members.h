/* What each set of kernels may hold: one function for each member of mm_kernels, all sets with the same types. A set
 * defines those that choose.c names for it. */
#ifndef MM_KERNELS_MEMBERS_H
#define MM_KERNELS_MEMBERS_H

#include "kernels.h"

/* Whether the vector kernels are part of this build. They take the order of bytes in a register for granted. */
#if defined(MM_WITH_VECTORS) && !defined(__ARM_BIG_ENDIAN)
#if defined(__aarch64__)
#define MM_ON_AARCH64 1
#elif defined(__arm__)
#define MM_ON_ARMV7 1
#elif defined(__x86_64__)
#define MM_ON_X86_64 1
#endif
#endif

/* Whether there is a set of plain kernels. All processors of aarch64 have vectors, so that there the library does
 * without those plain twins that neither choose.c nor a vector kernel names, unless tests are to compare the sets. */
#if !defined(MM_ON_AARCH64) && !defined(MM_WITH_TWINS)
#define MM_WITH_TWINS 1
#endif

/* Members that exist once for each depth of packed samples. */
#define MM_DECLARE_DEPTH(set, depth)                                                                                   \
    void mm_##set##_unpack##depth(const uint8_t *row, size_t first, size_t count, uint8_t *codes);                     \
    void mm_##set##_palette##depth##_f32(const uint8_t *row, size_t first, size_t count, const float *table,           \
                                         float *out);                                                                  \
    void mm_##set##_palette##depth##_f16(const uint8_t *row, size_t first, size_t count, const uint16_t *table,        \
                                         uint16_t *out);                                                               \
    void mm_##set##_dot_palette##depth##_f16(const uint8_t *codes, size_t stride, size_t rows, size_t count,           \
                                             const uint16_t *table, const float *x, float *y);                         \
    void mm_##set##_dot_palette##depth##_f32(const uint8_t *codes, size_t stride, size_t rows, size_t count,           \
                                             const float *table, const float *x, float *y);

/* depth: 4, 8 */
#define MM_DECLARE_AFFINE(set, depth)                                                                                  \
    void mm_##set##_affine##depth##_f32(const uint8_t *row, size_t first, size_t count, int32_t zero, float scale,     \
                                        float *out);

#define MM_DECLARE_KERNELS(set)                                                                                        \
    MM_DECLARE_DEPTH(set, 1)                                                                                           \
    MM_DECLARE_DEPTH(set, 2)                                                                                           \
    MM_DECLARE_DEPTH(set, 4)                                                                                           \
    MM_DECLARE_DEPTH(set, 8)                                                                                           \
    MM_DECLARE_AFFINE(set, 4)                                                                                          \
    MM_DECLARE_AFFINE(set, 8)                                                                                          \
    void mm_##set##_affine16_f32(const uint8_t *high, const uint8_t *low, size_t count, int32_t zero, float scale,     \
                                 float *out);                                                                          \
    void mm_##set##_widen(const uint8_t *halves, size_t count, float *out);                                            \
    void mm_##set##_narrow(const float *values, size_t count, uint16_t *out);                                          \
    void mm_##set##_scale_halves(const uint16_t *halves, size_t count, uint16_t scale, uint16_t *out);                 \
    void mm_##set##_scale_floats(const float *values, size_t count, float scale, float *out);                          \
    void mm_##set##_join_planes(const uint8_t *planes, size_t stride, size_t count, size_t width, uint8_t *out);       \
    uint64_t mm_##set##_count_ones(const uint8_t *row, size_t bits);                                                   \
    uint32_t mm_##set##_crc32(uint32_t crc, const uint8_t *data, size_t size);                                         \
    void mm_##set##_pair(uint32_t depth, const float *x, size_t count, float *out);                                    \
    float mm_##set##_dot_f32(const float *w, const float *x, size_t count);                                            \
    float mm_##set##_dot_f16(const uint8_t *halves, const float *x, size_t count);                                     \
    void mm_##set##_axpy_f32(float a, const float *x, size_t count, float *y);                                         \
    void mm_##set##_dot_codes8(const uint8_t *codes, size_t stride, size_t rows, size_t count, int32_t zero,           \
                               const float *x, float *y);                                                              \
    void mm_##set##_dot_codes16(const uint8_t *high, const uint8_t *low, size_t stride, size_t rows, size_t count,     \
                                int32_t zero, const float *x, float *y);                                               \
    float mm_##set##_dot_split(const uint8_t *plane, size_t count, const uint8_t *codes, size_t ones,                  \
                               const float *table, const float *x);                                                    \
    void mm_##set##_inner_products(const float *table, size_t entries, size_t vector, const float *x,                  \
                                   float *products);                                                                   \
    void mm_##set##_sum_products8(const uint8_t *codes, size_t stride, size_t rows, size_t count,                      \
                                  const float *products, size_t entries, float *y);

#endif
