/* A tensor: its values, codes, tables, scales and zero points, each decoded on its own. */
#include "array.h"
#include "workspace.h"

static const uint64_t PIECE = 64u << 20; /* bytes to decode at a time, where rows allow it */

/* Of the failures of several pieces, what a decoding of all would report: check 13 of spec/container.md §6 comes before
 * the others for every payload. */
static mm_status first_failure(mm_status before, mm_status status) {
    return before == MM_OK || status == MM_UNSUPPORTED_CODEC ? status : before;
}

/* ------------------------------------------------------------------------------------------------ values and codes */

static uint32_t load32(const uint8_t *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static void store(uint8_t *p, uint32_t bits, unsigned bytes) {
    for (unsigned i = 0; i < bytes; i++) {
        p[i] = (uint8_t)(bits >> 8 * i);
    }
}

/* A NaN that decoding makes has no bits of its own (spec/tensors.md §8). */
static void make_nans_quiet(uint8_t *values, size_t size, uint32_t dtype) {
    for (size_t i = 0; dtype == MM_FLOAT && i + 4 <= size; i += 4) {
        if ((load32(values + i) & 0x7FFFFFFF) > 0x7F800000) {
            store(values + i, 0x7FC00000, 4);
        }
    }
    for (size_t i = 0; dtype == MM_FLOAT16 && i + 2 <= size; i += 2) {
        if ((((uint32_t)values[i + 1] << 8 | values[i]) & 0x7FFF) > 0x7C00) {
            store(values + i, 0x7E00, 2);
        }
    }
}

/* How many slices to decode at once. Elements below 8 bits begin at a byte with every eighth slice. */
static uint64_t slices_at_once(const mm_tensor *tensor) {
    uint64_t bytes = mm_decoded_size(tensor, tensor->dtype, 8);
    uint64_t eights = bytes == 0 ? UINT64_MAX / 8 : PIECE / bytes;
    return 8 * (eights == 0 ? 1 : eights);
}

static mm_status decode_values(workspace *work, const mm_tensor *tensor, array *values) {
    const uint64_t slices = mm_slices(tensor), at_once = slices_at_once(tensor);
    const bool made = tensor->encoding != MM_DENSE || tensor->stored_dtype != tensor->dtype;
    mm_status status = MM_OK;
    uint64_t first = 0;
    do {
        uint64_t count = slices - first < at_once ? slices - first : at_once;
        uint64_t size = mm_decoded_size(tensor, tensor->dtype, count);
        if (!workspace_hold(work, &work->result, size)) {
            return MM_ERROR;
        }
        uint8_t *decoded = work->result.data;
        mm_status piece = mm_decode(work->bundle, tensor, tensor->dtype, first, count, decoded, (size_t)size,
                                    work->scratch.data, work->scratch.size);
        status = first_failure(status, piece);
        if (status == MM_OK) {
            if (made) {
                make_nans_quiet(decoded, (size_t)size, tensor->dtype);
            }
            array_add(values, decoded, (size_t)size);
        }
        first += count;
    } while (first < slices);
    return status;
}

/* How many rows of codes to decode at once: whole blocks, where they are not too large. */
static uint64_t rows_at_once(const mm_matrix *matrix) {
    uint64_t bytes = 4 * matrix->codes_per_row;
    uint64_t rows = bytes == 0 ? UINT64_MAX : PIECE / bytes;
    uint64_t blocks = matrix->rows_per_block == 0 ? 0 : rows / matrix->rows_per_block;
    rows = blocks > 0 ? blocks * matrix->rows_per_block : rows;
    return rows == 0 ? 1 : rows;
}

static mm_status decode_codes(workspace *work, const mm_tensor *tensor, array *codes) {
    const uint64_t rows = tensor->matrix.rows, at_once = rows_at_once(&tensor->matrix);
    mm_status status = MM_OK;
    uint64_t first = 0;
    do {
        uint64_t count = rows - first < at_once ? rows - first : at_once;
        uint64_t numbers = count * tensor->matrix.codes_per_row;
        if (!workspace_hold(work, &work->result, 4 * numbers)) {
            return MM_ERROR;
        }
        uint32_t *decoded = (uint32_t *)(void *)work->result.data;
        mm_status piece = mm_codes(work->bundle, tensor, first, count, decoded, (size_t)numbers, work->scratch.data,
                                   work->scratch.size);
        status = first_failure(status, piece);
        for (uint64_t i = 0; status == MM_OK && i < numbers; i++) {
            store(work->result.data + 4 * i, decoded[i], 4);
        }
        if (status == MM_OK) {
            array_add(codes, work->result.data, (size_t)(4 * numbers));
        }
        first += count;
    } while (first < rows);
    return status;
}

/* ------------------------------------------------------------------------------------------------ its parts */

static void print_result(workspace *work, mm_status status, array *result, const uint64_t *shape, uint32_t rank) {
    if (status == MM_OK) {
        array_print(result, &work->out, shape, rank);
    } else {
        workspace_print_status(work, status);
    }
}

static void print_values(workspace *work, const mm_tensor *tensor) {
    array values = array_of_type(tensor->dtype);
    mm_status status = tensor->status;
    if (status == MM_OK) {
        status = work->scratch.data == NULL ? MM_ERROR : decode_values(work, tensor, &values);
    }
    json_key(&work->out, "values");
    print_result(work, status, &values, tensor->dims, tensor->rank);
}

static void print_codes(workspace *work, const mm_tensor *tensor) {
    const uint64_t shape[2] = {tensor->matrix.rows, tensor->matrix.codes_per_row};
    array codes = array_of_bits(32);
    mm_status status = decode_codes(work, tensor, &codes);
    json_key(&work->out, "codes");
    print_result(work, status, &codes, shape, 2);
}

typedef mm_status part_reader(const mm_bundle *bundle, const mm_tensor *tensor, void *out, size_t out_size,
                              void *scratch, size_t scratch_size);

/* Tables, scales or zero points: size bytes in elements of bits. */
static void print_part(workspace *work, const mm_tensor *tensor, const char *key, part_reader *read, unsigned bits,
                       const uint64_t *shape, uint32_t rank) {
    uint64_t size = bits / 8;
    for (uint32_t i = 0; i < rank; i++) {
        size *= shape[i]; /* at most 64 MiB, checked when the bundle was opened */
    }
    array part = array_of_bits(bits);
    mm_status status = MM_ERROR;
    if (workspace_hold(work, &work->result, size)) {
        status = read(work->bundle, tensor, work->result.data, (size_t)size, work->scratch.data, work->scratch.size);
    }
    if (status == MM_OK) {
        array_add(&part, work->result.data, (size_t)size);
    }
    json_key(&work->out, key);
    print_result(work, status, &part, shape, rank);
}

static unsigned bits_of_type(uint32_t type) { return type == MM_TYPE_F16 ? 16 : 32; }

static void print_scales(workspace *work, const mm_tensor *tensor) {
    const uint64_t shape[1] = {tensor->scales_by.count};
    if (tensor->has_scales) {
        print_part(work, tensor, "scales", mm_scales, bits_of_type(tensor->scale_type), shape, 1);
    }
}

static void print_tables(workspace *work, const mm_tensor *tensor) {
    const uint64_t shape[3] = {tensor->tables_by.count, tensor->entries, tensor->matrix.vector};
    print_part(work, tensor, "tables", mm_tables, bits_of_type(tensor->table_type), shape, 3);
}

static void print_zeros(workspace *work, const mm_tensor *tensor) {
    const uint64_t shape[1] = {tensor->scales_by.count};
    print_part(work, tensor, "zeros", mm_zeros, tensor->matrix.depth == 16 ? 16 : 8, shape, 1);
}

/* ------------------------------------------------------------------------------------------------ the tensor */

static const char *encoding_name(mm_encoding encoding) {
    switch (encoding) {
    case MM_DENSE: return "dense";
    case MM_PALETTE: return "palette";
    case MM_AFFINE: return "affine";
    case MM_ENCODING_UNKNOWN: break;
    }
    return "unknown";
}

static void print_loss(json *out, const mm_tensor *tensor) {
    json_key(out, "loss");
    json_open(out, '{');
    json_key(out, "largest_error");
    json_number(out, tensor->largest_error);
    if (tensor->has_sqnr) {
        json_key(out, "sqnr_millidb");
        json_signed(out, tensor->sqnr_millidb);
    }
    json_close(out, '}');
}

static void print_dims(json *out, const mm_tensor *tensor) {
    json_key(out, "dims");
    json_open(out, '[');
    for (uint32_t i = 0; i < tensor->rank; i++) {
        json_number(out, tensor->dims[i]);
    }
    json_close(out, ']');
}

static void print_features(workspace *work, const mm_tensor *tensor) {
    json_key(&work->out, "required_features");
    json_open(&work->out, '[');
    for (uint32_t i = 0; i < tensor->features.count; i++) {
        mm_bytes feature;
        if (mm_feature_at(work->bundle, tensor, i, &feature) == MM_OK) {
            json_text(&work->out, feature);
        }
    }
    json_close(&work->out, ']');
}

void dump_tensor(workspace *work, const mm_tensor *tensor) {
    json *out = &work->out;
    const bool known = tensor->status == MM_OK; /* of a foreign tensor only what every tensor has */
    const bool coded = known && tensor->encoding != MM_DENSE;
    uint64_t scratch = known ? mm_decode_scratch(work->bundle, tensor) : 0;
    bool possible = workspace_hold(work, &work->scratch, scratch);
    json_open(out, '{');
    if (coded && possible) {
        print_codes(work, tensor);
    }
    print_dims(out, tensor);
    json_key(out, "dtype");
    json_number(out, tensor->dtype);
    json_key(out, "encoding");
    json_name(out, encoding_name(tensor->encoding));
    if (tensor->has_loss) {
        print_loss(out, tensor);
    }
    json_key(out, "name");
    json_text(out, tensor->name);
    print_features(work, tensor);
    if (coded && possible) {
        print_scales(work, tensor);
        if (tensor->encoding == MM_PALETTE) {
            print_tables(work, tensor);
        }
    }
    print_values(work, tensor);
    if (coded && possible && tensor->encoding == MM_AFFINE) {
        print_zeros(work, tensor);
    }
    json_close(out, '}');
}
