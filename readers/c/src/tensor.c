/* One tensor of the manifest: spec/tensors.md §1, §2 and §4 to §6, and slices, codecs.md §6. */
#include "tensor.h"

#include "bytes.h"
#include "message.h"
#include "schema.h"

enum { SMALL_DENSE = 4096, MAX_ENTRIES = 65536, MAX_TABLE_VALUES = 1 << 24, SLICE_ALIGNMENT = 16, CHUNK_MULTIPLE = 64 };

/* ------------------------------------------------------------------------------------------------ types, sizes */

uint32_t mm_type_bits(uint32_t dtype) {
    static const uint8_t bits[] = {0,  32,  8,  8, 16, 16, 32, 64, 0, 8, 16, 64, 32, 64,
                                   64, 128, 16, 8, 8,  8,  8,  4,  4, 4, 8,  2,  2};
    return dtype < sizeof bits ? bits[dtype] : 0;
}

uint64_t mm_raw_size(uint32_t dtype, uint64_t elements) { return (elements * mm_type_bits(dtype) + 7) / 8; }

bool mm_product(const uint64_t *sizes, uint32_t count, uint32_t most, uint64_t *product) {
    uint64_t positive = 1;
    bool empty = false;
    for (uint32_t i = 0; i < count; i++) {
        if (sizes[i] == 0) {
            empty = true;
        } else if (sizes[i] > most / positive) {
            return false;
        } else {
            positive *= sizes[i];
        }
    }
    *product = empty ? 0 : positive;
    return positive <= most;
}

/* ------------------------------------------------------------------------------------------------ parts */

/* A slice that stands as this field of an encoding, if it does. */
static void read_slice(mm_reader encoding, uint32_t number, mm_slice *slice) {
    static const mm_slot slots[] = {
        [SLICE_PAYLOAD] = MM_SLOT(mm_slice, payload),
        [SLICE_OFFSET] = MM_SLOT(mm_slice, offset),
        [SLICE_SIZE] = MM_SLOT(mm_slice, size),
    };
    MM_READ_MESSAGE(mm_inner(encoding, number), slots, slice);
}

/* A grouping, which may not be set: tensors.md §3.2. Rows times sub-vectors are below 2^31, or one of them is 0. */
static void read_grouping(mm_reader encoding, uint32_t number, const mm_matrix *matrix, mm_grouping *by) {
    static const mm_slot slots[] = {
        [GROUPING_ROW_GROUP] = MM_SLOT(mm_grouping, row_group),
        [GROUPING_COL_GROUP] = MM_SLOT(mm_grouping, col_group),
    };
    MM_READ_MESSAGE(mm_inner(encoding, number), slots, by);
    if (by->row_group == 0) {
        by->row_group = (uint32_t)mm_max(matrix->rows, 1);
    }
    if (by->col_group == 0) {
        by->col_group = (uint32_t)mm_max(matrix->subvectors, 1);
    }
    by->across = (uint32_t)mm_ceil_div(matrix->subvectors, by->col_group);
    by->count = (uint32_t)(mm_ceil_div(matrix->rows, by->row_group) * by->across);
}

static bool slice_fits(const mm_slice *slice, uint64_t size) {
    return slice->size == size && slice->offset % SLICE_ALIGNMENT == 0;
}

/* Bytes of a value of a table or a scale; 0: no such type. */
static uint32_t float_size(uint32_t type) { return type == MM_TYPE_F16 ? 2 : type == MM_TYPE_F32 ? 4 : 0; }

/* ------------------------------------------------------------------------------------------------ encodings */

/* tensors.md §4; chunk_elements as it stands */
static mm_status check_dense(const mm_limits *limits, mm_tensor *tensor, uint64_t chunk_elements) {
    const bool widened =
        tensor->dtype == MM_FLOAT && (tensor->stored_dtype == MM_FLOAT16 || tensor->stored_dtype == MM_BFLOAT16);
    if (tensor->stored_dtype != tensor->dtype && !widened) {
        return MM_MALFORMED_MANIFEST;
    }
    tensor->chunk_elements = mm_max(mm_min(chunk_elements, tensor->elements), 1);
    if (tensor->small || tensor->elements == 0) {
        const uint64_t size = mm_raw_size(tensor->stored_dtype, tensor->elements);
        if (chunk_elements != 0 || tensor->first_chunk != 0 || tensor->byte_planes || size > SMALL_DENSE ||
            (tensor->small && !slice_fits(&tensor->values, size))) {
            return MM_MALFORMED_MANIFEST;
        }
        return MM_OK;
    }
    if (chunk_elements == 0 || chunk_elements % CHUNK_MULTIPLE != 0 ||
        (tensor->byte_planes && mm_type_bits(tensor->stored_dtype) < 16)) {
        return MM_MALFORMED_MANIFEST;
    }
    tensor->chunks = (uint32_t)mm_ceil_div(tensor->elements, tensor->chunk_elements);
    const uint64_t chunk = mm_raw_size(tensor->stored_dtype, tensor->chunk_elements);
    return chunk > limits->block || tensor->chunks > limits->payloads ? MM_LIMIT_EXCEEDED : MM_OK;
}

