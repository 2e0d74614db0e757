#include "place.h"

#include "bytes.h"
#include "kernels/kernels.h"

enum { TALLEST_TILE = 32 };

static void make_axes(const uint64_t *size, const uint64_t *step, uint32_t count, mm_axes *axes) {
    axes->count = 0;
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t last = axes->count - 1;
        if (size[i] == 1) {
            continue;
        }
        if (axes->count > 0 && axes->step[last] == size[i] * step[i]) {
            axes->size[last] *= size[i];
            axes->step[last] = step[i];
        } else {
            axes->size[axes->count] = size[i];
            axes->step[axes->count++] = step[i];
        }
    }
}

void mm_axes_of(const mm_matrix *matrix, mm_axes *rows, mm_axes *columns) {
    const uint32_t first = matrix->row_axes;
    make_axes(matrix->view, matrix->step, first, rows);
    make_axes(matrix->view + first, matrix->step + first, matrix->axes - first, columns);
}

/* Elements from the first one to that with this index. */
static uint64_t position(const mm_axes *axes, uint64_t index) {
    uint64_t at = 0;
    for (uint32_t i = axes->count; i-- > 0;) {
        at += index % axes->size[i] * axes->step[i];
        index /= axes->size[i];
    }
    return at;
}

/* Where one axis is all of them, and the outermost of the tensor, only a part of its indices has wanted elements. */
static void narrow_down(const mm_axes *axes, const mm_target *target, uint64_t *first, uint64_t *end) {
    *first = 0;
    *end = 1;
    for (uint32_t i = 0; i < axes->count; i++) {
        *end *= axes->size[i];
    }
    if (axes->count == 1 && axes->size[0] * axes->step[0] == target->tensor->elements) {
        *first = target->start / axes->step[0];
        *end = mm_ceil_div(target->start + target->count, axes->step[0]);
    }
}

/* The target's axes are known. */
static void aim(mm_target *target, const mm_tensor *tensor, uint32_t type, uint64_t start, uint64_t count, void *out) {
    target->tensor = tensor;
    target->start = start;
    target->count = count;
    target->type = type;
    target->out = out;
    target->first_row = target->end_row = target->first_column = target->end_column = 0;
    if (count == 0) {
        return;
    }
    narrow_down(&target->rows, target, &target->first_row, &target->end_row);
    narrow_down(&target->columns, target, &target->first_column, &target->end_column);
    if (tensor->matrix.split) { /* its codes follow each other */
        target->first_column = 0;
    }
}

void mm_aim(mm_target *target, const mm_tensor *tensor, uint32_t type, uint64_t start, uint64_t count, void *out) {
    mm_axes_of(&tensor->matrix, &target->rows, &target->columns);
    aim(target, tensor, type, start, count, out);
}

void mm_aim_at_rows(mm_target *target, const mm_tensor *tensor, uint32_t type, uint64_t first, uint64_t count,
                    void *out) {
    const mm_matrix *matrix = &tensor->matrix;
    const uint64_t one = 1;
    const uint64_t columns = matrix->columns;
    make_axes(&matrix->rows, &columns, 1, &target->rows);
    make_axes(&columns, &one, 1, &target->columns);
    aim(target, tensor, type, first * columns, count * columns, out);
}

static size_t size_of(uint32_t type) { return type == MM_FLOAT16 ? sizeof(uint16_t) : sizeof(float); }

/* Rows of a block that are decoded side by side: their first elements are neighbours in the tensor. */
typedef struct row_tile {
    uint32_t height;
    uint64_t start; /* the first row's first element */
    mm_row rows[TALLEST_TILE];
} row_tile;

/*
 * Bring count values, `stride` values apart, to every step-th element from that numbered first on, those of them that
 * are wanted. Elements are counted from the first wanted one on, modulo 2^32: they are below 2^31, so that what stands
 * before it is as much outside as what stands behind the last.
 */
static inline void move(const mm_target *target, uint32_t first, uint32_t step, const uint8_t *values, size_t stride,
                        uint32_t count, size_t size) {
    uint8_t *out = target->out;
    const uint64_t end = target->count;
    if (first + (uint64_t)(count - 1) * step < end) { /* all are: the common case */
        for (uint32_t i = 0; i < count; i++) {
            memcpy(out + ((size_t)first + (size_t)i * step) * size, values + i * stride * size, size);
        }
        return;
    }
    for (uint32_t i = 0; i < count; i++, first += step) {
        if (first < end) {
            memcpy(out + (size_t)first * size, values + i * stride * size, size);
        }
    }
}

