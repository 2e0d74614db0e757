#include "values.h"

#include "bytes.h"
#include "kernels/kernels.h"

enum { PIECE = 256 }; /* values that are worked on at a time */

/* Number of the group of a row and a sub-vector (tensors.md §3.2). 32 bits are faster to divide, and enough for what
 * counts rows, columns and groups. */
static uint32_t group_at(const mm_grouping *by, uint64_t row, uint32_t subvector) {
    return (uint32_t)row / by->row_group * by->across + subvector / by->col_group;
}

/* Sub-vector with which the next group begins. */
static uint64_t group_end(const mm_grouping *by, uint32_t subvector) {
    return (uint64_t)(subvector / by->col_group + 1) * by->col_group;
}

/* by_table: all columns of the run share their table. */
static mm_run run_at(const mm_tensor *tensor, uint64_t row, uint64_t column, uint64_t end, bool by_table) {
    const mm_matrix *matrix = &tensor->matrix;
    const uint32_t segment = (uint32_t)column / (uint32_t)matrix->segment;
    const uint64_t start = segment * matrix->segment;
    const uint32_t place = (uint32_t)(column - start);
    const uint32_t subvector = place / matrix->vector;
    uint64_t last = group_end(&tensor->scales_by, subvector);
    if (by_table) {
        last = mm_min(last, group_end(&tensor->tables_by, subvector));
    }
    const uint64_t stop = mm_min(mm_min(end, start + matrix->segment), start + last * matrix->vector);
    return (mm_run){
        .first = column,
        .count = stop - column,
        .code = segment * matrix->subvectors + subvector,
        .element = place % matrix->vector,
        .table = group_at(&tensor->tables_by, row, subvector),
        .scale = group_at(&tensor->scales_by, row, subvector),
    };
}

mm_run mm_run_at(const mm_tensor *tensor, uint64_t row, uint64_t column, uint64_t end) {
    return run_at(tensor, row, column, end, true);
}

/* What leaves: the tensor's own values, as type says. */
static void finish(const mm_tensor *tensor, uint32_t type, const float *values, uint64_t count, void *out) {
    const mm_kernels *kernels = mm_choose_kernels();
    uint16_t halves[PIECE];
    if (type == MM_FLOAT16) {
        kernels->narrow(values, (size_t)count, out);
    } else if (tensor->dtype == MM_FLOAT16) { /* a half is what the tensor holds (tensors.md §8) */
        kernels->narrow(values, (size_t)count, halves);
        kernels->widen((const uint8_t *)halves, (size_t)count, out);
    } else if (out != values) {
        memcpy(out, values, (size_t)count * sizeof *values);
    }
}

/* How a tensor's values are made. */
typedef enum way {
    SCALED_LOOKUP, /* a table that holds the values themselves */
    LOOKUP,        /* a table of entries, which are then scaled */
    ARITHMETIC,    /* affine */
    GATHERING      /* each entry from where it is stored */
} way;

/* Values in a row that meet the same group before another comes; rows counted where they come one after the other. */
static uint64_t served_by(const mm_matrix *matrix, const mm_grouping *by) {
    return by->across > 1 ? by->col_group : by->row_group * matrix->columns;
}

/* A lookup has to serve more values than it takes to make it; one with a scale in it is as much work as scaling some
 * ten times as many values. */
static way choose_way(const mm_tensor *tensor) {
    const mm_matrix *matrix = &tensor->matrix;
    if (tensor->encoding == MM_AFFINE) {
        return ARITHMETIC;
    }
    if (matrix->vector > 1 || matrix->depth > 8 || served_by(matrix, &tensor->tables_by) < 1u << matrix->depth) {
        return GATHERING;
    }
    const bool often = tensor->has_scales && served_by(matrix, &tensor->scales_by) < 16u << matrix->depth;
    return often ? LOOKUP : SCALED_LOOKUP;
}

/* The row's next count codes of a split stream: all are the background but the ones of the plane. */
static inline void spread(mm_row *row, uint64_t count, const void *background, const void *table, uint8_t *out,
                          size_t size) {
    const uint32_t depth = row->matrix->depth;
    for (uint64_t i = 0; i < count; i++) {
        memcpy(out + i * size, background, size);
    }
    for (uint64_t start = 0; start < count; start += 32) {
        for (uint32_t bits = mm_plane_bits(row->codes, row->n + start, count - start); bits != 0;) {
            uint32_t i = mm_leading_zeros(bits);
            bits &= ~(0x80000000u >> i);
            uint32_t code = mm_other_code(row->block, depth, row->other++);
            memcpy(out + (start + i) * size, (const uint8_t *)table + code * size, size);
        }
    }
    row->n += count;
}

static void look_up(mm_row *row, const mm_run *run, const mm_lookup *lookup, uint32_t type, void *out) {
    const mm_kernels *kernels = mm_choose_kernels();
    const uint32_t k = mm_depth_index(row->matrix->depth);
    const bool halves = type == MM_FLOAT16;
    if (row->matrix->split && halves) {
        spread(row, run->count, &lookup->background_f16, lookup->f16, out, sizeof *lookup->f16);
    } else if (row->matrix->split) {
        spread(row, run->count, &lookup->background_f32, lookup->f32, out, sizeof *lookup->f32);
    } else if (halves) {
        kernels->palette_f16[k](row->codes, (size_t)run->code, (size_t)run->count, lookup->f16, out);
    } else {
        kernels->palette_f32[k](row->codes, (size_t)run->code, (size_t)run->count, lookup->f32, out);
    }
}

