/* What an input decides, one byte after the other, and payloads whose content is drawn so. */
#ifndef DRAWING_H
#define DRAWING_H

#include "making.h"

#define MOST_TABLE 16384u /* bytes: the limit of the exercise */
#define MOST_RAW   40000u /* of a payload */

typedef struct drawing {
    const uint8_t *at, *end;
    uint64_t state; /* for bytes that nobody decides on */
    made_bundle bundle;
    output stored;
} drawing;

uint8_t draw(drawing *from); /* 0 where the input is at its end */
uint64_t draw_below(drawing *from, uint64_t limit);

#define PICK(from, values) values[draw(from) % (sizeof values / sizeof values[0])]

/* Bytes of the input over and over, or bytes of no pattern, or all the same. */
void draw_raw(drawing *from, uint8_t *raw, size_t size);

/* `count` numbers of a table or of scales: of a usual size, or any bits at all. */
void draw_values(drawing *from, uint8_t *raw, size_t count, bool halves, bool positive);

/* A payload of bytes, in a codec that is drawn. */
void add_bytes(drawing *from, const uint8_t *raw, size_t size);

/* A packed matrix, as it stands in `raw`; or, where `filtered`, as any PNG filters make it of these bytes. */
void add_matrix(drawing *from, const uint8_t *raw, uint64_t height, uint64_t width, uint32_t depth, bool filtered);

/* A slice of a payload of its own, and the field that tells of it: the bytes before and behind it are anything. */
void add_slice(drawing *from, output *out, uint32_t field, const uint8_t *bytes, size_t size);

#endif
