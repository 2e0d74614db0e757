/* The caller's scratch, handed out from its start in pieces of whole cache lines. Nothing is given back: a copy of the
 * struct, made before, is the mark to return to. */
#ifndef MM_ARENA_H
#define MM_ARENA_H

#include <stddef.h>
#include <stdint.h>

#define MM_ALIGNMENT 64u

typedef struct mm_arena {
    uint8_t *at;
    size_t left;
} mm_arena;

/* From the first whole cache line of the scratch on. NULL has nothing. */
mm_arena mm_arena_of(void *scratch, size_t size);

/* NULL where less is left. A piece of size 0 is not NULL as long as anything is left. */
void *mm_take(mm_arena *arena, uint64_t size);

/* Bytes that a piece takes of an arena; an arena as a whole takes MM_ALIGNMENT more. */
static inline uint64_t mm_piece(uint64_t size) { return size + MM_ALIGNMENT - 1; }

#endif