static mm_status read_dense(const mm_bundle *bundle, mm_reader encoding, mm_tensor *tensor) {
    static const mm_slot slots[] = {
        [DENSE_STORED_DTYPE] = MM_SLOT(mm_tensor, stored_dtype),
        [DENSE_CHUNK_ELEMENTS] = MM_SLOT(mm_tensor, chunk_elements),
        [DENSE_FIRST_PAYLOAD] = MM_SLOT(mm_tensor, first_chunk),
        [DENSE_BYTE_PLANES] = MM_SLOT(mm_tensor, byte_planes),
    };
    tensor->small = mm_has(MM_READ_MESSAGE(encoding, slots, tensor), DENSE_SMALL);
    read_slice(encoding, DENSE_SMALL, &tensor->values);
    return check_dense(&bundle->limits, tensor, tensor->chunk_elements);
}

/* tensors.md §5.1; the matrix is known, and which fields the message has. */
static mm_status check_palette(const mm_tensor *tensor, uint32_t found) {
    const mm_matrix *matrix = &tensor->matrix;
    if (tensor->entries > MAX_ENTRIES) {
        return MM_LIMIT_EXCEEDED;
    }
    if (tensor->entries == 0 || tensor->entries > (UINT32_C(1) << matrix->depth) + matrix->split ||
        matrix->background >= tensor->entries || !mm_has(found, PALETTE_TABLES)) {
        return MM_MALFORMED_MANIFEST;
    }
    const uint64_t values = (uint64_t)tensor->tables_by.count * tensor->entries * matrix->vector;
    if (values > MAX_TABLE_VALUES) {
        return MM_LIMIT_EXCEEDED;
    }
    if (float_size(tensor->table_type) == 0 || !slice_fits(&tensor->tables, values * float_size(tensor->table_type))) {
        return MM_MALFORMED_MANIFEST;
    }
    if (!tensor->has_scales) {
        return tensor->scale_type != 0 || mm_has(found, PALETTE_SCALES_BY) ? MM_MALFORMED_MANIFEST : MM_OK;
    }
    const uint64_t size = (uint64_t)tensor->scales_by.count * float_size(tensor->scale_type);
    return float_size(tensor->scale_type) != 0 && slice_fits(&tensor->scales, size) ? MM_OK : MM_MALFORMED_MANIFEST;
}

static mm_status read_palette(const mm_bundle *bundle, mm_reader encoding, mm_tensor *tensor) {
    static const mm_slot slots[] = {
        [PALETTE_ENTRIES] = MM_SLOT(mm_tensor, entries),
        [PALETTE_TABLE_TYPE] = MM_SLOT(mm_tensor, table_type),
        [PALETTE_SCALE_TYPE] = MM_SLOT(mm_tensor, scale_type),
    };
    const uint32_t found = MM_READ_MESSAGE(encoding, slots, tensor);
    const mm_status status = mm_read_matrix(bundle, mm_inner(encoding, PALETTE_CODES), tensor, &tensor->matrix);
    if (status != MM_OK) {
        return status;
    }
    tensor->has_scales = mm_has(found, PALETTE_SCALES);
    read_slice(encoding, PALETTE_TABLES, &tensor->tables);
    read_slice(encoding, PALETTE_SCALES, &tensor->scales);
    read_grouping(encoding, PALETTE_TABLES_BY, &tensor->matrix, &tensor->tables_by);
    read_grouping(encoding, PALETTE_SCALES_BY, &tensor->matrix, &tensor->scales_by);
    return check_palette(tensor, found);
}

/* tensors.md §6; the matrix is known */
static bool affine_holds(const mm_tensor *tensor) {
    const mm_matrix *matrix = &tensor->matrix;
    const uint64_t count = tensor->scales_by.count;
    return matrix->depth >= 4 && matrix->vector == 1 && !matrix->split && tensor->has_scales &&
           slice_fits(&tensor->scales, 4 * count) &&
           (!tensor->has_zeros || slice_fits(&tensor->zeros, matrix->depth == 16 ? 2 * count : count));
}

