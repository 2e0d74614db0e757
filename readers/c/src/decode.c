/* The functions of mobilemodel.h that decode tensors. */
#include "bytes.h"
#include "dense.h"
#include "place.h"
#include "tensor.h"

static bool is_float(uint32_t type) { return type == MM_FLOAT || type == MM_FLOAT16 || type == MM_BFLOAT16; }

static bool decodes_to(const mm_tensor *tensor, uint32_t type) {
    return type == tensor->dtype || (is_float(tensor->dtype) && (type == MM_FLOAT || type == MM_FLOAT16));
}

uint64_t mm_decoded_size(const mm_tensor *tensor, uint32_t type, uint64_t slices) {
    const uint64_t elements = mm_slice_elements(tensor);
    if (tensor->status != MM_OK || !decodes_to(tensor, type) || elements == 0 || slices == 0) {
        return 0;
    }
    if (slices > mm_slices(tensor)) { /* too many for any buffer */
        return UINT64_MAX;
    }
    return mm_raw_size(type, elements * slices);
}

static uint64_t tile_scratch(void) { return mm_piece(MM_TILE_VALUES * sizeof(float)); }

uint64_t mm_decode_scratch(const mm_bundle *bundle, const mm_tensor *tensor) {
    uint64_t size = MM_ALIGNMENT;
    if (tensor->status != MM_OK) {
        return 0;
    }
    if (mm_has_codes(tensor)) {
        size += mm_parameters_scratch(bundle, tensor) + mm_block_scratch(tensor) + tile_scratch();
    } else {
        size += mm_dense_scratch(bundle, tensor);
    }
    return size > SIZE_MAX ? UINT64_MAX : size;
}

/* What all functions here ask first: check 12, then the call itself. */
static mm_status check_call(const mm_bundle *bundle, const mm_tensor *tensor, bool allowed, uint64_t out_wanted,
                            uint64_t out_size, size_t scratch_size) {
    if (tensor->status != MM_OK) {
        return tensor->status;
    }
    return allowed && out_wanted <= out_size && mm_decode_scratch(bundle, tensor) <= scratch_size ? MM_OK : MM_USAGE;
}

static bool in_range(uint64_t first, uint64_t count, uint64_t all) { return first <= all && count <= all - first; }

/* Blocks that hold the rows first .. end - 1. */
typedef struct blocks {
    uint32_t first, end;
} blocks;

static blocks blocks_of(const mm_matrix *matrix, uint64_t first_row, uint64_t end_row) {
    blocks found = {0, 0};
    if (first_row < end_row && matrix->blocks > 0) {
        found.first = (uint32_t)(first_row / matrix->rows_per_block);
        found.end = (uint32_t)mm_ceil_div(end_row, matrix->rows_per_block);
    }
    return found;
}

static mm_status check_codecs(const mm_bundle *bundle, const mm_matrix *matrix, blocks range) {
    const uint32_t payloads = matrix->split ? 2 : 1;
    const uint32_t first = matrix->first_payload + range.first * payloads;
    return mm_check_codecs(bundle, first, (range.end - range.first) * payloads);
}

/* Decode what the target wants, which may be nothing: then the parameters are read all the same. */
static mm_status decode_codes(const mm_bundle *bundle, mm_target *target, mm_arena arena) {
    const mm_tensor *tensor = target->tensor;
    const blocks range = blocks_of(&tensor->matrix, target->first_row, target->end_row);
    mm_parameters parameters;
    mm_code_source source = {.bundle = bundle};
    mm_lookup lookup;
    lookup.table = lookup.scale = MM_NO_LOOKUP;
    mm_status status = mm_check_parameters(bundle, tensor);
    if (status == MM_OK) {
        status = check_codecs(bundle, &tensor->matrix, range);
    }
    target->tile = mm_take(&arena, MM_TILE_VALUES * sizeof(float));
    if (status == MM_OK) {
        status = target->tile == NULL ? MM_ERROR : mm_read_parameters(bundle, tensor, &arena, &parameters);
    }
    for (uint32_t i = range.first; i < range.end && status == MM_OK; i++) {
        mm_block block;
        status = mm_read_block(&source, tensor, i, arena, &block);
        if (status == MM_OK) {
            mm_place_block(target, &parameters, &block, &lookup);
        }
    }
    return status;
}

mm_status mm_decode(const mm_bundle *bundle, const mm_tensor *tensor, uint32_t type, uint64_t first, uint64_t count,
                    void *out, size_t out_size, void *scratch, size_t scratch_size) {
    const uint64_t elements = mm_slice_elements(tensor);
    const bool at_byte = first * elements * mm_type_bits(type) % 8 == 0;
    const bool allowed = decodes_to(tensor, type) && in_range(first, count, mm_slices(tensor)) && at_byte;
    const uint64_t wanted = mm_decoded_size(tensor, type, count);
    mm_status status = check_call(bundle, tensor, allowed, wanted, out_size, scratch_size);
    if (status != MM_OK) {
        return status;
    }
    mm_arena arena = mm_arena_of(scratch, scratch_size);
    if (!mm_has_codes(tensor)) {
        return mm_decode_dense(bundle, tensor, type, first * elements, count * elements, out, arena);
    }
    mm_target target;
    mm_aim(&target, tensor, type, first * elements, count * elements, out);
    return decode_codes(bundle, &target, arena);
}