/* Entries of 2 to 16 bytes are the common ones. */
static inline void copy_entry(uint8_t *out, const uint8_t *entry, size_t size) {
    switch (size) {
    case 2: memcpy(out, entry, 2); break;
    case 4: memcpy(out, entry, 4); break;
    case 8: memcpy(out, entry, 8); break;
    case 16: memcpy(out, entry, 16); break;
    default: memcpy(out, entry, size); break;
    }
}

/* The codes of a run's columns, count of them: of the first and the last one perhaps some elements alone. */
static void take_codes(mm_row *row, const mm_run *run, uint64_t count, uint32_t *codes) {
    uint64_t known = 0;
    if (!row->matrix->split) {
        row->n = run->code;
    } else if (run->element > 0) { /* its code is taken already */
        codes[known++] = row->last;
    }
    mm_next_codes(row, count - known, codes + known);
}

/* Entries of a palette of any kind, the run going on where the table changes: gathered as stored, widened together. */
static void gather(const mm_tensor *tensor, const mm_parameters *parameters, mm_row *row, const mm_run *run,
                   float *values) {
    const mm_matrix *matrix = &tensor->matrix;
    const size_t width = tensor->table_type == MM_TYPE_F16 ? 2 : 4;
    const size_t entry_size = matrix->vector * width;
    const uint64_t count = mm_ceil_div(run->element + run->count, matrix->vector);
    uint32_t codes[PIECE + 1];
    uint8_t raw[PIECE * sizeof(float)];
    take_codes(row, run, count, codes);
    const uint8_t *table = parameters->tables + (uint64_t)run->table * tensor->entries * entry_size;
    const uint32_t group = tensor->tables_by.col_group;
    uint32_t left_of_group = group - (uint32_t)run->code % (uint32_t)matrix->subvectors % group;
    size_t skip = run->element * width;
    size_t left = (size_t)run->count * width;
    uint8_t *at = raw;
    for (uint64_t i = 0; i < count; i++) {
        const size_t size = (size_t)mm_min(entry_size - skip, left);
        if (codes[i] >= tensor->entries) {
            memset(at, 0, size);
        } else {
            copy_entry(at, table + codes[i] * entry_size + skip, size);
        }
        at += size;
        left -= size;
        skip = 0;
        if (--left_of_group == 0) {
            table += tensor->entries * entry_size;
            left_of_group = group;
        }
    }
    mm_load_floats(tensor->table_type, raw, run->count, values);
}

static void compute(const mm_tensor *tensor, const mm_parameters *parameters, const mm_row *row, const mm_run *run,
                    float *values) {
    const mm_kernels *kernels = mm_choose_kernels();
    const int32_t zero = mm_zero_at(tensor, parameters, run->scale);
    const float scale = mm_scale_at(tensor, parameters, run->scale);
    if (tensor->matrix.depth == 16) {
        kernels->affine16_f32(row->codes + run->code, row->low + run->code, (size_t)run->count, zero, scale, values);
    } else {
        const int k = tensor->matrix.depth == 4 ? 0 : 1;
        kernels->affine_f32[k](row->codes, (size_t)run->code, (size_t)run->count, zero, scale, values);
    }
}

/* A piece of a run, by any way but that of a scaled lookup. */
static void decode_piece(const mm_tensor *tensor, const mm_parameters *parameters, mm_row *row, mm_lookup *lookup,
                         const mm_run *run, way chosen, uint32_t type, void *out) {
    float piece[PIECE];
    float *values = type == MM_FLOAT && tensor->dtype == MM_FLOAT ? out : piece;
    if (chosen == ARITHMETIC) {
        compute(tensor, parameters, row, run, values);
    } else if (chosen == LOOKUP) {
        mm_prepare_lookup(tensor, parameters, run->table, MM_UNSCALED, lookup);
        look_up(row, run, lookup, MM_FLOAT, values);
    } else {
        gather(tensor, parameters, row, run, values);
    }
    if (chosen != ARITHMETIC && tensor->has_scales) {
        const float scale = mm_scale_at(tensor, parameters, run->scale);
        mm_choose_kernels()->scale_floats(values, (size_t)run->count, scale, values);
    }
    finish(tensor, type, values, run->count, out);
}

void mm_decode_columns(const mm_tensor *tensor, const mm_parameters *parameters, mm_row *row, mm_lookup *lookup,
                       uint64_t first, uint64_t count, uint32_t type, void *out) {
    const uint64_t end = first + count;
    const uint64_t matrix_row = row->block->first_row + row->row;
    const size_t size = type == MM_FLOAT16 ? sizeof(uint16_t) : sizeof(float);
    const way chosen = choose_way(tensor);
    uint8_t *at = out;
    while (first < end) {
        mm_run run = run_at(tensor, matrix_row, first, end, chosen != GATHERING);
        if (chosen == SCALED_LOOKUP) {
            mm_prepare_lookup(tensor, parameters, run.table, run.scale, lookup);
            look_up(row, &run, lookup, type, at);
        } else {
            run.count = mm_min(run.count, PIECE);
            decode_piece(tensor, parameters, row, lookup, &run, chosen, type, at);
        }
        at += run.count * size;
        first += run.count;
    }
}
