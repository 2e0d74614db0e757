#include "payload.h"

#include "bytes.h"
#include "framing.h"
#include "kernels/kernels.h"

uint64_t mm_codec_scratch(void) { return mm_max(mm_zlib_scratch(), mm_zstd_scratch()); }

static mm_status check_codec(uint32_t codec) {
    uint32_t last = mm_zstd_scratch() > 0 ? MM_ZSTD : MM_PNG;
    return codec <= last ? MM_OK : MM_UNSUPPORTED_CODEC;
}

mm_status mm_check_codec(const mm_bundle *bundle, uint32_t index) { return check_codec(mm_entry(bundle, index).codec); }

mm_status mm_check_codecs(const mm_bundle *bundle, uint32_t first, uint32_t count) {
    mm_status status = MM_OK;
    for (uint32_t i = 0; i < count && status == MM_OK; i++) {
        status = mm_check_codec(bundle, first + i);
    }
    return status;
}

mm_status mm_check_payload(const mm_bundle *bundle, uint32_t index) {
    if (!mm_frame_holds(bundle, index)) {
        return MM_MISPLACED_PAYLOAD;
    }
    mm_payload payload = mm_entry(bundle, index);
    uint32_t crc32 = mm_choose_kernels()->crc32(0, bundle->file.data + payload.offset, payload.stored_size);
    return crc32 == payload.crc32 ? MM_OK : MM_PAYLOAD_CHECKSUM;
}

/* Checks 13 and 14, and what is common to all that follows. */
static mm_status check(const mm_bundle *bundle, uint32_t index, mm_payload *payload, const uint8_t **stored) {
    *payload = mm_entry(bundle, index);
    *stored = bundle->file.data + payload->offset;
    mm_status status = check_codec(payload->codec);
    return status != MM_OK ? status : mm_check_payload(bundle, index);
}

static mm_status decode_bytes(const mm_payload *payload, const uint8_t *stored, uint8_t *out, mm_arena scratch) {
    switch (payload->codec) {
    case MM_STORED:
        if (payload->raw_size > 0) {
            memcpy(out, stored, payload->raw_size);
        }
        return MM_OK;
    case MM_ZLIB: return mm_decode_zlib(stored, payload->stored_size, out, payload->raw_size, scratch);
    case MM_ZSTD: return mm_decode_zstd(stored, payload->stored_size, out, payload->raw_size, scratch);
    default: /* mm_open refuses a PNG that is to be bytes */ return MM_UNSUPPORTED_CODEC;
    }
}

mm_status mm_read_bytes(const mm_bundle *bundle, uint32_t index, uint8_t *out, mm_arena scratch) {
    mm_payload payload;
    const uint8_t *stored;
    mm_status status = check(bundle, index, &payload, &stored);
    return status != MM_OK ? status : decode_bytes(&payload, stored, out, scratch);
}

/* shape is NULL for a payload of bytes. */
static mm_status view(const mm_bundle *bundle, uint32_t index, const mm_packed_shape *shape, mm_arena *scratch,
                      const uint8_t **raw) {
    mm_payload payload;
    const uint8_t *stored;
    mm_status status = check(bundle, index, &payload, &stored);
    if (status != MM_OK) {
        return status;
    }
    if (shape != NULL && payload.raw_size != mm_matrix_size(*shape)) {
        return MM_MALFORMED_STREAM;
    }
    if (payload.codec == MM_STORED) {
        *raw = stored;
        return MM_OK;
    }
    uint8_t *piece = mm_take(scratch, shape == NULL ? payload.raw_size : mm_matrix_piece(*shape));
    if (piece == NULL) {
        return MM_ERROR;
    }
    *raw = piece;
    if (shape != NULL && payload.codec == MM_PNG) {
        return mm_decode_png(stored, payload.stored_size, payload.crc32, *shape, piece, *scratch);
    }
    return decode_bytes(&payload, stored, piece, *scratch);
}

mm_status mm_view_bytes(const mm_bundle *bundle, uint32_t index, mm_arena *scratch, const uint8_t **raw) {
    return view(bundle, index, NULL, scratch, raw);
}

mm_status mm_view_matrix(const mm_bundle *bundle, uint32_t index, mm_packed_shape shape, mm_arena *scratch,
                         const uint8_t **raw) {
    return view(bundle, index, &shape, scratch, raw);
}
