#include "making.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

/* ------------------------------------------------------------------------------------------------ messages */

void put_bytes(output *out, const void *bytes, size_t size) {
    if (size > out->capacity - out->size) {
        out->full = true;
    } else if (size > 0) {
        memcpy(out->data + out->size, bytes, size);
        out->size += size;
    }
}

void put_fixed(output *out, uint64_t number, size_t size) {
    uint8_t bytes[8];
    for (size_t i = 0; i < 8; i++) {
        bytes[i] = (uint8_t)(number >> 8 * i);
    }
    put_bytes(out, bytes, size);
}

void put_big(output *out, uint32_t number) {
    uint8_t bytes[4] = {(uint8_t)(number >> 24), (uint8_t)(number >> 16), (uint8_t)(number >> 8), (uint8_t)number};
    put_bytes(out, bytes, sizeof bytes);
}

static size_t varint_of(uint64_t number, uint8_t bytes[10]) {
    size_t size = 0;
    for (; number > 127; number >>= 7) {
        bytes[size++] = (uint8_t)(number | 128);
    }
    bytes[size++] = (uint8_t)number;
    return size;
}

void put_varint(output *out, uint64_t number) {
    uint8_t bytes[10];
    put_bytes(out, bytes, varint_of(number, bytes));
}

void put_number(output *out, uint32_t field, uint64_t number) {
    put_varint(out, (uint64_t)field << 3);
    put_varint(out, number);
}

void put_text(output *out, uint32_t field, const void *bytes, size_t size) {
    put_varint(out, (uint64_t)field << 3 | 2);
    put_varint(out, size);
    put_bytes(out, bytes, size);
}

size_t open_message(output *out, uint32_t field) {
    put_varint(out, (uint64_t)field << 3 | 2);
    return out->size;
}

void close_message(output *out, size_t opened) {
    uint8_t length[10];
    size_t size = out->size - opened, width = varint_of(size, length);
    if (width > out->capacity - out->size) {
        out->full = true;
        return;
    }
    memmove(out->data + opened + width, out->data + opened, size);
    memcpy(out->data + opened, length, width);
    out->size += width;
}

/* ------------------------------------------------------------------------------------------------ frame */

static size_t varint_size(uint64_t number) {
    uint8_t bytes[10];
    return varint_of(number, bytes);
}

/* Where a payload's first byte stands (container.md §2), the field before it ending at `at`. */
static size_t place(size_t at, size_t stored_size) {
    size_t header = 1 + varint_size(stored_size);
    size_t gap = (64 - (at + header) % 64) % 64;
    return at + header + (gap == 1 ? 65 : gap);
}

static void put_entry(output *out, const made_payload *payload, size_t offset) {
    size_t opened = open_message(out, 17);
    put_varint(out, 1 << 3 | 1);
    put_fixed(out, offset, 8);
    uint32_t numbers[4] = {(uint32_t)payload->stored_size, payload->raw_size,
                           (uint32_t)crc32(0, payload->stored, (uInt)payload->stored_size), payload->codec};
    for (uint32_t i = 0; i < 4; i++) {
        put_varint(out, (i + 2) << 3 | 5);
        put_fixed(out, numbers[i], 4);
    }
    close_message(out, opened);
}

static void put_payload(output *out, const made_payload *payload, size_t offset) {
    size_t gap = offset - 1 - varint_size(payload->stored_size) - out->size;
    if (gap > 0) {
        uint8_t padding[65] = {0x22, (uint8_t)(gap - 2)};
        put_bytes(out, padding, gap);
    }
    put_text(out, 5, payload->stored, payload->stored_size);
}

