/*
 * Dot products with plain codes of single values. A tile of rows is worked on together; within it, rows that share a
 * table (or a zero point) go to the kernel at once, stretch by stretch.
 *
 * The scale comes last, on a stretch's sum, where that is as good: tables of halves, and differences of codes, are far
 * from what binary32 cannot hold. Otherwise (tables of floats; tensors of FLOAT16, whose values are rounded after they
 * are scaled) it is in the table.
 */
#include "fc.h"

#include "bytes.h"

enum { PAIRED_GROUP = 16 }; /* bytes of codes in a whole group of the kernels' paired order */

static bool scale_comes_last(const mm_tensor *tensor) {
    return tensor->dtype == MM_FLOAT &&
           (tensor->encoding == MM_AFFINE || (tensor->has_scales && tensor->table_type == MM_TYPE_F16));
}

static bool serves(const mm_tensor *tensor, const mm_parameters *parameters) {
    const mm_matrix *matrix = &tensor->matrix;
    const uint32_t unit = matrix->depth < 8 ? PAIRED_GROUP * 8 / matrix->depth : 1;
    const bool kernel = matrix->depth <= 8 || (tensor->encoding == MM_AFFINE && scale_comes_last(tensor));
    (void)parameters;
    return kernel && !matrix->split && matrix->vector == 1 && mm_stretches_begin_at(tensor, unit);
}

static uint64_t scratch_of(const mm_tensor *tensor) { return mm_piece(tensor->matrix.columns * sizeof(float)); }

static bool prepare(mm_layer *layer, mm_arena *scratch) {
    const mm_matrix *matrix = &layer->tensor->matrix;
    if (matrix->depth >= 8) {
        layer->paired = layer->x;
        return true;
    }
    float *paired = mm_take(scratch, matrix->columns * sizeof *paired);
    if (paired != NULL) {
        layer->kernels->pair(matrix->depth, layer->x, (size_t)matrix->columns, paired);
    }
    layer->paired = paired;
    return paired != NULL;
}

/* Some rows of a block, and what they are computed with at the stretch that is being worked on. */
typedef struct code_tile {
    const mm_block *block;
    uint64_t first;
    size_t rows;
    uint32_t tables[MM_FC_TILE], scales[MM_FC_TILE]; /* their numbers */
    bool scale_last;
    mm_lookup *lookup;
} code_tile;

static void start_stretch(const mm_layer *layer, code_tile *tile, const mm_run *run) {
    const mm_grouping *tables = &layer->tensor->tables_by, *scales = &layer->tensor->scales_by;
    const uint32_t first = (uint32_t)(tile->block->first_row + tile->first);
    for (uint32_t i = 0; i < tile->rows; i++) {
        tile->tables[i] = run->table + ((first + i) / tables->row_group - first / tables->row_group) * tables->across;
        tile->scales[i] = run->scale + ((first + i) / scales->row_group - first / scales->row_group) * scales->across;
    }
}

/* Whether two rows of a tile go to the kernel together. */
static bool alike(const mm_layer *layer, const code_tile *tile, size_t a, size_t b) {
    if (tile->tables[a] != tile->tables[b]) {
        return false;
    }
    if (tile->scales[a] == tile->scales[b]) {
        return true;
    }
    return tile->scale_last && (layer->tensor->encoding == MM_PALETTE ||
                                mm_zero_at(layer->tensor, &layer->parameters, tile->scales[a]) ==
                                    mm_zero_at(layer->tensor, &layer->parameters, tile->scales[b]));
}

/* A table of halves without its scale; or that of code - zero, for 16 codes. */
static void fill_unscaled(const mm_layer *layer, uint32_t table, uint32_t scale, mm_lookup *lookup) {
    const mm_tensor *tensor = layer->tensor;
    const bool affine = tensor->encoding == MM_AFFINE;
    const uint32_t made_of = affine ? (uint32_t)mm_zero_at(tensor, &layer->parameters, scale) : table;
    if (lookup->table == made_of) {
        return;
    }
    lookup->table = made_of;
    const uint32_t codes = tensor->matrix.depth == 8 ? MM_LOOKUP_ENTRIES : 16;
    for (uint32_t code = 0; code < codes; code++) {
        lookup->f32[code] = affine ? (float)((int32_t)code - (int32_t)made_of) : 0;
    }
    if (!affine) {
        const uint8_t *entries = layer->parameters.tables + (uint64_t)table * tensor->entries * sizeof *lookup->f16;
        mm_load_floats(MM_TYPE_F16, entries, tensor->entries, lookup->f32);
    }
    layer->kernels->narrow(lookup->f32, codes, lookup->f16);
    lookup->halves = true;
}

