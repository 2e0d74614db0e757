/*
 * The input is a file. The CRC-32 of its manifest, then those of its payloads, are made right first, so that changes of
 * manifest and payloads are not all found out by their checksums.
 */
#include "exercise.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

static void store(uint8_t *at, uLong number) {
    for (int i = 0; i < 4; i++) {
        at[i] = (uint8_t)(number >> 8 * i);
    }
}

static void repair_manifest(uint8_t *file, size_t size) {
    size_t at = 11, length = 0;
    for (unsigned shift = 0; at < size && shift < 35; shift += 7) {
        length |= (size_t)(file[at] & 127) << shift;
        if (file[at++] < 128) {
            break;
        }
    }
    if (size > 11 && length <= size - at) {
        store(file + 6, crc32(0, file + at, (uInt)length));
    }
}

/* Entry k stands 32 k bytes behind entry 0, its CRC-32 23 bytes within (container.md §3). */
static void repair_payloads(uint8_t *file, size_t size, const mm_limits *limits) {
    mm_bundle bundle;
    mm_payload payload;
    if (mm_open(&bundle, file, size, limits) != MM_OK) {
        return;
    }
    uint8_t *entries = file + (bundle.manifest.data - file) + bundle.payloads.start;
    for (uint32_t k = 0; k < bundle.payloads.count && mm_payload_at(&bundle, k, &payload) == MM_OK; k++) {
        store(entries + (size_t)32 * k + 23, crc32(0, file + payload.offset, payload.stored_size));
    }
    repair_manifest(file, size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    mm_limits limits = exercise_small_limits();
    uint8_t *file = malloc(size > 0 ? size : 1);
    if (size > 0) {
        memcpy(file, data, size);
    }
    repair_manifest(file, size);
    repair_payloads(file, size, &limits);
    exercise(file, size, &limits);
    free(file);
    return 0;
}
