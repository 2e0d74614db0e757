/* How the matrix of codes stands in W, and vectors in its order: spec/tensors.md §3.1. */
#include "fc.h"

#include "tensor.h"

/* Elements from one row of W to the next divide every step: these axes choose a row. */
static bool choose_rows(const mm_axes *axes, uint64_t columns) {
    bool all = true;
    for (uint32_t i = 0; i < axes->count; i++) {
        all = all && axes->step[i] % columns == 0;
    }
    return all;
}

/* No index leads out of a row of W: these axes choose a column. */
static bool choose_columns(const mm_axes *axes, uint64_t columns) {
    uint64_t last = 0;
    for (uint32_t i = 0; i < axes->count; i++) {
        last += (axes->size[i] - 1) * axes->step[i];
    }
    return last < columns;
}

/* The axes are known, in elements; in the vector they are `unit` times closer. */
static void put_in_order(mm_order *order, uint64_t unit) {
    mm_axes *axes = &order->axes;
    order->count = 1;
    for (uint32_t i = 0; i < axes->count; i++) {
        axes->step[i] /= unit;
        order->count *= axes->size[i];
    }
    order->natural = axes->count == 0 || (axes->count == 1 && axes->step[0] == 1);
}

bool mm_orient(const mm_tensor *tensor, mm_orientation *orientation) {
    const uint64_t columns_of_w = mm_slice_elements(tensor);
    mm_axes *rows = &orientation->rows.axes, *columns = &orientation->columns.axes;
    mm_axes_of(&tensor->matrix, rows, columns);
    orientation->rows_are_rows = choose_rows(rows, columns_of_w) && choose_columns(columns, columns_of_w);
    if (!orientation->rows_are_rows && (!choose_rows(columns, columns_of_w) || !choose_columns(rows, columns_of_w))) {
        return false;
    }
    put_in_order(&orientation->rows, orientation->rows_are_rows ? columns_of_w : 1);
    put_in_order(&orientation->columns, orientation->rows_are_rows ? 1 : columns_of_w);
    return true;
}

/* Where the next value stands, after that at `place`; index has a number for each axis, 0 to begin with. */
static uint64_t next_place(const mm_axes *axes, uint64_t index[MM_MAX_RANK], uint64_t place) {
    for (uint32_t i = axes->count; i-- > 0;) {
        place += axes->step[i];
        if (++index[i] < axes->size[i]) {
            break;
        }
        place -= axes->size[i] * axes->step[i];
        index[i] = 0;
    }
    return place;
}

void mm_gather(const mm_order *order, const float *from, float *out) {
    uint64_t index[MM_MAX_RANK] = {0};
    uint64_t place = 0;
    for (uint64_t i = 0; i < order->count; i++) {
        out[i] = from[place];
        place = next_place(&order->axes, index, place);
    }
}

void mm_scatter(const mm_order *order, const float *from, const float *bias, float *y) {
    uint64_t index[MM_MAX_RANK] = {0};
    uint64_t place = 0;
    for (uint64_t i = 0; i < order->count; i++) {
        y[place] = bias == NULL ? from[i] : from[i] + bias[place];
        place = next_place(&order->axes, index, place);
    }
}
