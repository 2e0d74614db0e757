/* Payload entries, and where payloads stand in the file: spec/container.md §2 and §3. */
#ifndef MM_FRAMING_H
#define MM_FRAMING_H

#include "mobilemodel.h"

#define MM_ENTRY_STRIDE 32u /* bytes from one payload entry to the next (spec/container.md §3) */

/* The entry of a payload whose index is known to be below the number of payloads. */
mm_payload mm_entry(const mm_bundle *bundle, uint32_t index);

/* The bytes between the field before a payload and the payload's first byte. */
typedef struct mm_frame {
    uint32_t padding; /* bytes of the padding field: 0, or 2 to 65 */
    uint32_t header;  /* bytes of the payload's tag and length */
    uint64_t offset;  /* of the payload's first byte */
} mm_frame;

/* The frame of a payload of stored_size bytes where the fields before it end at position. */
mm_frame mm_frame_at(uint64_t position, uint32_t stored_size);

/* Whether the bytes before a payload are its frame (checks 11 and 14). For a bundle that has passed check 8: the
 * recorded offsets and the file's size are what the stored sizes make them. */
bool mm_frame_holds(const mm_bundle *bundle, uint32_t index);

#endif
