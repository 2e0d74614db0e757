#include "message.h"

#include <string.h>

#include "bytes.h"

static void add_member(mm_section *section, const mm_field *field) {
    if (section->count == 0) {
        section->start = field->tag;
    }
    section->end = field->end; /* field numbers never decrease: nothing else stands between */
    section->count++;
}

static int32_t signed_of(uint32_t zigzag) { return (int32_t)(zigzag >> 1) ^ -(int32_t)(zigzag & 1); }

/* out is aligned for what the kind says. */
static void bring(const mm_reader *message, const mm_field *field, uint32_t kind, void *out) {
    switch (kind) {
    case MM_TO_BOOL: *(bool *)out = field->value != 0; break;
    case MM_TO_UINT32: *(uint32_t *)out = (uint32_t)field->value; break;
    case MM_TO_UINT64: *(uint64_t *)out = field->value; break;
    case MM_TO_SINT32: *(int32_t *)out = signed_of((uint32_t)field->value); break;
    case MM_TO_INDEX: *(int32_t *)out = (int32_t)mm_min(field->value, INT32_MAX); break; /* no file has so many */
    case MM_TO_BYTES: *(mm_bytes *)out = (mm_bytes){message->data + field->start, field->end - field->start}; break;
    case MM_TO_SECTION: add_member(out, field); break;
    default: break;
    }
}

uint32_t mm_read_message(mm_reader message, const mm_slot *slots, uint32_t count, void *out) {
    uint32_t found = 0;
    mm_field field;
    while (mm_walk(&message, &field)) {
        if (field.number < 32) {
            found |= UINT32_C(1) << field.number;
        }
        if (field.number < count) {
            const mm_slot slot = slots[field.number];
            bring(&message, &field, slot.kind, (uint8_t *)out + slot.offset);
        }
    }
    return found;
}

mm_reader mm_inner(mm_reader message, uint32_t number) {
    mm_field field;
    while (mm_walk(&message, &field) && field.number <= number) {
        if (field.number == number) {
            return mm_enter(&message, &field);
        }
    }
    return (mm_reader){message.data, 0, 0};
}

bool mm_next_message(mm_reader *members, mm_reader *message) {
    mm_field member;
    const bool found = mm_walk(members, &member);
    if (found) {
        *message = mm_enter(members, &member);
    }
    return found;
}
