/* Graph, labels and report. */
#include "checking.h"

#include <string.h>

/* Line k of labels names class k (container.md §4.1): the lines, one after the other, are the text. */
static void exercise_labels(const uint8_t *text, size_t size) {
    size_t at = 0;
    uint32_t lines = 0;
    mm_bytes label;
    for (; at < size || (size == 0 && lines == 0); lines++) {
        const uint8_t *end = at < size ? memchr(text + at, '\n', size - at) : NULL;
        size_t length = end == NULL ? size - at : (size_t)(end - text) - at;
        if (lines < 64) { /* each call takes a time linear in its number */
            CHECK(mm_label(text, size, lines, &label) == MM_OK && label.size == length);
            CHECK(length == 0 || label.data == text + at);
        }
        at += length + (end != NULL);
    }
    CHECK(mm_label(text, size, lines, &label) == MM_USAGE);
    CHECK(mm_label(text, size, UINT32_MAX, &label) == MM_USAGE);
}

void exercise_content(const mm_bundle *bundle, choices *from) {
    static const mm_content all[] = {MM_GRAPH, MM_LABELS, MM_REPORT};
    const int32_t payloads[] = {bundle->graph, bundle->labels, bundle->report};
    buffer scratch = buffer_of(mm_content_scratch(bundle), choose(from, 64));
    for (int i = 0; i < 3; i++) {
        int64_t size = mm_content_size(bundle, all[i]);
        CHECK((size < 0) == (payloads[i] < 0));
        buffer out = buffer_of(size < 0 ? 0 : (uint64_t)size, 0);
        mm_status status = mm_read_content(bundle, all[i], out.data, out.size, scratch.data, scratch.size);
        CHECK(size < 0 ? status == MM_USAGE
                       : decoding_status(status) || (status == MM_MALFORMED_CONTENT && all[i] == MM_LABELS));
        if (status == MM_OK && all[i] == MM_LABELS) {
            exercise_labels(out.data, out.size);
        }
        if (size > 0) {
            CHECK(mm_read_content(bundle, all[i], out.data, out.size - 1, scratch.data, scratch.size) == MM_USAGE);
        }
        release(&out);
    }
    release(&scratch);
}
