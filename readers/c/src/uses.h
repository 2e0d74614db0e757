/* Who uses which payload: indices, codecs, raw sizes and slices (spec/container.md §3 and §6, checks 9 and 10). */
#ifndef MM_USES_H
#define MM_USES_H

#include "mobilemodel.h"

#define MM_MAX_PAYLOADS 65535u

/* What the uses so far come to, of a bundle that has passed check 8. It takes 8 KiB. */
typedef struct mm_uses {
    const mm_bundle *bundle;
    uint64_t count;                         /* of tensors: what limits.uses bounds */
    uint8_t marks[MM_MAX_PAYLOADS / 8 + 1]; /* a bit for each payload that something uses */
} mm_uses;

void mm_begin_uses(mm_uses *uses, const mm_bundle *bundle);

/* Check and mark what a tensor that is not foreign uses. MM_MALFORMED_MANIFEST; MM_LIMIT_EXCEEDED. */
mm_status mm_use_tensor(mm_uses *uses, const mm_tensor *tensor);

/* Check and mark a payload of bytes, of at most `limit` raw ones; *raw_size is how many. Statuses as above. */
mm_status mm_use_bytes(mm_uses *uses, uint32_t index, uint32_t limit, uint32_t *raw_size);

bool mm_all_used(const mm_uses *uses);

/* The sizes of an entry suit its codec (codecs.md §2). */
bool mm_sizes_suit(const mm_payload *payload);

#endif
