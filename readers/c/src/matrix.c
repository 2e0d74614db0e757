/* From dims to the matrix of codes: spec/tensors.md §3. */
#include "bytes.h"
#include "message.h"
#include "schema.h"
#include "tensor.h"

enum { MAX_VECTOR = 256 };

uint64_t mm_others_size(const mm_matrix *matrix, uint64_t count) { return mm_ceil_div(count * matrix->depth, 8); }

uint64_t mm_codes_size(const mm_matrix *matrix, uint64_t rows) {
    return rows * mm_others_size(matrix, matrix->codes_per_row); /* at depth 16 two rows of a byte for each code */
}

uint64_t mm_plane_size(const mm_matrix *matrix, uint64_t rows) { return rows * mm_ceil_div(matrix->codes_per_row, 8); }

/* The view and the order of its axes, as a Codes message has them. */
typedef struct mm_view {
    uint64_t size[MM_MAX_RANK];
    uint64_t perm[MM_MAX_RANK];
    uint32_t axes, perm_axes; /* MM_MAX_RANK + 1: more than that */
} mm_view;

/* segment and rows_per_block as they stand */
static const mm_slot codes_slots[] = {
    [CODES_ROW_AXES] = MM_SLOT(mm_matrix, row_axes),
    [CODES_DEPTH] = MM_SLOT(mm_matrix, depth),
    [CODES_VECTOR] = MM_SLOT(mm_matrix, vector),
    [CODES_SEGMENT] = MM_SLOT(mm_matrix, segment),
    [CODES_ROWS_PER_BLOCK] = MM_SLOT(mm_matrix, rows_per_block),
    [CODES_FIRST_PAYLOAD] = MM_SLOT(mm_matrix, first_payload),
    [CODES_SPLIT] = MM_SLOT(mm_matrix, split),
    [CODES_BACKGROUND] = MM_SLOT(mm_matrix, background),
};

/* The view's axes in the order of perm, and the step of each (§3.1). false: perm is no permutation of them. */
static bool permute(const mm_view *view, mm_matrix *matrix) {
    uint64_t steps[MM_MAX_RANK];
    uint64_t step = 1;
    uint32_t seen = 0;
    for (uint32_t axis = view->axes; axis > 0; axis--) {
        steps[axis - 1] = step;
        step *= view->size[axis - 1];
    }
    if (view->perm_axes != 0 && view->perm_axes != view->axes) {
        return false;
    }
    for (uint32_t i = 0; i < view->axes; i++) {
        const uint64_t axis = view->perm_axes == 0 ? i : view->perm[i];
        if (axis >= view->axes || (seen >> axis & 1) != 0) {
            return false;
        }
        seen |= UINT32_C(1) << axis;
        matrix->view[i] = view->size[axis];
        matrix->step[i] = steps[axis];
    }
    matrix->axes = view->axes;
    return true;
}

/* Rows, columns, segments and codes in a row (§3.1, §3.2). false: the segments do not divide the row. */
static bool divide(mm_matrix *matrix) {
    matrix->rows = matrix->columns = 1;
    for (uint32_t i = 0; i < matrix->axes; i++) {
        *(i < matrix->row_axes ? &matrix->rows : &matrix->columns) *= matrix->view[i];
    }
    if (matrix->segment == 0) {
        matrix->segment = matrix->columns;
    }
    if (matrix->segment > matrix->columns || (matrix->segment != 0 && matrix->columns % matrix->segment != 0)) {
        return false;
    }
    matrix->subvectors = mm_ceil_div(matrix->segment, matrix->vector);
    matrix->codes_per_row = matrix->segment == 0 ? 0 : matrix->columns / matrix->segment * matrix->subvectors;
    return true;
}

/* Blocks and where they begin (§3.3). */
static mm_status cut(const mm_limits *limits, mm_matrix *matrix) {
    matrix->rows_per_block = mm_min(matrix->rows_per_block, mm_max(matrix->rows, 1));
    if (matrix->rows == 0 || matrix->codes_per_row == 0) {
        return matrix->first_payload == 0 ? MM_OK : MM_MALFORMED_MANIFEST;
    }
    if (mm_codes_size(matrix, matrix->rows_per_block) > limits->block) {
        return MM_LIMIT_EXCEEDED; /* of a plane too, which is never larger */
    }
    matrix->blocks = (uint32_t)mm_ceil_div(matrix->rows, matrix->rows_per_block);
    return (uint64_t)matrix->blocks * (matrix->split ? 2 : 1) > limits->payloads ? MM_LIMIT_EXCEEDED : MM_OK;
}

static bool is_depth(uint32_t depth) { return depth == 1 || depth == 2 || depth == 4 || depth == 8 || depth == 16; }

mm_status mm_read_matrix(const mm_bundle *bundle, mm_reader codes, const mm_tensor *tensor, mm_matrix *matrix) {
    mm_view view;
    uint64_t elements;
    *matrix = (mm_matrix){0};
    MM_READ_MESSAGE(codes, codes_slots, matrix);
    view.axes = mm_read_numbers(mm_inner(codes, CODES_VIEW), view.size, MM_MAX_RANK);
    view.perm_axes = mm_read_numbers(mm_inner(codes, CODES_PERM), view.perm, MM_MAX_RANK);
    if (view.axes == 0) {
        memcpy(view.size, tensor->dims, sizeof view.size);
        view.axes = tensor->rank;
    }
    if (view.axes > MM_MAX_RANK || !mm_product(view.size, view.axes, bundle->limits.elements, &elements)) {
        return MM_LIMIT_EXCEEDED;
    }
    if (elements != tensor->elements || !permute(&view, matrix) || matrix->row_axes > matrix->axes ||
        !is_depth(matrix->depth) || matrix->vector == 0) {
        return MM_MALFORMED_MANIFEST;
    }
    if (matrix->vector > MAX_VECTOR) {
        return MM_LIMIT_EXCEEDED;
    }
    if (matrix->rows_per_block == 0 || (!matrix->split && matrix->background != 0) || !divide(matrix)) {
        return MM_MALFORMED_MANIFEST;
    }
    return cut(&bundle->limits, matrix);
}