mm_status mm_decode_rows(const mm_bundle *bundle, const mm_tensor *tensor, uint32_t type, uint64_t first,
                         uint64_t count, void *out, size_t out_size, void *scratch, size_t scratch_size) {
    const mm_matrix *matrix = &tensor->matrix;
    const bool has_type = mm_has_codes(tensor) && (type == MM_FLOAT || type == MM_FLOAT16);
    const bool allowed = has_type && in_range(first, count, matrix->rows);
    const uint64_t size = type == MM_FLOAT16 ? sizeof(uint16_t) : sizeof(float);
    const uint64_t wanted = allowed ? count * matrix->columns * size : 0;
    mm_status status = check_call(bundle, tensor, allowed, wanted, out_size, scratch_size);
    if (status != MM_OK) {
        return status;
    }
    mm_target target;
    mm_aim_at_rows(&target, tensor, type, first, count, out);
    return decode_codes(bundle, &target, mm_arena_of(scratch, scratch_size));
}

mm_status mm_codes(const mm_bundle *bundle, const mm_tensor *tensor, uint64_t first, uint64_t count, uint32_t *out,
                   size_t out_count, void *scratch, size_t scratch_size) {
    const mm_matrix *matrix = &tensor->matrix;
    const bool allowed = mm_has_codes(tensor) && in_range(first, count, matrix->rows);
    const uint64_t wanted = allowed ? count * matrix->codes_per_row : 0;
    mm_status status = check_call(bundle, tensor, allowed, wanted, out_count, scratch_size);
    if (status != MM_OK) {
        return status;
    }
    const uint64_t end = first + count;
    const blocks range = blocks_of(matrix, first, end);
    mm_code_source source = {.bundle = bundle};
    mm_arena arena = mm_arena_of(scratch, scratch_size);
    status = check_codecs(bundle, matrix, range);
    for (uint32_t i = range.first; i < range.end && status == MM_OK; i++) {
        mm_block block;
        status = mm_read_block(&source, tensor, i, arena, &block);
        if (status != MM_OK) {
            break;
        }
        uint64_t row = first > block.first_row ? first - block.first_row : 0;
        uint64_t other = matrix->split ? mm_ones_before(matrix, block.plane, row) : 0;
        for (; row < mm_min(block.rows, end - block.first_row); row++) {
            mm_row codes = mm_row_at(tensor, &block, row, other);
            mm_next_codes(&codes, matrix->codes_per_row, out);
            out += matrix->codes_per_row;
            other = codes.other;
        }
    }
    return status;
}

/* A slice as it is stored. */
static mm_status read_slice(const mm_bundle *bundle, const mm_tensor *tensor, bool allowed, mm_slice slice, void *out,
                            size_t out_size, void *scratch, size_t scratch_size) {
    mm_status status = check_call(bundle, tensor, allowed, slice.size, out_size, scratch_size);
    if (status != MM_OK) {
        return status;
    }
    mm_arena arena = mm_arena_of(scratch, scratch_size);
    const uint8_t *data;
    status = mm_read_slice(bundle, slice, &arena, &data);
    if (status == MM_OK && slice.size > 0) {
        memcpy(out, data, (size_t)slice.size);
    }
    return status;
}

mm_status mm_tables(const mm_bundle *bundle, const mm_tensor *tensor, void *out, size_t out_size, void *scratch,
                    size_t scratch_size) {
    const bool allowed = tensor->encoding == MM_PALETTE;
    return read_slice(bundle, tensor, allowed, tensor->tables, out, out_size, scratch, scratch_size);
}

mm_status mm_scales(const mm_bundle *bundle, const mm_tensor *tensor, void *out, size_t out_size, void *scratch,
                    size_t scratch_size) {
    if (tensor->status == MM_OK && tensor->encoding == MM_PALETTE && !tensor->has_scales) {
        return MM_OK;
    }
    return read_slice(bundle, tensor, mm_has_codes(tensor), tensor->scales, out, out_size, scratch, scratch_size);
}

mm_status mm_zeros(const mm_bundle *bundle, const mm_tensor *tensor, void *out, size_t out_size, void *scratch,
                   size_t scratch_size) {
    const bool allowed = tensor->encoding == MM_AFFINE;
    if (tensor->has_zeros) {
        return read_slice(bundle, tensor, allowed, tensor->zeros, out, out_size, scratch, scratch_size);
    }
    const uint32_t width = tensor->matrix.depth == 16 ? 2 : 1;
    const uint64_t size = (uint64_t)tensor->scales_by.count * width;
    mm_status status = check_call(bundle, tensor, allowed, size, out_size, scratch_size);
    const uint32_t zero = status != MM_OK ? 0 : UINT32_C(1) << (tensor->matrix.depth - 1);
    for (uint64_t i = 0; i < size && status == MM_OK; i++) {
        ((uint8_t *)out)[i] = (uint8_t)(zero >> (8 * (i % width)));
    }
    return status;
}
