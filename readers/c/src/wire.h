/*
 * The protobuf wire format, read strictly: rules 1 to 3 of spec/container.md §5.
 *
 * Every position is counted from the start of the manifest, which has at most 16 MiB.
 */
#ifndef MM_WIRE_H
#define MM_WIRE_H

#include <stdbool.h>
#include <stdint.h>

enum { MM_WIRE_VARINT = 0, MM_WIRE_FIXED64 = 1, MM_WIRE_BYTES = 2, MM_WIRE_FIXED32 = 5 };

/* What is left of a message, or of a packed run. */
typedef struct mm_reader {
    const uint8_t *data; /* the manifest */
    uint32_t at, end;
} mm_reader;

typedef struct mm_field {
    uint32_t number;
    uint32_t wire_type;
    uint32_t tag;        /* where it begins */
    uint32_t start, end; /* of its content */
    uint64_t value;      /* of a varint or a number of fixed width; else 0 */
} mm_field;

/* The next varint. false: it runs past the reader's end, is not minimal, or not below 2^64. */
bool mm_read_varint(mm_reader *reader, uint64_t *value);

/* The next field; the reader is not at its end. false: the field breaks one of the rules 1 to 3, but for the order of
 * numbers, which is the caller's. */
bool mm_read_field(mm_reader *reader, mm_field *field);

/* The next field of a message whose grammar is known to hold; false at its end. */
bool mm_walk(mm_reader *reader, mm_field *field);

/* The content of a message or a packed run. */
static inline mm_reader mm_enter(const mm_reader *outer, const mm_field *field) {
    return (mm_reader){outer->data, field->start, field->end};
}

/* The first `most` numbers of a packed run, into values. Returns how many it has, most + 1 standing for all above. */
uint32_t mm_read_numbers(mm_reader run, uint64_t *values, uint32_t most);

#endif
