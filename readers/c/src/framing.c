#include "framing.h"

#include "bytes.h"

enum { ALIGNMENT = 64, TAG_PADDING = 0x22, TAG_PAYLOAD = 0x2A };

/* Where the values of an entry's fixed-width fields stand, from the entry's tag on (container.md §3). */
enum { AT_OFFSET = 4, AT_STORED_SIZE = 13, AT_RAW_SIZE = 18, AT_CRC32 = 23, AT_CODEC = 28 };

mm_payload mm_entry(const mm_bundle *bundle, uint32_t index) {
    const uint8_t *entry = bundle->manifest.data + bundle->payloads.start + (size_t)index * MM_ENTRY_STRIDE;
    mm_payload payload = {
        .offset = mm_load64(entry + AT_OFFSET),
        .stored_size = mm_load32(entry + AT_STORED_SIZE),
        .raw_size = mm_load32(entry + AT_RAW_SIZE),
        .crc32 = mm_load32(entry + AT_CRC32),
        .codec = mm_load32(entry + AT_CODEC),
    };
    return payload;
}

mm_frame mm_frame_at(uint64_t position, uint32_t stored_size) {
    mm_frame frame = {0, 2, 0};
    for (uint32_t rest = stored_size >> 7; rest != 0; rest >>= 7) {
        frame.header++;
    }
    frame.padding = (uint32_t)((ALIGNMENT - (position + frame.header) % ALIGNMENT) % ALIGNMENT);
    if (frame.padding == 1) { /* no field has one byte */
        frame.padding = ALIGNMENT + 1;
    }
    frame.offset = position + frame.padding + frame.header;
    return frame;
}

bool mm_frame_holds(const mm_bundle *bundle, uint32_t index) {
    const mm_payload payload = mm_entry(bundle, index);
    uint64_t position = (uint64_t)(bundle->manifest.data - bundle->file.data) + bundle->manifest.size;
    if (index > 0) {
        const mm_payload before = mm_entry(bundle, index - 1);
        position = before.offset + before.stored_size;
    }
    const mm_frame frame = mm_frame_at(position, payload.stored_size);
    const uint8_t *p = bundle->file.data + position;
    if (frame.padding > 0) {
        if (p[0] != TAG_PADDING || p[1] != frame.padding - 2) {
            return false;
        }
        for (uint32_t i = 2; i < frame.padding; i++) {
            if (p[i] != 0) {
                return false;
            }
        }
        p += frame.padding;
    }
    if (*p++ != TAG_PAYLOAD) {
        return false;
    }
    uint32_t rest = payload.stored_size;
    for (uint32_t left = frame.header - 2; left > 0; left--, rest >>= 7) {
        if (*p++ != ((rest & 0x7F) | 0x80)) {
            return false;
        }
    }
    return *p == rest;
}
