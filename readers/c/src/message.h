/* Reading messages of a manifest whose grammar holds (schema.h) into structs, by tables of where each field goes. */
#ifndef MM_MESSAGE_H
#define MM_MESSAGE_H

#include <stddef.h>

#include "mobilemodel.h"
#include "wire.h"

/* The type of the member that a field goes to. */
enum {
    MM_TO_NOTHING = 0,
    MM_TO_BOOL,
    MM_TO_UINT32,
    MM_TO_UINT64,
    MM_TO_SINT32,
    MM_TO_INDEX,
    MM_TO_BYTES,
    MM_TO_SECTION
};

/* Where a field goes. A table of these has the fields' numbers for indices. */
typedef struct mm_slot {
    uint16_t kind;
    uint16_t offset;
} mm_slot;

/*
 * The slot of a member of a struct, which says what it takes: a number, where int32_t is a payload's index that may be
 * -1 (a sint32 has MM_TO_SINT32 instead); mm_bytes a text; mm_section the members of a repeated field.
 */
#define MM_SLOT(type, member)                                                                                          \
    {_Generic(((type *)NULL)->member,                                                                                  \
         bool: MM_TO_BOOL,                                                                                             \
         uint32_t: MM_TO_UINT32,                                                                                       \
         uint64_t: MM_TO_UINT64,                                                                                       \
         int32_t: MM_TO_INDEX,                                                                                         \
         mm_bytes: MM_TO_BYTES,                                                                                        \
         mm_section: MM_TO_SECTION),                                                                                   \
     offsetof(type, member)}

/* Bring the fields of a message to their members of *out; those whose fields it does not have stay as they are. Returns
 * a bit for each field below number 32 that it has, in the table or not: mm_has asks for one. */
uint32_t mm_read_message(mm_reader message, const mm_slot *slots, uint32_t count, void *out);

#define MM_READ_MESSAGE(message, slots, out) mm_read_message(message, slots, sizeof(slots) / sizeof(slots)[0], out)

static inline bool mm_has(uint32_t found, uint32_t number) { return (found >> number & 1) != 0; }

/* The content of a field that is a message or a packed run, where it stands first: of one without anything where the
 * message does not have the field. */
mm_reader mm_inner(mm_reader message, uint32_t number);

/* The message that the next member of a repeated field is; false behind the last. */
bool mm_next_message(mm_reader *members, mm_reader *message);

#endif
