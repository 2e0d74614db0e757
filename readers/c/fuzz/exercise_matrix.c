/* Palettes and affine tensors by their parts: codes, tables, scales, zero points, rows; each value made of them anew.
 */
#include "checking.h"
#include "reference.h"

#include <string.h>

/* Codes of some rows; the whole is `parts->codes`, where it could be read. */
static void exercise_codes(const mm_bundle *bundle, const mm_tensor *tensor, const uint32_t *whole, buffer scratch,
                           choices *from) {
    const mm_matrix *matrix = &tensor->matrix;
    uint64_t first = choose(from, matrix->rows + 1), count = choose(from, matrix->rows - first + 1);
    uint64_t numbers = count * matrix->codes_per_row;
    buffer part = buffer_of(4 * numbers, 0);
    uint32_t *codes = (uint32_t *)(void *)part.data;
    mm_status status = mm_codes(bundle, tensor, first, count, codes, (size_t)numbers, scratch.data, scratch.size);
    CHECK(decoding_status(status));
    if (whole != NULL) {
        CHECK(status == MM_OK);
        CHECK(numbers == 0 || memcmp(codes, whole + first * matrix->codes_per_row, part.size) == 0);
    }
    if (numbers > 0) {
        CHECK(mm_codes(bundle, tensor, first, count, codes, (size_t)numbers - 1, scratch.data, scratch.size) ==
              MM_USAGE);
    }
    CHECK(mm_codes(bundle, tensor, first, matrix->rows - first + 1, codes, SIZE_MAX, scratch.data, scratch.size) ==
          MM_USAGE);
    release(&part);
}

/* Every code within its range: 2^depth numbers, and the background of a split stream. */
static void check_codes(const mm_matrix *matrix, const uint32_t *codes) {
    for (uint64_t i = 0; i < matrix->rows * matrix->codes_per_row; i++) {
        CHECK(codes[i] < ((uint32_t)1 << matrix->depth) + matrix->split);
    }
}

/* Rows decoded, in stretches, against the parts. `values` gets all of them. */
static bool exercise_rows(const mm_bundle *bundle, const mm_tensor *tensor, const reference_parts *parts, uint32_t type,
                          uint64_t stretch, buffer scratch, float *values) {
    const mm_matrix *matrix = &tensor->matrix;
    uint64_t width = type == MM_FLOAT ? 4 : 2;
    for (uint64_t first = 0, count; first < matrix->rows; first += count) {
        count = stretch < matrix->rows - first ? stretch : matrix->rows - first;
        buffer out = buffer_of(count * matrix->columns * width, 0);
        mm_status status =
            mm_decode_rows(bundle, tensor, type, first, count, out.data, out.size, scratch.data, scratch.size);
        CHECK(decoding_status(status) && (parts == NULL || status == MM_OK));
        for (uint64_t i = 0; parts != NULL && i < count * matrix->columns; i++) {
            float expected = reference_value(tensor, parts, first + i / matrix->columns, i % matrix->columns);
            if (type == MM_FLOAT16 || tensor->dtype == MM_FLOAT16) {
                expected = reference_half(reference_rounded(expected));
            }
            float value =
                type == MM_FLOAT ? ((float *)(void *)out.data)[i] : reference_half(((uint16_t *)(void *)out.data)[i]);
            CHECK(same_float(value, expected));
            values[first * matrix->columns + i] = value;
        }
        release(&out);
        if (status != MM_OK) {
            return false;
        }
    }
    return true;
}

/* Row-major elements of the matrix, brought to their places, are the tensor. */
static void check_places(const mm_tensor *tensor, const float *values, const float *whole) {
    const mm_matrix *matrix = &tensor->matrix;
    uint64_t digits[MM_MAX_RANK] = {0}, place = 0;
    CHECK(matrix->rows * matrix->columns == tensor->elements);
    for (uint64_t i = 0; i < tensor->elements; i++) {
        CHECK(place < tensor->elements && same_float(values[i], whole[place]));
        for (uint32_t axis = matrix->axes; axis-- > 0;) {
            place += matrix->step[axis];
            if (++digits[axis] < matrix->view[axis]) {
                break;
            }
            place -= digits[axis] * matrix->step[axis];
            digits[axis] = 0;
        }
    }
}

