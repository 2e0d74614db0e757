/* Codec 1: one zlib stream (spec/codecs.md §3). */
#include "payload.h"

#define ZLIB_CONST
#include <zlib.h>

enum { LARGEST_WINDOW_BITS = 15 };

/* zlib 1.2.13 takes 7 KiB, and a window of 32 KiB where a stream ends too soon; what stands in for it takes more. */
uint64_t mm_zlib_scratch(void) { return UINT64_C(96) * 1024; }

static void *take(void *arena, unsigned items, unsigned size) { return mm_take(arena, (uint64_t)items * size); }

static void give_back(void *arena, void *piece) {
    (void)arena;
    (void)piece;
}

mm_status mm_decode_zlib(const uint8_t *stored, size_t stored_size, uint8_t *raw, size_t raw_size, mm_arena scratch) {
    z_stream stream = {
        .next_in = stored,
        .avail_in = (uInt)stored_size, /* a file has less than 2^31 bytes, a payload of bytes or a block too */
        .next_out = raw,
        .avail_out = (uInt)raw_size,
        .zalloc = take,
        .zfree = give_back,
        .opaque = &scratch,
    };
    if (inflateInit2(&stream, LARGEST_WINDOW_BITS) != Z_OK) {
        return MM_ERROR;
    }
    /* One call with room for all: inflate then refers back to raw itself and needs no window. */
    int result = inflate(&stream, Z_FINISH);
    bool whole = result == Z_STREAM_END && stream.avail_in == 0 && stream.avail_out == 0;
    inflateEnd(&stream);
    if (result == Z_MEM_ERROR) {
        return MM_ERROR;
    }
    return whole ? MM_OK : MM_MALFORMED_STREAM;
}