/* Sums of the stretch for `count` rows from row number i of the tile on. */
static void dot_rows(const mm_layer *layer, const code_tile *tile, size_t i, size_t count, const mm_run *run,
                     float *sums) {
    const mm_tensor *tensor = layer->tensor;
    const mm_matrix *matrix = &tensor->matrix;
    const size_t stride = (size_t)mm_code_row_bytes(matrix), columns = (size_t)run->count;
    const mm_row row = mm_row_at(tensor, tile->block, tile->first + i, 0);
    const float *x = layer->paired + run->first;
    if (tile->scale_last && tensor->encoding == MM_AFFINE && matrix->depth >= 8) {
        const int32_t zero = mm_zero_at(tensor, &layer->parameters, tile->scales[i]);
        if (matrix->depth == 8) {
            layer->kernels->dot_codes8(row.codes + run->first, stride, count, columns, zero, x, sums);
        } else {
            layer->kernels->dot_codes16(row.codes + run->first, row.low + run->first, stride, count, columns, zero, x,
                                        sums);
        }
        return;
    }
    if (tile->scale_last) {
        fill_unscaled(layer, tile->tables[i], tile->scales[i], tile->lookup);
    } else {
        mm_prepare_lookup(tensor, &layer->parameters, tile->tables[i], tile->scales[i], tile->lookup);
    }
    const uint32_t k = mm_depth_index(matrix->depth);
    const uint8_t *codes = row.codes + run->first * matrix->depth / 8;
    if (tile->lookup->halves) {
        layer->kernels->dot_palette_f16[k](codes, stride, count, columns, tile->lookup->f16, x, sums);
    } else {
        layer->kernels->dot_palette_f32[k](codes, stride, count, columns, tile->lookup->f32, x, sums);
    }
}

static void use_tile(mm_layer *layer, code_tile *tile) {
    const uint64_t columns = layer->tensor->matrix.columns;
    const uint64_t first_row = tile->block->first_row + tile->first;
    double sums[MM_FC_TILE] = {0};
    mm_run run;
    for (uint64_t first = 0; first < columns; first += run.count) {
        run = mm_stretch_at(layer->tensor, first_row, first, mm_min(columns, first + MM_FC_PIECE));
        start_stretch(layer, tile, &run);
        for (size_t i = 0, end; i < tile->rows; i = end) {
            float parts[MM_FC_TILE];
            for (end = i + 1; end < tile->rows && alike(layer, tile, i, end); end++) {
            }
            dot_rows(layer, tile, i, end - i, &run, parts);
            for (size_t j = i; j < end; j++) {
                const uint32_t number = tile->scales[j];
                const float scale = tile->scale_last ? mm_scale_at(layer->tensor, &layer->parameters, number) : 1;
                sums[j] += (double)parts[j - i] * (double)scale;
            }
        }
    }
    for (size_t i = 0; i < tile->rows; i++) {
        layer->y[first_row + i] = (float)sums[i];
    }
}

static void use_block(mm_layer *layer, const mm_block *block) {
    mm_lookup lookup;
    lookup.table = lookup.scale = MM_NO_LOOKUP;
    code_tile tile = {.block = block, .scale_last = scale_comes_last(layer->tensor), .lookup = &lookup};
    for (; tile.first < block->rows; tile.first += MM_FC_TILE) {
        tile.rows = (size_t)mm_min(MM_FC_TILE, block->rows - tile.first);
        use_tile(layer, &tile);
    }
}

const mm_fc_method mm_fc_codes = {.serves = serves, .scratch = scratch_of, .prepare = prepare, .use_block = use_block};
