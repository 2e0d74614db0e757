/*
 * The input is a row of decisions: almost every one of them is a bundle that opens, with one to three tensors of any
 * encoding, order of axes, depth, stream, grouping and codec, so that decoding and the kernels are reached at once.
 * What a payload has to hold, and how many bytes, is computed here from spec/tensors.md. The last decision may break a
 * stream.
 */
#include "drawing.h"
#include "exercise.h"
#include "reference.h"

#include <stdlib.h>
#include <string.h>

#define MOST_ELEMENTS  4096u
#define USUAL_ELEMENTS 400u /* the others take a millisecond */

/* ------------------------------------------------------------------------------------------- the matrix of codes */

typedef struct geometry {
    uint64_t dims[5], view[5];
    uint32_t rank, axes;
    uint8_t perm[5];
    uint32_t row_axes;
    uint64_t elements, rows, columns;
    uint64_t vector, segment, subvectors, codes; /* codes: in a row */
    uint32_t depth;
    bool split;
} geometry;

static void draw_dims(drawing *from, geometry *shape) {
    static const uint16_t sizes[] = {1,  2,  3,  4,  5,  6,  7,  8,   9,   12,  15,  16,  17,  20,  24,  31,   32,
                                     33, 40, 48, 63, 64, 65, 96, 127, 128, 129, 200, 255, 256, 257, 515, 1030, 0};
    uint64_t room = draw(from) % 8 == 7 ? MOST_ELEMENTS : USUAL_ELEMENTS;
    shape->rank = draw(from) % 5;
    shape->elements = 1;
    for (uint32_t axis = 0; axis < shape->rank; axis++) {
        uint64_t size = PICK(from, sizes);
        size = size > room ? room : size;
        room = size > 0 ? room / size : room;
        shape->dims[axis] = size;
        shape->elements *= size;
    }
}

/* The largest divisor of n that is at most `most`. */
static uint64_t divisor(uint64_t n, uint64_t most) {
    while (most > 1 && n % most != 0) {
        most--;
    }
    return most;
}

static void draw_order(drawing *from, geometry *shape, bool *has_perm) {
    memcpy(shape->view, shape->dims, sizeof shape->view);
    shape->axes = shape->rank;
    if (draw(from) % 4 == 3 && shape->elements > 0) {
        shape->view[0] = divisor(shape->elements, 1 + draw_below(from, shape->elements));
        shape->view[1] = shape->elements / shape->view[0];
        shape->axes = 2;
    }
    *has_perm = draw(from) % 2;
    for (uint32_t axis = 0; axis < shape->axes; axis++) {
        shape->perm[axis] = (uint8_t)axis;
    }
    for (uint32_t axis = shape->axes; *has_perm && axis > 1; axis--) {
        uint32_t other = draw(from) % axis;
        uint8_t kept = shape->perm[axis - 1];
        shape->perm[axis - 1] = shape->perm[other];
        shape->perm[other] = kept;
    }
    shape->row_axes = draw(from) % 4 ? shape->axes > 0 : draw(from) % (shape->axes + 1);
    shape->rows = shape->columns = 1;
    for (uint32_t axis = 0; axis < shape->axes; axis++) {
        *(axis < shape->row_axes ? &shape->rows : &shape->columns) *= shape->view[shape->perm[axis]];
    }
}

static void draw_codes(drawing *from, geometry *shape, bool vectors) {
    static const uint16_t vector_sizes[] = {1, 1, 2, 3, 4, 4, 5, 8, 9, 16, 17, 64, 256};
    uint16_t size = PICK(from, vector_sizes);
    shape->vector = vectors && draw(from) % 2 ? size : 1;
    shape->segment = draw(from) % 4 == 3 ? divisor(shape->columns, 1 + draw_below(from, shape->columns)) : 0;
    shape->segment = shape->columns == 0 ? 0 : shape->segment;
    uint64_t segment = shape->segment > 0 ? shape->segment : shape->columns;
    shape->subvectors = (segment + shape->vector - 1) / shape->vector;
    shape->codes = segment > 0 ? shape->columns / segment * shape->subvectors : 0;
}

static size_t row_bytes(uint64_t width, uint32_t depth) { return (size_t)(width * depth + 7) / 8; }

