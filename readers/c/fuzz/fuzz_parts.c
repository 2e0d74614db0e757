/*
 * The input is a bundle without its arithmetic: lengths, offsets, sizes and checksums are made here, so that inserting
 * or changing a byte leaves a file that is well framed.
 *
 * First the manifest, but for file_size and the payloads, in the encoding of protobuf, messages as groups: a tag of
 * wire type 3, the fields, a tag of wire type 4, and so no length. One more tag of wire type 4 ends the manifest. Then
 * payloads:
 *
 *     head        bits 0 to 2: codec; bit 3: the bytes are raw, and are wrapped in the codec here; bit 4: repeated
 *     size        varint; of the raw bytes, of the row of a PNG that is wrapped (samples), or of what is repeated
 *     depth       1 byte; of a PNG that is wrapped
 *     length      varint, then the bytes
 */
#include "exercise.h"
#include "making.h"

#include <stdlib.h>
#include <string.h>

#define MOST_BYTES (1u << 15) /* of a payload, of the manifest */
#define DEEPEST    12

typedef struct input {
    const uint8_t *at, *end;
} input;

static uint8_t next_byte(input *in) { return in->at < in->end ? *in->at++ : 0; }

static uint64_t next_varint(input *in) {
    uint64_t number = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        uint8_t byte = next_byte(in);
        number |= (uint64_t)(byte & 127) << shift;
        if (byte < 128) {
            break;
        }
    }
    return number;
}

static const uint8_t *next_bytes(input *in, uint64_t wanted, size_t *size) {
    const uint8_t *bytes = in->at;
    size_t left = (size_t)(in->end - in->at);
    *size = wanted < left ? (size_t)wanted : left;
    in->at += *size;
    return bytes;
}

/* A field that is no message. */
static void copy_field(input *in, uint64_t tag, output *out) {
    static const uint8_t fixed[8] = {0, 8, 0, 0, 0, 4, 0, 0};
    size_t size;
    put_varint(out, tag);
    if ((tag & 7) == 0) {
        put_varint(out, next_varint(in));
    } else if ((tag & 7) == 2) {
        const uint8_t *bytes = next_bytes(in, next_varint(in), &size);
        put_varint(out, size);
        put_bytes(out, bytes, size);
    } else {
        const uint8_t *bytes = next_bytes(in, fixed[tag & 7], &size);
        put_bytes(out, bytes, size);
    }
}

static void make_manifest(input *in, made_bundle *bundle) {
    size_t opened[DEEPEST];
    size_t depth = 0;
    output *out = &bundle->head;
    while (in->at < in->end) {
        uint64_t tag = next_varint(in);
        if (depth == 0 && tag >> 3 > 3 && out == &bundle->head) {
            out = &bundle->rest;
        }
        if ((tag & 7) == 3 && depth < DEEPEST) {
            opened[depth++] = open_message(out, (uint32_t)(tag >> 3));
        } else if ((tag & 7) == 4) {
            if (depth == 0) {
                break;
            }
            close_message(out, opened[--depth]);
        } else {
            copy_field(in, tag, out);
        }
    }
    while (depth > 0) {
        close_message(out, opened[--depth]);
    }
}

static void wrap(output *out, uint32_t codec, const uint8_t *raw, size_t size, uint64_t width, uint32_t depth) {
    switch (codec) {
    case ZLIB: put_zlib(out, raw, size); break;
    case ZSTD: put_zstd(out, raw, size); break;
    case PNG: {
        uint64_t row = 1 + (width * depth + 7) / 8; /* the filter's byte first */
        put_png(out, raw, size, (uint32_t)width, (uint32_t)(size / row), depth);
        break;
    }
    default: put_bytes(out, raw, size);
    }
}

static void make_payload(input *in, made_bundle *bundle, output *out) {
    static uint8_t room[MOST_BYTES];
    made_payload *payload = &bundle->payloads[bundle->payload_count++];
    uint8_t head = next_byte(in);
    uint64_t number = next_varint(in);
    bool wrapped = head & 8;
    payload->codec = head & 7;
    uint32_t depth = wrapped && payload->codec == PNG ? next_byte(in) : 0;
    size_t size;
    const uint8_t *bytes = next_bytes(in, next_varint(in), &size);
    if (head & 16 && size > 0) { /* repeated up to `number` bytes */
        size_t all = number < MOST_BYTES ? (size_t)number : MOST_BYTES;
        for (size_t i = 0; i < all; i++) {
            room[i] = bytes[i % size];
        }
        bytes = room;
        size = all;
    }
    size_t start = out->size;
    if (wrapped) {
        wrap(out, payload->codec, bytes, size, number % (1 << 20), depth);
        size_t row = 1 + (size_t)(number % (1 << 20) * depth + 7) / 8;
        payload->raw_size = (uint32_t)(payload->codec == PNG ? size - size / row : size);
    } else {
        put_bytes(out, bytes, size);
        payload->raw_size = payload->codec == STORED || head & 16 ? (uint32_t)size : (uint32_t)number;
    }
    payload->stored = out->data + start;
    payload->stored_size = out->size - start;
    if (payload->codec == PNG) {
        repair_png(out->data + start, payload->stored_size);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static uint8_t head[MOST_BYTES], rest[MOST_BYTES], stored[4 * MOST_BYTES];
    made_bundle bundle = {.head = {head, 0, sizeof head, false}, .rest = {rest, 0, sizeof rest, false}};
    output payloads = {stored, 0, sizeof stored, false};
    input in = {data, data + size};
    make_manifest(&in, &bundle);
    while (in.at < in.end && bundle.payload_count < MOST_PAYLOADS) {
        make_payload(&in, &bundle, &payloads);
    }
    if (!bundle.head.full && !bundle.rest.full && !payloads.full) {
        mm_limits limits = exercise_small_limits();
        size_t made;
        uint8_t *file = make_file(&bundle, &made);
        exercise(file, made, &limits);
        free(file);
    }
    return 0;
}
