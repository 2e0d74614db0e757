/* The input is a file, as it stands: with the fuzzers' limits, then with larger ones. */
#include "exercise.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    mm_limits small = exercise_small_limits(), large = exercise_large_limits();
    exercise(data, size, &small);
    exercise(data, size, &large);
    return 0;
}