/* A tile's columns, along the innermost axis: down each one where rows are many, else along the row. */
static inline void move_columns(const mm_target *target, const row_tile *tile, uint64_t column, uint32_t width,
                                size_t size) {
    const mm_axes *columns = &target->columns;
    const uint32_t inner = columns->count - 1;
    const uint64_t length = columns->count == 0 ? 1 : columns->size[inner];
    const uint32_t step = columns->count == 0 ? 0 : (uint32_t)columns->step[inner];
    for (uint32_t c = 0; c < width;) {
        uint32_t first = (uint32_t)(tile->start - target->start + position(columns, column + c));
        const uint32_t end = (uint32_t)mm_min(width, c + (length - (column + c) % length));
        if (tile->height == 1) {
            move(target, first, step, target->tile + c * size, 1, end - c, size);
            c = end;
        }
        for (; c < end; c++, first += step) {
            move(target, first, 1, target->tile + c * size, width, tile->height, size);
        }
    }
}

/* Decode a tile's rows, some columns at a time, and bring them to their places. */
static void place_tile(const mm_target *target, const mm_parameters *parameters, mm_lookup *lookup, row_tile *tile) {
    const size_t size = size_of(target->type);
    if (tile->height == 0) {
        return;
    }
    uint32_t width = MM_TILE_VALUES / tile->height;
    for (uint64_t column = target->first_column; column < target->end_column; column += width) {
        width = (uint32_t)mm_min(width, target->end_column - column);
        for (uint32_t i = 0; i < tile->height; i++) {
            mm_decode_columns(target->tensor, parameters, &tile->rows[i], lookup, column, width, target->type,
                              target->tile + (size_t)i * width * size);
        }
        if (size == sizeof(uint16_t)) {
            move_columns(target, tile, column, width, sizeof(uint16_t));
        } else {
            move_columns(target, tile, column, width, sizeof(float));
        }
    }
    tile->height = 0;
}

/* Whether a row that starts at this element may join the tile: below it, and within the same line of the cache. */
static bool joins(const mm_target *target, const row_tile *tile, uint64_t start) {
    const uintptr_t address = (uintptr_t)target->out + (uintptr_t)(start - target->start) * size_of(target->type);
    return tile->height > 0 && tile->height < TALLEST_TILE && start == tile->start + tile->height &&
           address % MM_ALIGNMENT != 0;
}

/* A row whose columns lie side by side in the tensor, all of them wanted, needs no tile. */
static bool place_whole_row(const mm_target *target, const mm_parameters *parameters, mm_lookup *lookup, mm_row *row,
                            uint64_t start) {
    const mm_matrix *matrix = &target->tensor->matrix;
    const bool together = target->columns.count == 0 || (target->columns.count == 1 && target->columns.step[0] == 1);
    if (!together || start < target->start || start + matrix->columns > target->start + target->count) {
        return false;
    }
    mm_decode_columns(target->tensor, parameters, row, lookup, 0, matrix->columns, target->type,
                      target->out + (start - target->start) * size_of(target->type));
    return true;
}

void mm_place_block(const mm_target *target, const mm_parameters *parameters, const mm_block *block,
                    mm_lookup *lookup) {
    const mm_matrix *matrix = &target->tensor->matrix;
    const uint64_t first = target->first_row > block->first_row ? target->first_row - block->first_row : 0;
    const uint64_t end = mm_min(block->rows, target->end_row - block->first_row);
    uint64_t other = matrix->split ? mm_ones_before(matrix, block->plane, first) : 0;
    row_tile tile = {.height = 0};
    for (uint64_t i = first; i < end; i++) {
        const uint64_t start = position(&target->rows, block->first_row + i);
        mm_row row = mm_row_at(target->tensor, block, i, other);
        if (matrix->split) {
            other += mm_choose_kernels()->count_ones(row.codes, (size_t)matrix->codes_per_row);
        }
        if (place_whole_row(target, parameters, lookup, &row, start)) {
            continue;
        }
        if (!joins(target, &tile, start)) {
            place_tile(target, parameters, lookup, &tile);
            tile.start = start;
        }
        tile.rows[tile.height++] = row;
    }
    place_tile(target, parameters, lookup, &tile);
}