static void check_matrix(const mm_tensor *tensor) {
    const mm_matrix *matrix = &tensor->matrix;
    CHECK(matrix->axes <= MM_MAX_RANK && matrix->row_axes <= matrix->axes);
    CHECK(matrix->rows_per_block >= 1 && matrix->vector >= 1);
    CHECK(matrix->columns == 0 || (matrix->segment > 0 && matrix->columns % matrix->segment == 0));
    uint64_t per_block = matrix->rows_per_block;
    CHECK(matrix->codes_per_row == 0 || matrix->rows == 0 ||
          matrix->blocks == (matrix->rows + per_block - 1) / per_block);
    CHECK(tensor->scales_by.row_group > 0 || !tensor->has_scales);
}

/* One of the slices; gives its buffer, and whether it could be read. */
typedef mm_status (*slice_reader)(const mm_bundle *, const mm_tensor *, void *, size_t, void *, size_t);

static bool read_slice(slice_reader reader, const mm_bundle *bundle, const mm_tensor *tensor, uint64_t size,
                       buffer scratch, buffer *out) {
    *out = buffer_of(size, 0);
    mm_status status = reader(bundle, tensor, out->data, out->size, scratch.data, scratch.size);
    CHECK(decoding_status(status) || (status == MM_USAGE && size == 0));
    if (size > 0) {
        CHECK(reader(bundle, tensor, out->data, out->size - 1, scratch.data, scratch.size) == MM_USAGE);
    }
    return status == MM_OK || status == MM_USAGE; /* there is none: it is not needed */
}

void exercise_matrix(const mm_bundle *bundle, const mm_tensor *tensor, const float *whole, buffer scratch,
                     choices *from) {
    const mm_matrix *matrix = &tensor->matrix;
    bool affine = tensor->encoding == MM_AFFINE;
    check_matrix(tensor);
    buffer tables, scales, zeros;
    uint64_t zeros_size = affine ? tensor->scales_by.count * (matrix->depth == 16 ? 2u : 1u) : 0;
    bool read = read_slice(mm_tables, bundle, tensor, affine ? 0 : tensor->tables.size, scratch, &tables);
    read &= read_slice(mm_scales, bundle, tensor, tensor->has_scales ? tensor->scales.size : 0, scratch, &scales);
    read &= read_slice(mm_zeros, bundle, tensor, zeros_size, scratch, &zeros);

    uint64_t numbers = matrix->rows * matrix->codes_per_row;
    buffer codes = buffer_of(4 * numbers, 0);
    reference_parts parts = {(const uint32_t *)(const void *)codes.data, tables.data, scales.data, zeros.data};
    mm_status status = mm_codes(bundle, tensor, 0, matrix->rows, (uint32_t *)(void *)codes.data, (size_t)numbers,
                                scratch.data, scratch.size);
    CHECK(decoding_status(status));
    CHECK((whole != NULL) == (read && status == MM_OK)); /* a tensor needs all of its parts, and no more */
    exercise_codes(bundle, tensor, status == MM_OK ? parts.codes : NULL, scratch, from);
    if (status == MM_OK) {
        check_codes(matrix, parts.codes);
    }
    const reference_parts *known = whole != NULL ? &parts : NULL;
    buffer values = buffer_of(4 * matrix->rows * matrix->columns, 0);
    float *floats = (float *)(void *)values.data;
    uint64_t stretch = 1 + choose(from, matrix->rows);
    exercise_rows(bundle, tensor, known, MM_FLOAT16, stretch, scratch, floats);
    if (exercise_rows(bundle, tensor, known, MM_FLOAT, matrix->rows_per_block, scratch, floats) && known != NULL) {
        check_places(tensor, floats, whole);
    }
    release(&values);
    release(&codes);
    release(&zeros);
    release(&scales);
    release(&tables);
}
