#include "sets.h"

#include <stdio.h>
#include <stdlib.h>

const mm_kernels *plain, *set;
static unsigned passed, failed;

void check(bool good, const char *kernel, const char *what, size_t number, size_t count) {
    if (good) {
        passed++;
    } else if (failed++ < 20) {
        printf("%s: %s is wrong: %s %zu, count %zu\n", set->name, kernel, what, number, count);
    }
}

uint32_t next_random(void) {
    static uint64_t state = 20240607;
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 32);
}

void *allocate(size_t size) {
    void *block = malloc(size);
    if (block == NULL && size > 0) {
        puts("out of memory");
        exit(2);
    }
    return block;
}

input random_input(size_t size) {
    size_t skip = next_random() % 16;
    input in;
    in.block = allocate(skip + size);
    in.data = in.block + skip;
    for (size_t i = 0; i < size; i++) {
        in.data[i] = (uint8_t)next_random();
    }
    return in;
}

int run_sets(const size_t *long_counts, size_t longs, void (*test_count)(size_t count), void (*test_more)(void)) {
    int usable;
    for (size_t i = 0; (set = mm_kernels_built(i, &usable)) != NULL; i++) {
        plain = set;
    }
    printf("chosen: %s\n", mm_choose_kernels()->name);
    for (size_t i = 0; (set = mm_kernels_built(i, &usable)) != NULL; i++) {
        printf("%s: %s\n", set->name, usable ? "runs" : "not on this processor");
        for (size_t count = 0; usable && count <= 300; count++) {
            test_count(count);
        }
        for (size_t j = 0; usable && j < longs; j++) {
            test_count(long_counts[j]);
        }
        if (usable && test_more != NULL) {
            test_more();
        }
    }
    printf("%u passed, %u failed\n", passed, failed);
    return failed == 0 ? 0 : 1;
}
