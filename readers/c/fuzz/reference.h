/* What spec/tensors.md says, written once more and as plainly as can be: slow, and independent of the library. */
#ifndef REFERENCE_H
#define REFERENCE_H

#include "mobilemodel.h"

/* Bits of an element (§2); 0 where the number is none of the specification. */
uint32_t reference_bits(uint32_t dtype);

float reference_half(uint16_t half);     /* the value of a binary16 number */
uint16_t reference_rounded(float value); /* to binary16: nearest, ties to even */
float reference_bfloat(uint16_t bfloat);

/* Codes, tables, scales and zero points as the library reads them. */
typedef struct reference_parts {
    const uint32_t *codes;
    const uint8_t *tables, *scales, *zeros;
} reference_parts;

/* M[row, column] in binary32, before it is rounded to a FLOAT16 tensor's type (§5.2, §6). */
float reference_value(const mm_tensor *tensor, const reference_parts *parts, uint64_t row, uint64_t column);

#endif