static mm_status read_affine(const mm_bundle *bundle, mm_reader encoding, mm_tensor *tensor) {
    const uint32_t found = mm_read_message(encoding, NULL, 0, NULL);
    const mm_status status = mm_read_matrix(bundle, mm_inner(encoding, AFFINE_CODES), tensor, &tensor->matrix);
    if (status != MM_OK) {
        return status;
    }
    tensor->scale_type = MM_TYPE_F32;
    tensor->has_scales = mm_has(found, AFFINE_SCALES);
    tensor->has_zeros = mm_has(found, AFFINE_ZEROS);
    read_slice(encoding, AFFINE_SCALES, &tensor->scales);
    read_slice(encoding, AFFINE_ZEROS, &tensor->zeros);
    read_grouping(encoding, AFFINE_BY, &tensor->matrix, &tensor->scales_by);
    read_grouping(encoding, 0, &tensor->matrix, &tensor->tables_by); /* it has none: all rows are one group */
    return affine_holds(tensor) ? MM_OK : MM_MALFORMED_MANIFEST;
}

/* ------------------------------------------------------------------------------------------------ the tensor */

static void read_loss(mm_reader message, mm_tensor *tensor) {
    static const mm_slot slots[] = {
        [LOSS_SQNR_MILLIDB] = {MM_TO_SINT32, offsetof(mm_tensor, sqnr_millidb)},
        [LOSS_LARGEST_ERROR] = MM_SLOT(mm_tensor, largest_error),
    };
    tensor->has_sqnr = mm_has(MM_READ_MESSAGE(message, slots, tensor), LOSS_SQNR_MILLIDB);
}

/* container.md §4.2: format 1.0 names no feature. */
static mm_status foreign_status(const mm_tensor *tensor) {
    if (tensor->features.count > 0) {
        return MM_UNSUPPORTED_FEATURE;
    }
    const bool known = tensor->encoding != MM_ENCODING_UNKNOWN && mm_type_bits(tensor->dtype) != 0;
    return known ? MM_OK : MM_UNSUPPORTED_ENCODING;
}

bool mm_read_tensor_head(const mm_bundle *bundle, const mm_field *member, mm_tensor *tensor) {
    static const mm_slot slots[] = {
        [TENSOR_NAME] = MM_SLOT(mm_tensor, name),
        [TENSOR_DTYPE] = MM_SLOT(mm_tensor, dtype),
        [TENSOR_REQUIRED_FEATURES] = MM_SLOT(mm_tensor, features),
    };
    const mm_reader message = {bundle->manifest.data, member->start, member->end};
    *tensor = (mm_tensor){.message = {member->tag, member->end, 1}};
    const uint32_t found = MM_READ_MESSAGE(message, slots, tensor);
    tensor->encoding = mm_has(found, TENSOR_DENSE)     ? MM_DENSE
                       : mm_has(found, TENSOR_PALETTE) ? MM_PALETTE
                       : mm_has(found, TENSOR_AFFINE)  ? MM_AFFINE
                                                       : MM_ENCODING_UNKNOWN;
    tensor->has_loss = mm_has(found, TENSOR_LOSS);
    read_loss(mm_inner(message, TENSOR_LOSS), tensor);
    tensor->status = foreign_status(tensor);
    tensor->rank = mm_read_numbers(mm_inner(message, TENSOR_DIMS), tensor->dims, MM_MAX_RANK);
    return tensor->rank <= MM_MAX_RANK &&
           mm_product(tensor->dims, tensor->rank, bundle->limits.elements, &tensor->elements);
}

mm_status mm_read_tensor(const mm_bundle *bundle, const mm_field *member, mm_tensor *tensor) {
    if (!mm_read_tensor_head(bundle, member, tensor)) {
        return MM_LIMIT_EXCEEDED;
    }
    if (tensor->status != MM_OK) {
        return MM_OK;
    }
    const mm_reader message = {bundle->manifest.data, member->start, member->end};
    const mm_reader encoding = mm_inner(message, tensor->encoding); /* the numbers of its fields */
    if (tensor->encoding == MM_DENSE) {
        return read_dense(bundle, encoding, tensor);
    }
    if (tensor->dtype != MM_FLOAT && tensor->dtype != MM_FLOAT16) {
        return MM_MALFORMED_MANIFEST;
    }
    return tensor->encoding == MM_PALETTE ? read_palette(bundle, encoding, tensor)
                                          : read_affine(bundle, encoding, tensor);
}
