/*
 * Dot products with codes of sub-vectors, which is Q-CNN's way: the products of each part of x with each entry of its
 * table come first, once for all rows; then a row takes one addition for each of its codes.
 */
#include "fc.h"

#include "bytes.h"

enum {
    MOST_PRODUCTS = 1 << 20, /* 4 MiB of them */
    PIECE = 256,             /* codes whose products are summed up in binary32 at a time */
    VALUES = 1024            /* of a table, that are loaded at a time; at least one entry */
};

/* One entry of zeros more, for the codes that no entry has (tensors.md §5.3), unless there is no such code. */
static size_t entries_with_zero(const mm_tensor *tensor) {
    return tensor->entries < 1u << tensor->matrix.depth ? tensor->entries + 1 : tensor->entries;
}

static bool serves(const mm_tensor *tensor, const mm_parameters *parameters) {
    const mm_matrix *matrix = &tensor->matrix;
    (void)parameters;
    if (tensor->encoding != MM_PALETTE || matrix->split || matrix->vector == 1 || matrix->depth > 8) {
        return false;
    }
    const bool scales_last =
        tensor->table_type == MM_TYPE_F16 && tensor->dtype == MM_FLOAT && tensor->scales_by.across == 1;
    const bool as_stored = tensor->table_type == MM_TYPE_F16 || tensor->dtype == MM_FLOAT;
    return (tensor->has_scales ? scales_last : as_stored) && tensor->tables_by.row_group >= matrix->rows &&
           tensor->entries <= matrix->rows && matrix->codes_per_row <= MOST_PRODUCTS / entries_with_zero(tensor);
}

static uint64_t scratch_of(const mm_tensor *tensor) {
    return mm_piece(tensor->matrix.codes_per_row * entries_with_zero(tensor) * sizeof(float));
}

/* Products of some entries, at `values`, with sub-vector s of each segment of x; the last one there may be short. */
static void multiply(const mm_layer *layer, const float *values, size_t count, uint64_t s, float *products) {
    const mm_matrix *matrix = &layer->tensor->matrix;
    const size_t vector = matrix->vector;
    const size_t length = (size_t)mm_min(vector, matrix->segment - s * vector);
    for (uint64_t start = 0; start < matrix->columns; start += matrix->segment) {
        const float *x = layer->x + start + s * vector;
        if (length == vector) {
            layer->kernels->inner_products(values, count, vector, x, products);
        }
        for (size_t i = 0; i < count && length < vector; i++) {
            layer->kernels->inner_products(values + i * vector, 1, length, x, products + i);
        }
        products += matrix->subvectors * layer->products_each;
    }
}

static bool prepare(mm_layer *layer, mm_arena *scratch) {
    const mm_tensor *tensor = layer->tensor;
    const mm_matrix *matrix = &tensor->matrix;
    const size_t size = tensor->table_type == MM_TYPE_F16 ? 2 : 4;
    layer->products_each = entries_with_zero(tensor);
    float *products = mm_take(scratch, matrix->codes_per_row * layer->products_each * sizeof *products);
    if (products == NULL) {
        return false;
    }
    for (uint64_t n = 0; n < matrix->codes_per_row; n++) {
        products[(n + 1) * layer->products_each - 1] = 0;
    }
    for (uint64_t s = 0; s < matrix->subvectors; s++) {
        const uint64_t table = s / tensor->tables_by.col_group;
        const uint32_t at_a_time = VALUES / matrix->vector;
        for (uint32_t entry = 0; entry < tensor->entries; entry += at_a_time) {
            float values[VALUES];
            const uint32_t count = (uint32_t)mm_min(at_a_time, tensor->entries - entry);
            const uint64_t first = (table * tensor->entries + entry) * matrix->vector;
            mm_load_floats(tensor->table_type, layer->parameters.tables + first * size,
                           (uint64_t)count * matrix->vector, values);
            multiply(layer, values, count, s, products + s * layer->products_each + entry);
        }
    }
    layer->products = products;
    return true;
}

/* Sums over codes first .. first + count - 1 of some rows. */
static void sum_piece(const mm_layer *layer, const mm_block *block, uint64_t row, size_t rows, size_t first,
                      size_t count, float *sums) {
    const mm_matrix *matrix = &layer->tensor->matrix;
    const uint8_t *codes = mm_row_at(layer->tensor, block, row, 0).codes;
    const size_t stride = (size_t)mm_code_row_bytes(matrix);
    const float *products = layer->products + first * layer->products_each;
    if (matrix->depth == 8) {
        layer->kernels->sum_products8(codes + first, stride, rows, count, products, layer->products_each, sums);
        return;
    }
    uint8_t unpacked[MM_FC_TILE * PIECE];
    for (size_t i = 0; i < rows; i++) {
        layer->kernels->unpack[mm_depth_index(matrix->depth)](codes + i * stride, first, count, unpacked + i * PIECE);
    }
    layer->kernels->sum_products8(unpacked, PIECE, rows, count, products, layer->products_each, sums);
}

static void use_block(mm_layer *layer, const mm_block *block) {
    const mm_tensor *tensor = layer->tensor;
    const size_t codes = (size_t)tensor->matrix.codes_per_row;
    for (uint64_t row = 0; row < block->rows; row += MM_FC_TILE) {
        const size_t rows = (size_t)mm_min(MM_FC_TILE, block->rows - row);
        double sums[MM_FC_TILE] = {0};
        for (size_t first = 0; first < codes; first += PIECE) {
            float parts[MM_FC_TILE];
            sum_piece(layer, block, row, rows, first, (size_t)mm_min(PIECE, codes - first), parts);
            for (size_t i = 0; i < rows; i++) {
                sums[i] += (double)parts[i];
            }
        }
        for (size_t i = 0; i < rows; i++) {
            const uint64_t at = block->first_row + row + i;
            if (tensor->has_scales) {
                sums[i] *= (double)mm_scale_at(tensor, &layer->parameters, at / tensor->scales_by.row_group);
            }
            layer->y[at] = (float)sums[i];
        }
    }
}

const mm_fc_method mm_fc_vectors = {
    .serves = serves, .scratch = scratch_of, .prepare = prepare, .use_block = use_block};
