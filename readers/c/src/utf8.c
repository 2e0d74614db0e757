#include "utf8.h"

#include <string.h>

/* Bytes of the sequence that begins with `lead`, and what its second byte may be; 0 where no sequence begins so. The
 * narrower ranges of second bytes are what keeps out overlong forms, surrogates and numbers above U+10FFFF. */
static size_t sequence(uint8_t lead, uint8_t *low, uint8_t *high) {
    *low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
    *high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
    return lead < 0xC2 ? 0 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : lead < 0xF5 ? 4 : 0;
}

bool mm_is_utf8(const uint8_t *text, size_t size) {
    size_t at = 0;
    while (at < size) {
        uint64_t eight;
        if (size - at >= sizeof eight) {
            memcpy(&eight, text + at, sizeof eight);
            if ((eight & UINT64_C(0x8080808080808080)) == 0) {
                at += sizeof eight;
                continue;
            }
        }
        if (text[at] < 0x80) {
            at++;
            continue;
        }
        uint8_t low, high;
        size_t length = sequence(text[at], &low, &high);
        if (length == 0 || length > size - at || text[at + 1] < low || text[at + 1] > high) {
            return false;
        }
        for (size_t i = 2; i < length; i++) {
            if ((text[at + i] & 0xC0) != 0x80) {
                return false;
            }
        }
        at += length;
    }
    return true;
}
