#include "drawing.h"

#include <string.h>

uint8_t draw(drawing *from) { return from->at < from->end ? *from->at++ : 0; }

uint64_t draw_below(drawing *from, uint64_t limit) {
    uint64_t number = draw(from);
    number = limit > 256 ? number << 8 | draw(from) : number;
    return limit == 0 ? 0 : number % limit;
}

static uint8_t any_byte(drawing *from) {
    from->state = from->state * 6364136223846793005u + 1442695040888963407u;
    return (uint8_t)(from->state >> 56);
}

static void add_payload(drawing *from, uint32_t codec, size_t raw_size, size_t start) {
    made_payload *payload = &from->bundle.payloads[from->bundle.payload_count++];
    *payload = (made_payload){codec, (uint32_t)raw_size, from->stored.data + start, from->stored.size - start};
}

void add_bytes(drawing *from, const uint8_t *raw, size_t size) {
    static const uint8_t codecs[] = {STORED, STORED, ZLIB, ZSTD};
    uint32_t codec = PICK(from, codecs);
    size_t start = from->stored.size;
    codec = size == 0 ? STORED : codec;
    if (codec == ZLIB) {
        put_zlib(&from->stored, raw, size);
    } else if (codec == ZSTD) {
        put_zstd(&from->stored, raw, size);
    } else {
        put_bytes(&from->stored, raw, size);
    }
    add_payload(from, codec, size, start);
}

void add_matrix(drawing *from, const uint8_t *raw, uint64_t height, uint64_t width, uint32_t depth, bool filtered) {
    static const uint8_t codecs[] = {STORED, STORED, PNG, PNG, ZSTD};
    static uint8_t rows[2 * MOST_RAW];
    uint32_t codec = PICK(from, codecs);
    size_t row = (size_t)(width * depth + 7) / 8, size = (size_t)height * row, start = from->stored.size;
    codec = size == 0 ? STORED : codec;
    if (codec == PNG) {
        for (size_t i = 0; i < height; i++) {
            rows[i * (row + 1)] = filtered ? draw(from) % 5 : 0;
            memcpy(rows + i * (row + 1) + 1, raw + i * row, row);
        }
        put_png(&from->stored, rows, size + (size_t)height, (uint32_t)width, (uint32_t)height, depth);
    } else if (codec == ZSTD) {
        put_zstd(&from->stored, raw, size);
    } else {
        put_bytes(&from->stored, raw, size);
    }
    add_payload(from, codec, size, start);
}

void draw_raw(drawing *from, uint8_t *raw, size_t size) {
    uint8_t kind = draw(from) % 4;
    size_t left = (size_t)(from->end - from->at);
    size_t period = left < 16 ? left : 16;
    for (size_t i = 0; i < size; i++) {
        raw[i] = kind == 0 && period > 0 ? from->at[i % period] : any_byte(from);
        raw[i] = kind == 1 ? raw[i] & any_byte(from) & any_byte(from) & any_byte(from) : raw[i];
        raw[i] = kind == 2 ? raw[0] : raw[i];
    }
    from->at += kind == 0 ? period : 0;
}

void draw_values(drawing *from, uint8_t *raw, size_t count, bool halves, bool positive) {
    size_t size = count * (halves ? 2 : 4);
    uint8_t kind = draw(from) % 8;
    if (kind == 0) {
        draw_raw(from, raw, size);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        uint32_t random = (uint32_t)any_byte(from) << 16 | (uint32_t)any_byte(from) << 8 | any_byte(from);
        uint32_t sign = positive ? 0 : random & 1;
        if (halves) {
            uint16_t half = (uint16_t)(sign << 15 | (uint32_t)(13 + random / 2 % 4) << 10 | (random >> 8 & 1023));
            memcpy(raw + 2 * i, &half, 2);
        } else {
            uint32_t bits = sign << 31 | (uint32_t)(kind == 1 ? 100 + random / 2 % 50 : 125 + random / 2 % 4) << 23;
            bits |= kind == 2 ? (random & 1023) << 13 : random >> 1; /* a value of binary16, or not */
            memcpy(raw + 4 * i, &bits, 4);
        }
    }
}

void add_slice(drawing *from, output *out, uint32_t field, const uint8_t *bytes, size_t size) {
    static uint8_t raw[MOST_RAW];
    size_t offset = (size_t)16 * (draw(from) % 4u == 3 ? draw(from) % 8u : 0),
           behind = draw(from) % 4u == 3 ? draw(from) : 0u;
    memset(raw, 0x5A, offset + behind + size);
    memcpy(raw + offset, bytes, size);
    size_t slice = open_message(out, field);
    put_number(out, 1, from->bundle.payload_count);
    put_number(out, 2, offset);
    put_number(out, 3, size);
    close_message(out, slice);
    add_bytes(from, raw, offset + size + behind);
}
