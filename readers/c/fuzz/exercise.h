/*
 * Everything that the public interface offers, done to some bytes: open them, look at all there is, decode every tensor
 * in every way, compute on it. Every buffer has exactly the size that the interface asks for, so that a sanitizer, or
 * valgrind, sees one byte too many. Answers that contradict each other, or the specification, end the process (abort).
 */
#ifndef EXERCISE_H
#define EXERCISE_H

#include "mobilemodel.h"

/* Limits under which one exercise takes well below a millisecond. */
mm_limits exercise_small_limits(void);

/* Limits for files that stand on a disk: a second at most. */
mm_limits exercise_large_limits(void);

void exercise(const uint8_t *data, size_t size, const mm_limits *limits);

#endif
