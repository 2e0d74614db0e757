/* From the matrix's order to the tensor's own: spec/tensors.md §3.1. */
#ifndef MM_PLACE_H
#define MM_PLACE_H

#include "values.h"

/* Axes of the rows, or of the columns, as few as they can be told with: neighbours whose steps fit are one. */
typedef struct mm_axes {
    uint32_t count;
    uint64_t size[MM_MAX_RANK]; /* the last one counts fastest */
    uint64_t step[MM_MAX_RANK]; /* in elements of the tensor */
} mm_axes;

/* Those of the matrix's rows, and of its columns. */
void mm_axes_of(const mm_matrix *matrix, mm_axes *rows, mm_axes *columns);

#define MM_TILE_VALUES 4096u

/* The elements start .. start + count - 1 of a tensor, which are wanted in out as values of type. */
typedef struct mm_target {
    const mm_tensor *tensor;
    uint64_t start, count;
    uint32_t type;
    uint8_t *out;
    uint8_t *tile; /* MM_TILE_VALUES values */
    mm_axes rows, columns;
    uint64_t first_row, end_row; /* of the matrix: outside of them nothing is wanted */
    uint64_t first_column, end_column;
} mm_target;

/* In the tensor's own order: of elements; in the matrix's: of rows. The tile is the caller's to set. */
void mm_aim(mm_target *target, const mm_tensor *tensor, uint32_t type, uint64_t start, uint64_t count, void *out);
void mm_aim_at_rows(mm_target *target, const mm_tensor *tensor, uint32_t type, uint64_t first, uint64_t count,
                    void *out);

/* Decode what is wanted of a block. */
void mm_place_block(const mm_target *target, const mm_parameters *parameters, const mm_block *block, mm_lookup *lookup);

#endif
