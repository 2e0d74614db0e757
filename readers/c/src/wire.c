#include "wire.h"

#include "bytes.h"

bool mm_read_varint(mm_reader *reader, uint64_t *value) {
    uint64_t sum = 0;
    for (unsigned shift = 0; shift < 64 && reader->at < reader->end; shift += 7) {
        const uint8_t byte = reader->data[reader->at++];
        if (shift == 63 && byte > 1) { /* an eleventh byte, or a number of more than 64 bits */
            return false;
        }
        sum |= (uint64_t)(byte & 0x7F) << shift;
        if (byte < 0x80) {
            *value = sum;
            return byte != 0 || shift == 0; /* else a shorter form has the same value */
        }
    }
    return false;
}

bool mm_read_field(mm_reader *reader, mm_field *field) {
    uint64_t key;
    uint64_t size;
    field->tag = reader->at;
    if (!mm_read_varint(reader, &key) || key >> 3 == 0 || key >> 32 != 0) {
        return false;
    }
    field->number = (uint32_t)key >> 3;
    field->wire_type = (uint32_t)key & 7;
    field->start = reader->at;
    field->value = 0;
    switch (field->wire_type) {
    case MM_WIRE_VARINT:
        if (!mm_read_varint(reader, &field->value)) {
            return false;
        }
        field->end = reader->at;
        return true;
    case MM_WIRE_BYTES:
        if (!mm_read_varint(reader, &size)) {
            return false;
        }
        field->start = reader->at;
        break;
    case MM_WIRE_FIXED32: size = 4; break;
    case MM_WIRE_FIXED64: size = 8; break;
    default: return false; /* groups */
    }
    if (size > reader->end - reader->at) {
        return false;
    }
    if (field->wire_type != MM_WIRE_BYTES) {
        const uint8_t *p = reader->data + field->start;
        field->value = size == 4 ? mm_load32(p) : mm_load64(p);
    }
    reader->at += (uint32_t)size;
    field->end = reader->at;
    return true;
}

bool mm_walk(mm_reader *reader, mm_field *field) { return reader->at < reader->end && mm_read_field(reader, field); }

uint32_t mm_read_numbers(mm_reader run, uint64_t *values, uint32_t most) {
    uint64_t value;
    uint32_t count = 0;
    while (count <= most && run.at < run.end && mm_read_varint(&run, &value)) {
        if (count < most) {
            values[count] = value;
        }
        count++;
    }
    return count;
}
