/* Codec 3: one zstd frame (spec/codecs.md §5). */
#include "bytes.h"
#include "payload.h"

#if MM_WITH_ZSTD

#define ZSTD_STATIC_LINKING_ONLY
#include <zstd.h>
#include <zstd_errors.h>

enum { SMALLEST_WINDOW = 1 << 10, LARGEST_WINDOW = 16 << 20 };

uint64_t mm_zstd_scratch(void) { return mm_piece(ZSTD_estimateDCtxSize()); }

static uint64_t window_of(uint8_t descriptor) {
    uint64_t base = (uint64_t)1 << (10 + (descriptor >> 3));
    return base + base / 8 * (descriptor & 7);
}

static uint64_t load(const uint8_t *p, size_t size) {
    uint64_t value = 0;
    for (size_t i = 0; i < size; i++) {
        value |= (uint64_t)p[i] << (8 * i);
    }
    return value;
}

static bool header_holds(const uint8_t *frame, size_t size, uint64_t raw_size) {
    static const uint8_t dictionary_widths[4] = {0, 1, 2, 4};
    static const uint8_t content_widths[4] = {0, 2, 4, 8};
    if (size < 5 || mm_load32(frame) != ZSTD_MAGICNUMBER) {
        return false;
    }
    const uint8_t descriptor = frame[4];
    const bool single_segment = (descriptor & 0x20) != 0;
    const bool reserved = (descriptor & 0x08) != 0;
    size_t dictionary_width = dictionary_widths[descriptor & 3];
    size_t content_width = descriptor < 0x40 && single_segment ? 1 : content_widths[descriptor >> 6];
    const uint8_t *at = frame + 5;
    if (reserved || content_width == 0 || size - 5 < !single_segment + dictionary_width + content_width) {
        return false;
    }
    uint64_t window = single_segment ? raw_size : window_of(*at++);
    uint64_t dictionary = load(at, dictionary_width);
    uint64_t content = load(at + dictionary_width, content_width) + (content_width == 2 ? 256 : 0);
    const uint64_t largest_window = mm_min(mm_max(raw_size, SMALLEST_WINDOW), LARGEST_WINDOW);
    return content == raw_size && dictionary == 0 && window <= largest_window;
}

mm_status mm_decode_zstd(const uint8_t *stored, size_t stored_size, uint8_t *raw, size_t raw_size, mm_arena scratch) {
    /* libzstd decodes frames that follow, and passes over skippable ones: the first has to be all there is. */
    if (!header_holds(stored, stored_size, raw_size) ||
        ZSTD_findFrameCompressedSize(stored, stored_size) != stored_size) {
        return MM_MALFORMED_STREAM;
    }
    size_t state_size = ZSTD_estimateDCtxSize();
    void *state = mm_take(&scratch, state_size);
    ZSTD_DCtx *context = state == NULL ? NULL : ZSTD_initStaticDCtx(state, state_size);
    if (context == NULL) {
        return MM_ERROR;
    }
    size_t result = ZSTD_decompressDCtx(context, raw, raw_size, stored, stored_size);
    if (ZSTD_getErrorCode(result) == ZSTD_error_memory_allocation) {
        return MM_ERROR;
    }
    return result == raw_size ? MM_OK : MM_MALFORMED_STREAM;
}

#else

uint64_t mm_zstd_scratch(void) { return 0; }

mm_status mm_decode_zstd(const uint8_t *stored, size_t stored_size, uint8_t *raw, size_t raw_size, mm_arena scratch) {
    (void)stored;
    (void)stored_size;
    (void)raw;
    (void)raw_size;
    (void)scratch;
    return MM_UNSUPPORTED_CODEC;
}

#endif
