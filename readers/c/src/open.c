/* Opening a bundle: spec/container.md §6, checks 1 to 5 and 11 here, the others in check.c. */
#include <string.h>
#include <zlib.h>

#include "bytes.h"
#include "check.h"
#include "framing.h"
#include "schema.h"
#include "uses.h"

enum { MAGIC_SIZE = 5, AT_CRC_TAG = 5, AT_CRC = 6, AT_MANIFEST_TAG = 10, HEAD_SIZE = 11, MAX_LENGTH_SIZE = 5 };
enum { TAG_CRC = 0x15, TAG_MANIFEST = 0x1A, TAG_SPEC_MAJOR = 0x08, SPEC_MAJOR = 1 };

#define KIB UINT32_C(1024)
#define MIB (1024 * KIB)

/* spec/security.md §3; a format does not bound what is a reader's own */
static const mm_limits format_limits = {
    .file = INT32_MAX,
    .manifest = 16 * MIB,
    .tensors = 65535,
    .payloads = MM_MAX_PAYLOADS,
    .elements = INT32_MAX,
    .block = 16 * MIB,
    .table = 64 * MIB,
    .graph = INT32_MAX,
    .labels = 16 * MIB,
    .report = 16 * MIB,
    .mean_picture = 64 * MIB,
    .uses = UINT32_MAX,
    .values = UINT32_MAX,
};

mm_limits mm_default_limits(void) {
    mm_limits limits = format_limits;
    limits.graph = 64 * MIB;
    limits.uses = UINT32_C(1) << 22;
    limits.values = 1024;
    return limits;
}

enum { LIMITS = sizeof(mm_limits) / sizeof(uint32_t) };

static mm_limits within_format(const mm_limits *asked) {
    uint32_t all[LIMITS], most[LIMITS];
    mm_limits limits;
    memcpy(all, asked, sizeof all);
    memcpy(most, &format_limits, sizeof most);
    for (size_t i = 0; i < LIMITS; i++) {
        all[i] = (uint32_t)mm_min(all[i], most[i]);
    }
    memcpy(&limits, all, sizeof limits);
    return limits;
}

/* Check 1 */
static mm_status check_head(mm_bytes file, const mm_limits *limits) {
    static const uint8_t magic[MAGIC_SIZE] = {0x0D, 0x4D, 0x4D, 0x42, 0x31};
    const size_t size = file.size < MAGIC_SIZE ? file.size : MAGIC_SIZE;
    if (size > 0 && memcmp(file.data, magic, size) != 0) {
        return MM_NOT_A_BUNDLE;
    }
    if (size < MAGIC_SIZE) {
        return MM_TRUNCATED;
    }
    if (file.size > limits->file) {
        return MM_LIMIT_EXCEEDED;
    }
    if (file.size <= HEAD_SIZE) {
        return MM_TRUNCATED;
    }
    return file.data[AT_CRC_TAG] == TAG_CRC && file.data[AT_MANIFEST_TAG] == TAG_MANIFEST ? MM_OK : MM_MALFORMED_WIRE;
}

/* Check 2 */
static mm_status find_manifest(mm_bytes file, const mm_limits *limits, mm_bytes *manifest) {
    const uint32_t end = (uint32_t)mm_min(file.size, HEAD_SIZE + MAX_LENGTH_SIZE);
    mm_reader reader = {file.data, HEAD_SIZE, end};
    uint64_t size;
    if (!mm_read_varint(&reader, &size)) {
        const bool cut_off = reader.at == end && end < HEAD_SIZE + MAX_LENGTH_SIZE && file.data[end - 1] >= 0x80;
        return cut_off ? MM_TRUNCATED : MM_MALFORMED_WIRE;
    }
    if (size > limits->manifest) {
        return MM_LIMIT_EXCEEDED;
    }
    if (size > file.size - reader.at) {
        return MM_TRUNCATED;
    }
    *manifest = (mm_bytes){file.data + reader.at, (size_t)size};
    return MM_OK;
}

/* Check 3 */
static mm_status check_version(mm_bytes manifest) {
    mm_reader reader = {manifest.data, 1, (uint32_t)manifest.size};
    uint64_t major;
    if (manifest.size == 0 || manifest.data[0] != TAG_SPEC_MAJOR || !mm_read_varint(&reader, &major)) {
        return MM_MALFORMED_WIRE;
    }
    return major == SPEC_MAJOR ? MM_OK : MM_UNSUPPORTED_VERSION;
}

/* Checks 4 to 11 */
static mm_status check_manifest(mm_bundle *bundle) {
    const mm_bytes manifest = bundle->manifest;
    mm_places places;
    if (crc32(0, manifest.data, (uInt)manifest.size) != mm_load32(bundle->file.data + AT_CRC)) {
        return MM_MANIFEST_CHECKSUM;
    }
    mm_status status = mm_check_grammar(manifest);
    if (status != MM_OK) {
        return status;
    }
    mm_read_manifest(bundle, &places);
    status = mm_check_limits(bundle, &places);
    status = status != MM_OK ? status : mm_check_places(bundle, &places);
    status = status != MM_OK ? status : mm_check_structure(bundle);
    if (status == MM_OK && bundle->payloads.count > 0 && !mm_frame_holds(bundle, 0)) {
        return MM_MISPLACED_PAYLOAD;
    }
    return status;
}

mm_status mm_open(mm_bundle *bundle, const void *data, size_t size, const mm_limits *limits) {
    const mm_limits defaults = mm_default_limits();
    *bundle = (mm_bundle){.file = {data, size}, .limits = within_format(limits == NULL ? &defaults : limits)};
    mm_status status = check_head(bundle->file, &bundle->limits);
    status = status != MM_OK ? status : find_manifest(bundle->file, &bundle->limits, &bundle->manifest);
    status = status != MM_OK ? status : check_version(bundle->manifest);
    return status != MM_OK ? status : check_manifest(bundle);
}
