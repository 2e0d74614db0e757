/* An array of typed JSON: its shape, the SHA-256 of its little-endian bytes, its first elements. It is told its bytes
 * piece by piece, in their order. */
#ifndef ARRAY_H
#define ARRAY_H

#include "hash.h"
#include "json.h"

enum { ARRAY_FIRST = 8, ARRAY_WIDEST = 16 }; /* elements that are shown; bytes of a COMPLEX128 */

typedef struct array {
    sha256_state hash;
    unsigned bits;   /* of an element */
    bool is_complex; /* two numbers in an element */
    uint8_t first[ARRAY_FIRST * ARRAY_WIDEST];
    size_t kept;
} array;

/* Elements of a number of onnx.TensorProto.DataType that spec/tensors.md §2 names. */
array array_of_type(uint32_t dtype);
array array_of_bits(unsigned bits);

void array_add(array *to, const uint8_t *data, size_t size);

/* Prints it: {"first": ..., "sha256": ..., "shape": ...} */
void array_print(array *from, json *out, const uint64_t *shape, uint32_t rank);

/* {"sha256": ..., "size": ...} */
void blob_print(json *out, const uint8_t *data, size_t size);

#endif
