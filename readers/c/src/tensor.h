/* Reading one tensor of a manifest whose grammar holds, and checking all that it says of itself. */
#ifndef MM_TENSOR_H
#define MM_TENSOR_H

#include "mobilemodel.h"
#include "wire.h"

static inline bool mm_has_codes(const mm_tensor *tensor) {
    return tensor->encoding == MM_PALETTE || tensor->encoding == MM_AFFINE;
}

/* Elements of a slice of the first axis. */
uint64_t mm_slice_elements(const mm_tensor *tensor);

/* Bits of an element of a type of spec/tensors.md §2; 0: no such type. */
uint32_t mm_type_bits(uint32_t dtype);

/* Bytes of `elements` elements, at most 2^31 of them, as raw data of a known type. */
uint64_t mm_raw_size(uint32_t dtype, uint64_t elements);

/* The product of the sizes that are not 0 is at most `most`: else false. *product is that of all of them. */
bool mm_product(const uint64_t *sizes, uint32_t count, uint32_t most, uint64_t *product);

/* The tensor's own fields: name, type, dims, features, loss, and which encoding is set. false: more axes or elements
 * than the limits allow. */
bool mm_read_tensor_head(const mm_bundle *bundle, const mm_field *member, mm_tensor *tensor);

/* All of the tensor that the field `member` of the manifest holds, with the rules of spec/tensors.md §3 to §6 but for
 * those that payloads take part in. MM_MALFORMED_MANIFEST, MM_LIMIT_EXCEEDED. tensor->status says whether it is
 * foreign: then its encoding has not been read. */
mm_status mm_read_tensor(const mm_bundle *bundle, const mm_field *member, mm_tensor *tensor);

/* The matrix of codes that a Codes message makes of the tensor's dims (spec/tensors.md §3). Statuses as above. */
mm_status mm_read_matrix(const mm_bundle *bundle, mm_reader codes, const mm_tensor *tensor, mm_matrix *matrix);

/* Raw bytes of rows of packed codes, at any depth; of a plane of that many rows; of the other codes of a split block
 * (§3.3). */
uint64_t mm_codes_size(const mm_matrix *matrix, uint64_t rows);
uint64_t mm_plane_size(const mm_matrix *matrix, uint64_t rows);
uint64_t mm_others_size(const mm_matrix *matrix, uint64_t count);

#endif
