/*
 * Fully connected layers from packed weights. Below, M is the matrix of codes (or, of a dense tensor, W itself), whose
 * rows are W's rows or its columns. So y is, over M's rows, either their dot products with x, or the sum of the rows
 * times the values of x.
 */
#ifndef MM_FC_H
#define MM_FC_H

#include "kernels/kernels.h"
#include "place.h"

/* Columns that are summed up in binary32 at a time: so few that errors stay far below 1e-5 sum |w x|. The pieces' sums
 * are added in binary64. A multiple of each group of columns of the paired order. */
#define MM_FC_PIECE 2048u

/* Rows that are worked on side by side. */
#define MM_FC_TILE 16u

/* How a vector in W's order of rows, or of columns, stands in M's. */
typedef struct mm_order {
    mm_axes axes; /* steps in values of the vector */
    uint64_t count;
    bool natural; /* it stands in the same order */
} mm_order;

/* How M stands in W. */
typedef struct mm_orientation {
    mm_order rows, columns; /* of M */
    bool rows_are_rows;     /* M's rows are W's rows, else W's columns */
} mm_orientation;

/* false: M's rows are neither. The tensor has elements. */
bool mm_orient(const mm_tensor *tensor, mm_orientation *orientation);

/* From W's order to M's. */
void mm_gather(const mm_order *order, const float *from, float *out);

/* From M's order to W's, with bias, which may be NULL. Where the order is natural, from may be y. */
void mm_scatter(const mm_order *order, const float *from, const float *bias, float *y);

/* mm_run_at for codes of single values, but that a run goes on behind a segment where its table and scale do. */
mm_run mm_stretch_at(const mm_tensor *tensor, uint64_t row, uint64_t column, uint64_t end);

/* Whether all of these runs begin at columns that are multiples of unit. */
bool mm_stretches_begin_at(const mm_tensor *tensor, uint64_t unit);

/* The rows of M times values of x, summed up for each column of M. */
typedef struct mm_sums {
    float *recent;  /* of some rows */
    double *totals; /* of the rows before */
    uint64_t count; /* columns */
    uint32_t rows;  /* in recent */
} mm_sums;

uint64_t mm_sums_scratch(uint64_t count);
bool mm_start_sums(uint64_t count, mm_arena *scratch, mm_sums *sums); /* false: the scratch is too small */
void mm_end_row(mm_sums *sums);                                       /* a row was added to `recent` */
void mm_finish_sums(mm_sums *sums);                                   /* all is in `recent` */

/* One call on a matrix of codes. */
typedef struct mm_layer {
    const mm_tensor *tensor;
    const mm_kernels *kernels;
    mm_parameters parameters;
    const float *x;        /* in M's order */
    float *y;              /* dot products, in M's order */
    const float *paired;   /* mm_fc_codes: x in the kernels' order */
    const float *products; /* mm_fc_vectors: of each code's part of x with each entry */
    size_t products_each;  /*                for how many entries */
    mm_sums sums;          /* mm_fc_sum */
} mm_layer;

/* A way to compute with the blocks of a matrix. NULL: serves all; takes none; nothing to prepare. */
typedef struct mm_fc_method {
    bool (*serves)(const mm_tensor *tensor, const mm_parameters *parameters); /* parameters NULL: not known yet */
    uint64_t (*scratch)(const mm_tensor *tensor);
    bool (*prepare)(mm_layer *layer, mm_arena *scratch); /* false: the scratch is too small */
    void (*use_block)(mm_layer *layer, const mm_block *block);
} mm_fc_method;

/* Dot products, the best first; the last serves all. */
extern const mm_fc_method mm_fc_codes;   /* plain codes of single values, depth up to 8; affine also 16 */
extern const mm_fc_method mm_fc_split;   /* split streams of single values around 0 */
extern const mm_fc_method mm_fc_vectors; /* plain codes of sub-vectors */
extern const mm_fc_method mm_fc_decoded; /* a row is decoded a piece at a time */

/* The sum of rows, for all. */
extern const mm_fc_method mm_fc_sum;

/* Dense tensors; x and y in W's order. */
uint64_t mm_fc_dense_scratch(const mm_bundle *bundle, const mm_tensor *tensor);
mm_status mm_fc_dense(const mm_bundle *bundle, const mm_tensor *tensor, bool transposed, const float *x,
                      const float *bias, float *y, mm_arena scratch);

#endif
