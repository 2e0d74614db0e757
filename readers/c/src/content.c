/* The graph, the labels, the report and mean pictures. */
#include <string.h>

#include "bytes.h"
#include "payload.h"
#include "utf8.h"

/* The payload's index, or -1 where the bundle has none of it. */
static int32_t index_of(const mm_bundle *bundle, mm_content content) {
    switch (content) {
    case MM_GRAPH: return bundle->graph;
    case MM_LABELS: return bundle->labels;
    case MM_REPORT: return bundle->report;
    }
    return -1;
}

int64_t mm_content_size(const mm_bundle *bundle, mm_content content) {
    const int32_t index = index_of(bundle, content);
    return index < 0 ? -1 : (int64_t)mm_entry(bundle, (uint32_t)index).raw_size;
}

uint64_t mm_content_scratch(const mm_bundle *bundle) {
    (void)bundle; /* the content goes to the output, and the codecs' state is all that is left */
    return mm_codec_scratch() + MM_ALIGNMENT;
}

mm_status mm_read_content(const mm_bundle *bundle, mm_content content, void *out, size_t out_size, void *scratch,
                          size_t scratch_size) {
    const int64_t size = mm_content_size(bundle, content);
    if (size < 0 || (uint64_t)size > out_size) {
        return MM_USAGE;
    }
    const uint32_t index = (uint32_t)index_of(bundle, content);
    const mm_status status = mm_read_bytes(bundle, index, out, mm_arena_of(scratch, scratch_size));
    if (status == MM_OK && content == MM_LABELS && !mm_is_utf8(out, (size_t)size)) {
        return MM_MALFORMED_CONTENT;
    }
    return status;
}

mm_status mm_label(const void *labels, size_t size, uint32_t index, mm_bytes *label) {
    const uint8_t *line = labels;
    for (size_t left = size;; index--) {
        const uint8_t *end = left == 0 ? NULL : memchr(line, '\n', left);
        if (index == 0) {
            *label = (mm_bytes){line, end == NULL ? left : (size_t)(end - line)};
            return MM_OK;
        }
        if (end == NULL || (size_t)(end - line) + 1 == left) { /* the last line, its line feed there or not */
            return MM_USAGE;
        }
        left -= (size_t)(end - line) + 1;
        line = end + 1;
    }
}

mm_status mm_mean_picture(const mm_bundle *bundle, const mm_preprocessing *preprocessing, float *out, size_t out_count,
                          void *scratch, size_t scratch_size) {
    const int32_t index = preprocessing->mean_payload;
    if (index < 0 || (uint32_t)index >= bundle->payloads.count) {
        return MM_USAGE;
    }
    const uint32_t raw_size = mm_entry(bundle, (uint32_t)index).raw_size;
    if (mm_ceil_div(raw_size, sizeof *out) > out_count) {
        return MM_USAGE;
    }
    uint8_t *raw = (uint8_t *)out;
    const mm_status status = mm_read_bytes(bundle, (uint32_t)index, raw, mm_arena_of(scratch, scratch_size));
    for (size_t i = 0; i < raw_size / sizeof *out && status == MM_OK; i++) {
        out[i] = mm_load_float(raw + i * sizeof *out);
    }
    return status;
}
