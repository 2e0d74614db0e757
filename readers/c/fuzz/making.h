/* Bundles made of parts: protobuf messages, payloads in each codec, and the frame around both, with right offsets,
 * sizes and checksums. */
#ifndef MAKING_H
#define MAKING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes that grow up to a capacity; what does not fit is left out, and `full` is set. */
typedef struct output {
    uint8_t *data;
    size_t size, capacity;
    bool full;
} output;

void put_bytes(output *out, const void *bytes, size_t size);
void put_fixed(output *out, uint64_t number, size_t size); /* little-endian */
void put_big(output *out, uint32_t number);
void put_varint(output *out, uint64_t number);
void put_number(output *out, uint32_t field, uint64_t number);
void put_text(output *out, uint32_t field, const void *bytes, size_t size);

/* A message within a message: its fields are what is put between both calls. The length comes in afterwards. */
size_t open_message(output *out, uint32_t field);
void close_message(output *out, size_t opened);

enum { STORED, ZLIB, PNG, ZSTD };

#define MOST_PAYLOADS 128

typedef struct made_payload {
    uint32_t codec, raw_size;
    const uint8_t *stored;
    size_t stored_size;
} made_payload;

typedef struct made_bundle {
    output head; /* fields 1 to 3 of the manifest */
    output rest; /* all that follow, but for file_size and the payloads */
    made_payload payloads[MOST_PAYLOADS];
    size_t payload_count;
} made_bundle;

/* The file, in memory of exactly its size, for free(). */
uint8_t *make_file(const made_bundle *bundle, size_t *size);

/* Streams that hold raw bytes as they are: no encoder is asked. A PNG's raw bytes are rows behind their filter bytes.
 */
void put_zlib(output *out, const uint8_t *raw, size_t size);
void put_zstd(output *out, const uint8_t *raw, size_t size);
void put_png(output *out, const uint8_t *rows, size_t size, uint32_t width, uint32_t height, uint32_t depth);

/* Make the checksums of the chunks right, as far as there are chunks. */
void repair_png(uint8_t *stored, size_t size);

#endif
