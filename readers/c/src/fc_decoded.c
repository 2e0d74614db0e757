/*
 * Rows that are decoded a piece at a time: dot products of what no kernel computes with as it is packed; and y as a sum
 * of M's rows, each times a value of x.
 */
#include "fc.h"

#include "bytes.h"

static void use_rows(mm_layer *layer, const mm_block *block, bool dot) {
    const mm_matrix *matrix = &layer->tensor->matrix;
    mm_lookup lookup;
    lookup.table = lookup.scale = MM_NO_LOOKUP;
    uint64_t other = 0;
    for (uint64_t i = 0; i < block->rows; i++) {
        const uint64_t number = block->first_row + i;
        mm_row row = mm_row_at(layer->tensor, block, i, other);
        double sum = 0;
        if (!dot && layer->x[number] == 0) { /* as behind a ReLU: only the row's other codes are counted */
            other += matrix->split ? mm_ones_before(matrix, row.codes, 1) : 0;
            continue;
        }
        for (uint64_t first = 0; first < matrix->columns; first += MM_FC_PIECE) {
            float values[MM_FC_PIECE];
            const uint64_t count = mm_min(MM_FC_PIECE, matrix->columns - first);
            mm_decode_columns(layer->tensor, &layer->parameters, &row, &lookup, first, count, MM_FLOAT, values);
            if (dot) {
                sum += (double)layer->kernels->dot_f32(values, layer->x + first, (size_t)count);
            } else {
                layer->kernels->axpy_f32(layer->x[number], values, (size_t)count, layer->sums.recent + first);
            }
        }
        other = row.other;
        if (dot) {
            layer->y[number] = (float)sum;
        } else {
            mm_end_row(&layer->sums);
        }
    }
}

static void use_dot(mm_layer *layer, const mm_block *block) { use_rows(layer, block, true); }

const mm_fc_method mm_fc_decoded = {.use_block = use_dot};

static void use_sum(mm_layer *layer, const mm_block *block) { use_rows(layer, block, false); }

static uint64_t scratch_of_sum(const mm_tensor *tensor) { return mm_sums_scratch(tensor->matrix.columns); }

static bool prepare_sum(mm_layer *layer, mm_arena *scratch) {
    return mm_start_sums(layer->tensor->matrix.columns, scratch, &layer->sums);
}

const mm_fc_method mm_fc_sum = {.scratch = scratch_of_sum, .prepare = prepare_sum, .use_block = use_sum};
