/* The vector kernels that this architecture has. */
#ifndef MM_KERNELS_VECTOR_H
#define MM_KERNELS_VECTOR_H

#include "members.h"

#if defined(__aarch64__)
MM_DECLARE_KERNELS(neon)
/* halves_fp16.c: the processor has fp16 arithmetic */
void mm_fp16_scale_halves(const uint16_t *halves, size_t count, uint16_t scale, uint16_t *out);
/* crc32.c: the processor has the CRC-32 instructions */
uint32_t mm_crc_crc32(uint32_t crc, const uint8_t *data, size_t size);
#elif defined(__arm__)
MM_DECLARE_KERNELS(neon)
#elif defined(__x86_64__)
MM_DECLARE_KERNELS(sse4)
MM_DECLARE_KERNELS(avx2)
/* crc32.c: the processor has PCLMULQDQ */
uint32_t mm_crc_crc32(uint32_t crc, const uint8_t *data, size_t size);
#endif

#endif
