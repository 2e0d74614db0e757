#include "codes.h"

#include "bytes.h"
#include "kernels/kernels.h"

static uint64_t first_row_of(const mm_matrix *matrix, uint32_t index) { return index * matrix->rows_per_block; }

static uint64_t rows_of(const mm_matrix *matrix, uint32_t index) {
    return mm_min(matrix->rows_per_block, matrix->rows - first_row_of(matrix, index));
}

/* Rows of codes. The other ones of a split stream are one row. */
static mm_packed_shape codes_shape(uint64_t rows, uint64_t samples, uint32_t depth) {
    const uint32_t halves = depth == 16 ? 2 : 1; /* rows and columns are below 2^31 */
    return (mm_packed_shape){(uint32_t)rows * halves, (uint32_t)samples, depth / halves};
}

static mm_packed_shape plain_shape(const mm_matrix *matrix, uint64_t rows) {
    return codes_shape(rows, matrix->codes_per_row, matrix->depth);
}

static mm_packed_shape plane_shape(const mm_matrix *matrix, uint64_t rows) {
    return codes_shape(rows, matrix->codes_per_row, 1);
}

static mm_packed_shape others_shape(const mm_matrix *matrix, uint64_t ones) {
    return codes_shape(1, ones, matrix->depth);
}

uint64_t mm_block_scratch(const mm_tensor *tensor) {
    const mm_matrix *matrix = &tensor->matrix;
    if (matrix->blocks == 0) {
        return 0;
    }
    uint64_t rows = rows_of(matrix, 0);
    if (!matrix->split) {
        return mm_piece(mm_matrix_piece(plain_shape(matrix, rows))) + mm_codec_scratch();
    }
    return mm_piece(mm_matrix_piece(plane_shape(matrix, rows))) +
           mm_piece(mm_matrix_piece(others_shape(matrix, rows * matrix->codes_per_row))) + mm_codec_scratch();
}

/* The matrix that is payload number index, or the next one of the packed codes. */
static mm_status view(mm_code_source *source, uint32_t index, mm_packed_shape shape, mm_arena *scratch,
                      const uint8_t **raw) {
    if (source->packed == NULL) {
        return mm_view_matrix(source->bundle, index, shape, scratch, raw);
    }
    const uint64_t size = mm_matrix_size(shape);
    if (size > source->size - source->at) {
        return MM_USAGE;
    }
    *raw = source->packed + source->at;
    source->at += (size_t)size;
    return MM_OK;
}

mm_status mm_read_block(mm_code_source *source, const mm_tensor *tensor, uint32_t index, mm_arena scratch,
                        mm_block *block) {
    const mm_matrix *matrix = &tensor->matrix;
    const uint32_t payload = matrix->first_payload + (matrix->split ? 2 * index : index);
    *block = (mm_block){.first_row = first_row_of(matrix, index), .rows = rows_of(matrix, index)};
    if (!matrix->split) {
        return view(source, payload, plain_shape(matrix, block->rows), &scratch, &block->codes);
    }
    mm_status status = view(source, payload, plane_shape(matrix, block->rows), &scratch, &block->plane);
    if (status != MM_OK) {
        return status;
    }
    block->ones = mm_ones_before(matrix, block->plane, block->rows);
    return view(source, payload + 1, others_shape(matrix, block->ones), &scratch, &block->codes);
}

uint64_t mm_blocks_size(const mm_bundle *bundle, const mm_tensor *tensor) {
    const mm_matrix *matrix = &tensor->matrix;
    const uint32_t payloads = matrix->split ? 2 * matrix->blocks : matrix->blocks;
    uint64_t size = 0;
    for (uint32_t i = 0; i < payloads; i++) {
        size += mm_entry(bundle, matrix->first_payload + i).raw_size;
    }
    return size;
}

uint64_t mm_code_row_bytes(const mm_matrix *matrix) {
    return mm_row_bytes(matrix->split ? plane_shape(matrix, 1) : plain_shape(matrix, 1));
}

uint64_t mm_ones_before(const mm_matrix *matrix, const uint8_t *plane, uint64_t rows) {
    const mm_kernels *kernels = mm_choose_kernels();
    const uint64_t samples = matrix->codes_per_row;
    if (samples % 8 == 0) { /* no spare bits: the rows are one */
        return kernels->count_ones(plane, (size_t)(rows * samples));
    }
    const size_t row_bytes = (size_t)mm_row_bytes(plane_shape(matrix, 1));
    uint64_t ones = 0;
    for (uint64_t row = 0; row < rows; row++) {
        ones += kernels->count_ones(plane + row * row_bytes, (size_t)samples);
    }
    return ones;
}

mm_row mm_row_at(const mm_tensor *tensor, const mm_block *block, uint64_t row, uint64_t other) {
    const mm_matrix *matrix = &tensor->matrix;
    const size_t row_bytes = (size_t)mm_code_row_bytes(matrix);
    mm_row at = {.matrix = matrix, .block = block, .row = row, .other = other};
    at.codes = (matrix->split ? block->plane : block->codes) + row * row_bytes;
    if (!matrix->split && matrix->depth == 16) {
        at.low = block->codes + (block->rows + row) * row_bytes;
    }
    return at;
}

static void next_plain_codes(mm_row *row, uint64_t count, uint32_t *codes) {
    if (row->matrix->depth == 16) {
        for (uint64_t i = 0; i < count; i++) {
            codes[i] = (uint32_t)row->codes[row->n + i] << 8 | row->low[row->n + i];
        }
        row->n += count;
        return;
    }
    const mm_kernels *kernels = mm_choose_kernels();
    const uint32_t k = mm_depth_index(row->matrix->depth);
    uint8_t narrow[256];
    while (count > 0) {
        uint64_t piece = mm_min(count, sizeof narrow);
        kernels->unpack[k](row->codes, (size_t)row->n, (size_t)piece, narrow);
        for (uint64_t i = 0; i < piece; i++) {
            codes[i] = narrow[i];
        }
        codes += piece;
        count -= piece;
        row->n += piece;
    }
}

static void next_split_codes(mm_row *row, uint64_t count, uint32_t *codes) {
    const uint32_t background = row->matrix->background;
    while (count > 0) {
        uint64_t piece = mm_min(count, 32);
        for (uint64_t i = 0; i < piece; i++) {
            codes[i] = background;
        }
        for (uint32_t bits = mm_plane_bits(row->codes, row->n, piece); bits != 0;) {
            uint32_t i = mm_leading_zeros(bits);
            uint32_t code = mm_other_code(row->block, row->matrix->depth, row->other++);
            codes[i] = code + (code >= background);
            bits &= ~(0x80000000u >> i);
        }
        codes += piece;
        count -= piece;
        row->n += piece;
        row->last = codes[-1];
    }
}

void mm_next_codes(mm_row *row, uint64_t count, uint32_t *codes) {
    if (row->matrix->split) {
        next_split_codes(row, count, codes);
    } else {
        next_plain_codes(row, count, codes);
    }
}
