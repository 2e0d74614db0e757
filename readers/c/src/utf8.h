#ifndef MM_UTF8_H
#define MM_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Whether text[0 .. size) is UTF-8 as rule 7 of spec/container.md §5 wants it: no overlong form, no surrogate, nothing
 * above U+10FFFF, no sequence that is cut off. text may be NULL where size is 0. */
bool mm_is_utf8(const uint8_t *text, size_t size);

#endif
