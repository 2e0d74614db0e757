/* From codes to values: spec/tensors.md §5, §6 and §8. */
#ifndef MM_VALUES_H
#define MM_VALUES_H

#include "codes.h"

/* The tables, scales and zero points of a tensor, raw, as the bundle stores them. */
typedef struct mm_parameters {
    const uint8_t *tables; /* [table][entry][element], table_type; NULL for affine */
    const uint8_t *scales; /* scale_type; NULL where a palette has none */
    const uint8_t *zeros;  /* NULL: 2^(depth - 1) everywhere */
} mm_parameters;

/* The slices that they are, in this order; NULL where the tensor, which has codes, has none. */
enum { MM_PARAMETERS = 3 };
void mm_slices_of(const mm_tensor *tensor, const mm_slice *slices[MM_PARAMETERS]);

/* What mm_read_parameters takes of the scratch, the codec's part included. */
uint64_t mm_parameters_scratch(const mm_bundle *bundle, const mm_tensor *tensor);

/* The codecs of their payloads (check 13). */
mm_status mm_check_parameters(const mm_bundle *bundle, const mm_tensor *tensor);

/* Pointers into the file, or into pieces taken of scratch. */
mm_status mm_read_parameters(const mm_bundle *bundle, const mm_tensor *tensor, mm_arena *scratch,
                             mm_parameters *parameters);

/* One slice of them, with checks 13 to 15. */
mm_status mm_read_slice(const mm_bundle *bundle, mm_slice slice, mm_arena *scratch, const uint8_t **data);

/* Numbers of table_type or scale_type as binary32. */
void mm_load_floats(uint32_t type, const uint8_t *bytes, uint64_t count, float *out);

/* Scale or zero point number index, which is below scales_by.count. */
float mm_scale_at(const mm_tensor *tensor, const mm_parameters *parameters, uint64_t index);
int32_t mm_zero_at(const mm_tensor *tensor, const mm_parameters *parameters, uint64_t index);

/*
 * One table (or one zero point and scale) ready for lookups. It is made anew when a row comes to another one.
 *
 * The index is the code as it is stored: of a split stream the renumbered one, while the background has a place of its
 * own. In a tensor of FLOAT16 the values are rounded to it, in f32 as well.
 */
#define MM_LOOKUP_ENTRIES 256u
#define MM_NO_LOOKUP      UINT32_MAX
#define MM_UNSCALED       (UINT32_MAX - 1) /* for scale: entries as they stand, neither scaled nor rounded */
typedef struct mm_lookup {
    uint32_t table, scale; /* which ones it was made of; MM_NO_LOOKUP: none yet */
    bool halves;           /* every value is a binary16 value: f16 holds the same values as f32 */
    uint16_t background_f16;
    float background_f32;
    float f32[MM_LOOKUP_ENTRIES];    /* scaled; +0.0 (scaled) from entry E on, up to 2^depth, or up to 16 */
    uint16_t f16[MM_LOOKUP_ENTRIES]; /* f32 rounded once: MM_FLOAT16 output */
} mm_lookup;

/* Make it of this table and scale, unless it is made of them. For palettes of d = 1, and affine, at depths up to 8. */
void mm_prepare_lookup(const mm_tensor *tensor, const mm_parameters *parameters, uint32_t table, uint32_t scale,
                       mm_lookup *lookup);

/* A stretch of a row's columns that lie in one segment and share their table and their scale. */
typedef struct mm_run {
    uint64_t first;        /* column */
    uint64_t count;        /* columns */
    uint64_t code;         /* number n of the code of its first column */
    uint32_t element;      /* j of its first column within that code's sub-vector */
    uint32_t table, scale; /* 0 where the tensor has none */
} mm_run;

/* The run that begins at this column of this row of the matrix, and ends at `end` at the latest. */
mm_run mm_run_at(const mm_tensor *tensor, uint64_t row, uint64_t column, uint64_t end);

/*
 * Values of columns first .. first + count - 1 of a row of a block, of type MM_FLOAT or MM_FLOAT16.
 * In a split stream columns are taken in ascending order: first is the column behind the last call's, 0 on a new row.
 */
void mm_decode_columns(const mm_tensor *tensor, const mm_parameters *parameters, mm_row *row, mm_lookup *lookup,
                       uint64_t first, uint64_t count, uint32_t type, void *out);

#endif