/* One block; a split one as its plane, then the codes of the plane's ones. */
static void add_block(drawing *from, const geometry *shape, uint64_t rows) {
    static uint8_t raw[MOST_RAW];
    uint32_t depth = shape->depth == 16 ? 8 : shape->depth, halves = shape->depth == 16 ? 2 : 1;
    if (!shape->split) {
        draw_raw(from, raw, halves * (size_t)rows * row_bytes(shape->codes, depth));
        add_matrix(from, raw, halves * rows, shape->codes, depth, true);
        return;
    }
    uint64_t ones = 0;
    draw_raw(from, raw, (size_t)rows * row_bytes(shape->codes, 1));
    for (uint64_t i = 0; i < rows * shape->codes; i++) {
        uint64_t n = i % shape->codes;
        ones += raw[i / shape->codes * row_bytes(shape->codes, 1) + n / 8] >> (7 - n % 8) & 1;
    }
    add_matrix(from, raw, rows, shape->codes, 1, false);
    draw_raw(from, raw, halves * row_bytes(ones, depth));
    add_matrix(from, raw, ones > 0 ? halves : 0, ones, depth, true);
}

static void put_packed(output *out, uint32_t field, const uint64_t *numbers, uint32_t count) {
    size_t run = open_message(out, field);
    for (uint32_t i = 0; i < count; i++) {
        put_varint(out, numbers[i]);
    }
    close_message(out, run);
}

static void add_codes(drawing *from, geometry *shape, output *out, uint64_t background, bool has_perm) {
    uint64_t perm[5], per_block = 1 + draw_below(from, shape->rows + 2);
    per_block = shape->rows / per_block > 20 ? shape->rows / 20 + 1 : per_block;
    for (uint32_t axis = 0; axis < shape->axes; axis++) {
        perm[axis] = shape->perm[axis];
    }
    size_t codes = open_message(out, 1);
    put_packed(out, 1, shape->view, shape->axes);
    put_packed(out, 2, perm, has_perm ? shape->axes : 0);
    put_number(out, 3, shape->row_axes);
    put_number(out, 4, shape->depth);
    put_number(out, 5, shape->vector);
    put_number(out, 6, shape->segment);
    put_number(out, 7, per_block);
    bool any = shape->rows > 0 && shape->codes > 0;
    put_number(out, 8, any ? from->bundle.payload_count : 0);
    put_number(out, 9, shape->split);
    put_number(out, 10, background);
    close_message(out, codes);
    for (uint64_t row = 0; any && row < shape->rows; row += per_block) {
        add_block(from, shape, per_block < shape->rows - row ? per_block : shape->rows - row);
    }
}

/* ------------------------------------------------------------------------------------------- encodings */

/* Draw a grouping of at most `most` groups, and tell how many it makes. */
static uint64_t draw_grouping(drawing *from, const geometry *shape, uint64_t most, uint64_t by[2]) {
    bool one = draw(from) % 2 == 0;
    by[0] = one ? 0 : draw_below(from, shape->rows + 2);
    by[1] = one ? 0 : draw_below(from, shape->subvectors + 2);
    uint64_t down = by[0] ? by[0] : shape->rows > 0 ? shape->rows : 1;
    uint64_t across = by[1] ? by[1] : shape->subvectors > 0 ? shape->subvectors : 1;
    uint64_t count = (shape->rows + down - 1) / down * ((shape->subvectors + across - 1) / across);
    if (count > most) {
        by[0] = by[1] = 0;
        count = shape->rows > 0 && shape->subvectors > 0;
    }
    return count;
}

static void put_grouping(output *out, uint32_t field, const uint64_t by[2]) {
    size_t grouping = open_message(out, field);
    put_number(out, 1, by[0]);
    put_number(out, 2, by[1]);
    close_message(out, grouping);
}

static void add_palette(drawing *from, geometry *shape, output *out) {
    static const uint8_t depths[] = {4, 1, 2, 8, 4, 16};
    static uint8_t values[MOST_TABLE];
    uint64_t tables_by[2], scales_by[2];
    bool has_perm, halves = draw(from) % 2, has_scales = draw(from) % 3 == 2, half_scales = draw(from) % 2;
    draw_order(from, shape, &has_perm);
    draw_codes(from, shape, true);
    shape->depth = PICK(from, depths);
    shape->split = draw(from) % 3 == 2;
    uint64_t range = (1u << shape->depth) + shape->split, most = MOST_TABLE / shape->vector / (halves ? 2 : 4);
    range = range < most ? range : most;
    uint64_t entries = draw(from) % 2 ? range : 1 + draw_below(from, range);
    uint64_t tables = draw_grouping(from, shape, most / entries, tables_by);
    uint64_t background = shape->split ? draw_below(from, entries) : 0;
    uint64_t scales = draw_grouping(from, shape, MOST_TABLE / 4, scales_by);

    add_codes(from, shape, out, background, has_perm);
    put_number(out, 2, entries);
    put_number(out, 3, halves ? 1 : 2);
    draw_values(from, values, (size_t)(tables * entries * shape->vector), halves, false);
    add_slice(from, out, 4, values, (size_t)(tables * entries * shape->vector) * (halves ? 2 : 4));
    put_grouping(out, 5, tables_by);
    if (has_scales) {
        draw_values(from, values, (size_t)scales, half_scales, true);
        add_slice(from, out, 6, values, (size_t)scales * (half_scales ? 2 : 4));
        put_grouping(out, 7, scales_by);
        put_number(out, 8, half_scales ? 1 : 2);
    }
}

