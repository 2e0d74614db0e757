/* Codec 2: a grey PNG of three chunks (spec/codecs.md §4), read where it stands. */
#include "bytes.h"
#include "kernels/kernels.h"
#include "payload.h"

#include <zlib.h>

enum {
    HEADER_CHUNK = 8, /* IHDR, behind the signature */
    HEADER_CRC = 29,
    DATA_CHUNK = 33, /* IDAT: length, type, data, CRC */
    DATA = 41,
    END_CHUNK_SIZE = 12, /* IEND */
    CHUNK_CRC_SIZE = 4,
};

static const uint8_t signature_and_header[HEADER_CRC] = {
    0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n', 0, 0, 0, 13, 'I', 'H', 'D', 'R',
};
static const uint8_t end_chunk[END_CHUNK_SIZE] = {0, 0, 0, 0, 'I', 'E', 'N', 'D', 0xAE, 0x42, 0x60, 0x82};

static void store32_big(uint8_t *p, uint32_t value) {
    for (int i = 0; i < 4; i++) {
        p[i] = (uint8_t)(value >> (24 - 8 * i));
    }
}

/* All that stands before the data: it follows from the shape and the size of the whole. */
static void make_head(mm_packed_shape shape, uint32_t data_size, uint8_t head[DATA]) {
    memcpy(head, signature_and_header, sizeof signature_and_header);
    store32_big(head + 16, (uint32_t)shape.width);
    store32_big(head + 20, (uint32_t)shape.height);
    head[24] = (uint8_t)shape.depth; /* and four zeros: grey, deflate, the five filters, not interlaced */
    uint8_t *header_type = head + HEADER_CHUNK + 4;
    const size_t covered = (size_t)(head + HEADER_CRC - header_type);
    store32_big(head + HEADER_CRC, mm_choose_kernels()->crc32(0, header_type, covered));
    store32_big(head + DATA_CHUNK, data_size);
    memcpy(head + DATA_CHUNK + 4, "IDAT", 4);
}

/*
 * Whether the CRC-32 of IDAT is right, without reading its data again: all stored bytes have the payload's CRC-32, and
 * that of the parts before and behind is soon found, so that only one value fits between.
 */
static bool data_crc_holds(const uint8_t *stored, size_t stored_size, uint32_t crc32) {
    const mm_kernels *kernels = mm_choose_kernels();
    const uint8_t *behind = stored + stored_size - END_CHUNK_SIZE - CHUNK_CRC_SIZE;
    const uint8_t *type = stored + DATA_CHUNK + 4;
    uint64_t sum = kernels->crc32(0, stored, (size_t)(type - stored));
    sum = crc32_combine((uLong)sum, mm_load32_big(behind), (z_off_t)(behind - type));
    uint32_t rest = kernels->crc32(0, behind, END_CHUNK_SIZE + CHUNK_CRC_SIZE);
    return crc32_combine((uLong)sum, rest, END_CHUNK_SIZE + CHUNK_CRC_SIZE) == crc32;
}

static uint8_t paeth(int a, int b, int c) {
    int to_a = b > c ? b - c : c - b; /* |p - a| with p = a + b - c */
    int to_b = a > c ? a - c : c - a;
    int to_c = a + b - 2 * c;
    to_c = to_c < 0 ? -to_c : to_c;
    return (uint8_t)(to_a <= to_b && to_a <= to_c ? a : to_b <= to_c ? b : c);
}

/* Undo a row's filter in place. above is NULL for the first row, which has zeros above it. */
static bool undo_filter(uint8_t filter, uint8_t *row, const uint8_t *above, size_t size) {
    switch (filter) {
    case 0: return true;
    case 1:
        for (size_t i = 1; i < size; i++) {
            row[i] = (uint8_t)(row[i] + row[i - 1]);
        }
        return true;
    case 2:
        for (size_t i = 0; above != NULL && i < size; i++) {
            row[i] = (uint8_t)(row[i] + above[i]);
        }
        return true;
    case 3:
    case 4:
        for (size_t i = 0; i < size; i++) {
            int left = i > 0 ? row[i - 1] : 0;
            int up = above != NULL ? above[i] : 0;
            int corner = i > 0 && above != NULL ? above[i - 1] : 0;
            row[i] = (uint8_t)(row[i] + (filter == 3 ? (left + up) / 2 : paeth(left, up, corner)));
        }
        return true;
    default: return false;
    }
}

/* From rows that each begin with their filter to rows that lie one behind the other: each moves to the front. */
static mm_status undo_filters(mm_packed_shape shape, uint8_t *raw) {
    size_t size = (size_t)mm_row_bytes(shape);
    const uint8_t *filtered = raw;
    const uint8_t *above = NULL;
    for (uint64_t i = 0; i < shape.height; i++, filtered += size + 1) {
        uint8_t filter = *filtered;
        memmove(raw, filtered + 1, size);
        if (!undo_filter(filter, raw, above, size)) {
            return MM_MALFORMED_STREAM;
        }
        above = raw;
        raw += size;
    }
    return MM_OK;
}

mm_status mm_decode_png(const uint8_t *stored, size_t stored_size, uint32_t crc32, mm_packed_shape shape, uint8_t *raw,
                        mm_arena scratch) {
    const size_t around = DATA + CHUNK_CRC_SIZE + END_CHUNK_SIZE;
    if (stored_size < around) {
        return MM_MALFORMED_STREAM;
    }
    size_t data_size = stored_size - around;
    uint8_t head[DATA];
    make_head(shape, (uint32_t)data_size, head);
    if (memcmp(stored, head, sizeof head) != 0 ||
        memcmp(stored + stored_size - END_CHUNK_SIZE, end_chunk, sizeof end_chunk) != 0 ||
        !data_crc_holds(stored, stored_size, crc32)) {
        return MM_MALFORMED_STREAM;
    }
    mm_status status = mm_decode_zlib(stored + DATA, data_size, raw, (size_t)mm_matrix_piece(shape), scratch);
    return status != MM_OK ? status : undo_filters(shape, raw);
}
