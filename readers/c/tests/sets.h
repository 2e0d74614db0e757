/* What the programs that compare kernels share: inputs that end where their memory ends, and the walk over all sets. */
#ifndef MM_TESTS_SETS_H
#define MM_TESTS_SETS_H

#include "kernels/kernels.h"

#include <stdbool.h>

/* The set at test, and the plain one. */
extern const mm_kernels *plain, *set;

/* Counts a comparison; the first failures are printed with the kernel's name and two numbers that say where. */
void check(bool good, const char *kernel, const char *what, size_t number, size_t count);

uint32_t next_random(void);

/* Never NULL, but for size 0. */
void *allocate(size_t size);

/* size random bytes, of any alignment, with nothing behind them; release the block. */
typedef struct input {
    uint8_t *block, *data;
} input;

input random_input(size_t size);

/* Runs test_count with 0 to 300 and with the long counts, then test_more where it is not NULL, for every set that this
 * processor can run. Prints the sets and the totals; returns the program's exit code. */
int run_sets(const size_t *long_counts, size_t longs, void (*test_count)(size_t count), void (*test_more)(void));

#endif