static void add_affine(drawing *from, geometry *shape, output *out) {
    static const uint8_t depths[] = {8, 4, 16};
    static uint8_t values[MOST_TABLE];
    uint64_t by[2];
    bool has_perm, has_zeros = draw(from) % 2;
    draw_order(from, shape, &has_perm);
    draw_codes(from, shape, false);
    shape->depth = PICK(from, depths);
    uint64_t groups = draw_grouping(from, shape, MOST_TABLE / 4, by);
    add_codes(from, shape, out, 0, has_perm);
    draw_values(from, values, (size_t)groups, false, true);
    add_slice(from, out, 2, values, 4 * (size_t)groups);
    if (has_zeros) {
        size_t size = (size_t)groups * (shape->depth == 16 ? 2 : 1);
        draw_raw(from, values, size);
        add_slice(from, out, 3, values, size);
    }
    put_grouping(out, 4, by);
}

static void add_dense(drawing *from, const geometry *shape, uint32_t dtype, output *out) {
    static const uint8_t stored_as[] = {1, 10, 16};
    static uint8_t raw[MOST_ELEMENTS * 16];
    uint32_t stored = PICK(from, stored_as);
    stored = dtype == 1 ? stored : dtype;
    uint64_t bits = reference_bits(stored), chunk = 64 * (1 + draw_below(from, 40));
    bool planes = draw(from) % 2 && bits >= 16;
    size_t size = (size_t)(shape->elements * bits + 7) / 8;
    draw_raw(from, raw, size);
    put_number(out, 1, stored);
    if (size <= 4096 && draw(from) % 2) {
        add_slice(from, out, 5, raw, size);
    } else if (size > 0) {
        chunk = shape->elements / chunk > 20 ? 1024 : chunk;
        put_number(out, 2, chunk);
        put_number(out, 3, from->bundle.payload_count);
        put_number(out, 4, planes);
        for (uint64_t first = 0; first < shape->elements; first += chunk) {
            uint64_t count = chunk < shape->elements - first ? chunk : shape->elements - first;
            add_bytes(from, raw + first * bits / 8, (size_t)(count * bits + 7) / 8);
        }
    }
}

static void add_tensor(drawing *from, char name) {
    static const uint8_t real[] = {1, 10, 1};
    output *out = &from->bundle.rest;
    geometry shape = {.rank = 0};
    uint32_t encoding = 5 + draw(from) % 5 / 2; /* 5 dense, 6 palette, 7 affine */
    uint32_t dtype = PICK(from, real);
    draw_dims(from, &shape);
    if (encoding == 5) {
        dtype = 1 + draw(from) % 26;
        dtype = dtype == 8 ? 1 : dtype;
    }
    size_t tensor = open_message(out, 16);
    put_text(out, 1, &name, 1);
    put_number(out, 2, dtype);
    put_packed(out, 3, shape.dims, shape.rank);
    size_t message = open_message(out, encoding);
    if (encoding == 5) {
        add_dense(from, &shape, dtype, out);
    } else if (encoding == 6) {
        add_palette(from, &shape, out);
    } else {
        add_affine(from, &shape, out);
    }
    close_message(out, message);
    close_message(out, tensor);
}

/* One bit of some stored byte is turned; its checksum knows. */
static void damage(drawing *from) {
    if (draw(from) % 8 == 7 && from->stored.size > 0) {
        from->stored.data[draw_below(from, from->stored.size)] ^= (uint8_t)(1u << draw(from) % 8);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static uint8_t head[16], rest[4096], stored[1 << 18];
    drawing from = {.at = data, .end = data + size, .state = size, .stored = {stored, 0, sizeof stored, false}};
    from.bundle.head = (output){head, 0, sizeof head, false};
    from.bundle.rest = (output){rest, 0, sizeof rest, false};
    put_number(&from.bundle.head, 1, 1);
    put_number(&from.bundle.head, 2, 0);
    uint32_t tensors = 1 + draw(&from) % 3 / 2;
    for (uint32_t i = 0; i < tensors; i++) {
        add_tensor(&from, (char)('a' + i));
    }
    damage(&from);
    if (!from.stored.full && !from.bundle.rest.full) {
        mm_limits limits = exercise_small_limits();
        size_t made;
        uint8_t *file = make_file(&from.bundle, &made);
        exercise(file, made, &limits);
        free(file);
    }
    return 0;
}
