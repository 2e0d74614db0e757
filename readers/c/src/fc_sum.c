/* Sums of rows, each times a value of x. */
#include "fc.h"

#include "bytes.h"

/* So many rows are summed up in binary32, before their sums are added to those in binary64. */
enum { ROWS_AT_A_TIME = 256 };

uint64_t mm_sums_scratch(uint64_t count) { return mm_piece(count * sizeof(float)) + mm_piece(count * sizeof(double)); }

bool mm_start_sums(uint64_t count, mm_arena *scratch, mm_sums *sums) {
    *sums = (mm_sums){.count = count};
    sums->totals = mm_take(scratch, count * sizeof(double));
    sums->recent = mm_take(scratch, count * sizeof(float));
    if (sums->totals == NULL || sums->recent == NULL) {
        return false;
    }
    for (uint64_t i = 0; i < count; i++) {
        sums->totals[i] = 0;
        sums->recent[i] = 0;
    }
    return true;
}

void mm_end_row(mm_sums *sums) {
    if (++sums->rows < ROWS_AT_A_TIME) {
        return;
    }
    sums->rows = 0;
    for (uint64_t i = 0; i < sums->count; i++) {
        sums->totals[i] += (double)sums->recent[i];
        sums->recent[i] = 0;
    }
}

void mm_finish_sums(mm_sums *sums) {
    for (uint64_t i = 0; i < sums->count; i++) {
        sums->recent[i] = (float)(sums->totals[i] + (double)sums->recent[i]);
    }
}
