/* Dense tensors: spec/tensors.md §4. */
#ifndef MM_DENSE_H
#define MM_DENSE_H

#include "payload.h"

/* Raw bytes that hold elements, in the stored type. */
typedef struct mm_stored {
    const mm_tensor *tensor;
    const uint8_t *raw;
    uint64_t first, count; /* the elements that are wanted */
    uint64_t stride;       /* elements from one byte plane to the next; 0: no planes */
} mm_stored;

/* Those of a tensor of floats as MM_FLOAT or MM_FLOAT16. */
void mm_convert_stored(const mm_stored *from, uint32_t type, uint8_t *out);

uint64_t mm_dense_scratch(const mm_bundle *bundle, const mm_tensor *tensor);

/*
 * Elements first .. first + count - 1 as elements of type, into out, which is aligned for it: the tensor's own type, or
 * MM_FLOAT or MM_FLOAT16 of a tensor of floats. Below 8 bits the first element begins at a byte. Checks 13 to 15 with
 * the payloads that hold these elements; a small tensor's always.
 */
mm_status mm_decode_dense(const mm_bundle *bundle, const mm_tensor *tensor, uint32_t type, uint64_t first,
                          uint64_t count, uint8_t *out, mm_arena scratch);

#endif
