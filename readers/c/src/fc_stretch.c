/* Stretches of a row that share a table and a scale: spec/tensors.md §3.2, for codes of single values. */
#include "fc.h"

mm_run mm_stretch_at(const mm_tensor *tensor, uint64_t row, uint64_t column, uint64_t end) {
    mm_run run = mm_run_at(tensor, row, column, end);
    if (tensor->tables_by.across == 1 && tensor->scales_by.across == 1) {
        run.count = end - column;
    }
    return run;
}

static bool begin_at(const mm_matrix *matrix, const mm_grouping *by, uint64_t unit) {
    const bool segments_do = matrix->segment == matrix->columns || matrix->segment % unit == 0;
    return by->across <= 1 || (segments_do && by->col_group % unit == 0);
}

bool mm_stretches_begin_at(const mm_tensor *tensor, uint64_t unit) {
    return begin_at(&tensor->matrix, &tensor->tables_by, unit) && begin_at(&tensor->matrix, &tensor->scales_by, unit);
}