uint8_t *make_file(const made_bundle *bundle, size_t *size) {
    size_t manifest_size = bundle->head.size + 9 + bundle->rest.size + 32 * bundle->payload_count;
    size_t start = 11 + varint_size(manifest_size), end = start + manifest_size;
    size_t offsets[MOST_PAYLOADS];
    for (size_t k = 0; k < bundle->payload_count; k++) {
        offsets[k] = place(end, bundle->payloads[k].stored_size);
        end = offsets[k] + bundle->payloads[k].stored_size;
    }
    output out = {malloc(end), 0, end, false};
    put_bytes(&out, "\x0D\x4D\x4D\x42\x31\x15\0\0\0\0\x1A", 11);
    put_varint(&out, manifest_size);
    put_bytes(&out, bundle->head.data, bundle->head.size);
    put_varint(&out, 4 << 3 | 1);
    put_fixed(&out, end, 8);
    put_bytes(&out, bundle->rest.data, bundle->rest.size);
    for (size_t k = 0; k < bundle->payload_count; k++) {
        put_entry(&out, &bundle->payloads[k], offsets[k]);
    }
    output checksum = {out.data + 6, 0, 4, false};
    put_fixed(&checksum, crc32(0, out.data + start, (uInt)manifest_size), 4);
    for (size_t k = 0; k < bundle->payload_count; k++) {
        put_payload(&out, &bundle->payloads[k], offsets[k]);
    }
    if (out.full || out.size != end) {
        abort();
    }
    *size = end;
    return out.data;
}

/* ------------------------------------------------------------------------------------------------ codecs */

void put_zlib(output *out, const uint8_t *raw, size_t size) {
    put_bytes(out, "\x78\x01", 2);
    size_t at = 0;
    do {
        size_t part = size - at < 65535 ? size - at : 65535;
        put_fixed(out, at + part == size, 1); /* a block that is not compressed; is it the last? */
        put_fixed(out, part, 2);
        put_fixed(out, ~part, 2);
        put_bytes(out, raw + at, part);
        at += part;
    } while (at < size);
    put_big(out, (uint32_t)adler32(1, raw, (uInt)size));
}

void put_zstd(output *out, const uint8_t *raw, size_t size) {
    put_bytes(out, "\x28\xB5\x2F\xFD\xA0", 5); /* one segment, its size in 4 bytes */
    put_fixed(out, size, 4);
    size_t at = 0;
    do {
        size_t part = size - at < 1 << 17 ? size - at : 1 << 17;
        put_fixed(out, part << 3 | (at + part == size), 3); /* a raw block */
        put_bytes(out, raw + at, part);
        at += part;
    } while (at < size);
}

static void put_chunk(output *out, const char *type, const uint8_t *data, size_t size) {
    uLong checksum = crc32(crc32(0, (const Bytef *)type, 4), data, (uInt)size);
    put_big(out, (uint32_t)size);
    put_bytes(out, type, 4);
    put_bytes(out, data, size);
    put_big(out, (uint32_t)(size > 0 ? checksum : crc32(0, (const Bytef *)type, 4)));
}

void put_png(output *out, const uint8_t *rows, size_t size, uint32_t width, uint32_t height, uint32_t depth) {
    uint8_t header[13];
    output in_header = {header, 0, sizeof header, false};
    put_big(&in_header, width);
    put_big(&in_header, height);
    put_fixed(&in_header, depth & 0xFF, 5);
    put_bytes(out, "\x89PNG\r\n\x1A\n", 8);
    put_chunk(out, "IHDR", header, sizeof header);
    output data = {malloc(size + size / 65535 * 5 + 16), 0, size + size / 65535 * 5 + 16, false};
    put_zlib(&data, rows, size);
    put_chunk(out, "IDAT", data.data, data.size);
    free(data.data);
    put_chunk(out, "IEND", rows, 0);
}

void repair_png(uint8_t *stored, size_t size) {
    for (size_t at = 8; at <= size && size - at >= 12;) {
        size_t length =
            (size_t)stored[at] << 24 | (size_t)stored[at + 1] << 16 | (size_t)stored[at + 2] << 8 | stored[at + 3];
        if (length > size - at - 12) {
            break;
        }
        output checksum = {stored + at + 8 + length, 0, 4, false};
        put_big(&checksum, (uint32_t)crc32(0, stored + at + 4, (uInt)length + 4));
        at += 12 + length;
    }
}
