/* Dot products with split streams of single values whose background is 0: only the ones of the planes are visited. */
#include "fc.h"

#include "bytes.h"

static bool background_is_zero(const mm_tensor *tensor, const mm_parameters *parameters) {
    const bool halves = tensor->table_type == MM_TYPE_F16;
    for (uint64_t table = 0; table < tensor->tables_by.count; table++) {
        const uint64_t entry = table * tensor->entries + tensor->matrix.background;
        const uint32_t bits = halves ? (uint32_t)mm_load16(parameters->tables + 2 * entry) << 16
                                     : mm_load32(parameters->tables + 4 * entry);
        if (bits << 1 != 0) { /* but for the sign */
            return false;
        }
    }
    return true;
}

static bool serves(const mm_tensor *tensor, const mm_parameters *parameters) {
    const mm_matrix *matrix = &tensor->matrix;
    return tensor->encoding == MM_PALETTE && matrix->split && matrix->vector == 1 && matrix->depth <= 8 &&
           mm_stretches_begin_at(tensor, 8) && (parameters == NULL || background_is_zero(tensor, parameters));
}

static void use_block(mm_layer *layer, const mm_block *block) {
    const mm_matrix *matrix = &layer->tensor->matrix;
    const uint32_t k = mm_depth_index(matrix->depth);
    mm_lookup lookup;
    lookup.table = lookup.scale = MM_NO_LOOKUP;
    uint64_t other = 0;
    for (uint64_t i = 0; i < block->rows; i++) {
        const uint64_t row = block->first_row + i;
        const uint8_t *plane = mm_row_at(layer->tensor, block, i, other).codes;
        double sum = 0;
        for (uint64_t first = 0; first < matrix->columns;) {
            uint8_t codes[MM_FC_PIECE];
            const mm_run run = mm_stretch_at(layer->tensor, row, first, mm_min(matrix->columns, first + MM_FC_PIECE));
            const size_t count = (size_t)run.count;
            const size_t ones = (size_t)layer->kernels->count_ones(plane + first / 8, count);
            layer->kernels->unpack[k](block->codes, (size_t)other, ones, codes);
            mm_prepare_lookup(layer->tensor, &layer->parameters, run.table, run.scale, &lookup);
            sum +=
                (double)layer->kernels->dot_split(plane + first / 8, count, codes, ones, lookup.f32, layer->x + first);
            other += ones;
            first += count;
        }
        layer->y[row] = (float)sum;
    }
}

const mm_fc_method mm_fc_split = {.serves = serves, .use_block = use_block};
