/* What the parts of the exercise share: checks, buffers of exact sizes, choices that the bytes make. */
#ifndef CHECKING_H
#define CHECKING_H

#include "mobilemodel.h"

#include <stdio.h>
#include <stdlib.h>

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition);                             \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

/* `data` is `size` bytes, and nothing behind them may be touched: also where size is 0. */
typedef struct buffer {
    void *memory;
    uint8_t *data;
    size_t size;
} buffer;

/* Numbers that depend on the bytes alone, for ranges and vectors. */
typedef struct choices {
    uint64_t state;
} choices;

static inline uint32_t choose(choices *from, uint64_t below) {
    from->state = from->state * 6364136223846793005u + 1442695040888963407u;
    return below == 0 ? 0 : (uint32_t)((from->state >> 33) % below);
}

/* `skew` bytes stand in front of data: 0 for what needs the alignment of its type. */
static inline buffer buffer_of(uint64_t size, size_t skew) {
    CHECK(size < SIZE_MAX / 2);
    skew += size == 0 && skew == 0;
    buffer out = {malloc((size_t)size + skew), NULL, (size_t)size};
    CHECK(out.memory != NULL);
    out.data = (uint8_t *)out.memory + skew;
    return out;
}

static inline void release(buffer *old) { free(old->memory); }

/* The parts. */
void exercise_tensor(const mm_bundle *bundle, const mm_tensor *tensor, choices *from);
void exercise_matrix(const mm_bundle *bundle, const mm_tensor *tensor, const float *whole, buffer scratch,
                     choices *from);
void exercise_fc(const mm_bundle *bundle, const mm_tensor *tensor, const float *whole, choices *from);
void exercise_content(const mm_bundle *bundle, choices *from);

/* A status that decoding may end with (spec/container.md §6, checks 12 to 16). */
bool decoding_status(mm_status status);

/* The same value; any NaN is the same as any other. */
bool same_float(float a, float b);

#endif
