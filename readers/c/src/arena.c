#include "arena.h"

mm_arena mm_arena_of(void *scratch, size_t size) {
    mm_arena arena = {(uint8_t *)scratch, scratch == NULL ? 0 : size};
    size_t skip = (MM_ALIGNMENT - (uintptr_t)scratch % MM_ALIGNMENT) % MM_ALIGNMENT;
    skip = skip < arena.left ? skip : arena.left;
    arena.at = arena.left == 0 ? arena.at : arena.at + skip;
    arena.left -= skip;
    return arena;
}

void *mm_take(mm_arena *arena, uint64_t size) {
    if (size > arena->left) {
        return NULL;
    }
    uint64_t rounded = (size + MM_ALIGNMENT - 1) / MM_ALIGNMENT * MM_ALIGNMENT;
    uint8_t *piece = arena->at;
    rounded = rounded < arena->left ? rounded : arena->left;
    arena->at += rounded;
    arena->left -= (size_t)rounded;
    return piece;
}
