#include "uses.h"

#include <string.h>

#include "payload.h"
#include "tensor.h"

enum { MAX_POOL = 65536, DEFLATE_RATIO = 1032, DEFLATE_SLACK = 1024 };

void mm_begin_uses(mm_uses *uses, const mm_bundle *bundle) {
    uses->bundle = bundle;
    uses->count = 0;
    memset(uses->marks, 0, sizeof uses->marks);
}

static void mark(mm_uses *uses, uint32_t index) { uses->marks[index / 8] |= (uint8_t)(1u << index % 8); }

bool mm_all_used(const mm_uses *uses) {
    const uint32_t count = uses->bundle->payloads.count;
    for (uint32_t i = 0; i < count / 8; i++) {
        if (uses->marks[i] != 0xFF) {
            return false;
        }
    }
    return uses->marks[count / 8] == (1u << count % 8) - 1;
}

bool mm_sizes_suit(const mm_payload *payload) {
    switch (payload->codec) {
    case MM_STORED: return payload->raw_size == payload->stored_size;
    case MM_ZLIB:
    case MM_PNG:
        return payload->raw_size != 0 &&
               payload->raw_size <= (uint64_t)DEFLATE_RATIO * payload->stored_size + DEFLATE_SLACK;
    case MM_ZSTD: return payload->raw_size != 0;
    default: return true;
    }
}

mm_status mm_use_bytes(mm_uses *uses, uint32_t index, uint32_t limit, uint32_t *raw_size) {
    if (index >= uses->bundle->payloads.count) {
        return MM_MALFORMED_MANIFEST;
    }
    const mm_payload payload = mm_entry(uses->bundle, index);
    mark(uses, index);
    *raw_size = payload.raw_size;
    if (payload.raw_size > limit) {
        return MM_LIMIT_EXCEEDED;
    }
    return payload.codec == MM_PNG ? MM_MALFORMED_MANIFEST : MM_OK;
}

static bool may_use(mm_uses *uses, uint32_t count) {
    uses->count += count;
    return uses->count <= uses->bundle->limits.uses;
}

/* codecs.md §6 */
static mm_status use_slice(mm_uses *uses, const mm_slice *slice) {
    uint32_t raw_size;
    if (!may_use(uses, 1)) {
        return MM_LIMIT_EXCEEDED;
    }
    const mm_status status = mm_use_bytes(uses, slice->payload, uses->bundle->limits.table, &raw_size);
    if (status != MM_OK) {
        return status;
    }
    if (slice->size > raw_size || slice->offset > raw_size - slice->size) {
        return MM_MALFORMED_MANIFEST;
    }
    return slice->size != raw_size && raw_size > MAX_POOL ? MM_LIMIT_EXCEEDED : MM_OK;
}

/* What a run of payloads that a tensor uses alike holds. A plane and the other codes of its block take turns. */
typedef enum mm_run_kind { CHUNKS, BLOCKS, PLANES, OTHER_CODES } mm_run_kind;

/* Raw sizes are those of the last payload and of the others; of other codes, upper bounds: planes tell how many. There
 * is one payload at least. */
static mm_status use_run(mm_uses *uses, mm_run_kind kind, uint64_t first, uint32_t count, uint64_t raw_size,
                         uint64_t last_raw_size) {
    const uint32_t step = kind < PLANES ? 1 : 2;
    const uint32_t forbidden = kind == CHUNKS ? MM_PNG : MM_ZLIB;
    if (first + (uint64_t)(count - 1) * step >= uses->bundle->payloads.count) {
        return MM_MALFORMED_MANIFEST;
    }
    if (!may_use(uses, count)) {
        return MM_LIMIT_EXCEEDED;
    }
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t index = (uint32_t)first + i * step;
        const mm_payload payload = mm_entry(uses->bundle, index);
        const uint64_t wanted = i + 1 < count ? raw_size : last_raw_size;
        if (payload.codec == forbidden || payload.raw_size > wanted ||
            (payload.raw_size < wanted && kind != OTHER_CODES)) {
            return MM_MALFORMED_MANIFEST;
        }
        mark(uses, index);
    }
    return MM_OK;
}

static mm_status use_chunks(mm_uses *uses, const mm_tensor *tensor) {
    const uint32_t type = tensor->stored_dtype;
    if (tensor->chunks == 0) {
        return MM_OK;
    }
    const uint64_t last = tensor->elements - (tensor->chunks - 1) * tensor->chunk_elements;
    return use_run(uses, CHUNKS, tensor->first_chunk, tensor->chunks, mm_raw_size(type, tensor->chunk_elements),
                   mm_raw_size(type, last));
}

static mm_status use_blocks(mm_uses *uses, const mm_matrix *matrix) {
    const uint64_t first = matrix->first_payload, rows = matrix->rows_per_block, per_row = matrix->codes_per_row;
    const uint32_t blocks = matrix->blocks;
    if (blocks == 0) {
        return MM_OK;
    }
    const uint64_t last = matrix->rows - (blocks - 1) * rows;
    if (!matrix->split) {
        return use_run(uses, BLOCKS, first, blocks, mm_codes_size(matrix, rows), mm_codes_size(matrix, last));
    }
    const mm_status status =
        use_run(uses, PLANES, first, blocks, mm_plane_size(matrix, rows), mm_plane_size(matrix, last));
    if (status != MM_OK) {
        return status;
    }
    return use_run(uses, OTHER_CODES, first + 1, blocks, mm_others_size(matrix, rows * per_row),
                   mm_others_size(matrix, last * per_row));
}

mm_status mm_use_tensor(mm_uses *uses, const mm_tensor *tensor) {
    const mm_slice *slices[] = {
        tensor->small ? &tensor->values : NULL,
        tensor->encoding == MM_PALETTE ? &tensor->tables : NULL,
        tensor->has_scales ? &tensor->scales : NULL,
        tensor->has_zeros ? &tensor->zeros : NULL,
    };
    mm_status status = tensor->encoding == MM_DENSE ? use_chunks(uses, tensor) : use_blocks(uses, &tensor->matrix);
    for (size_t i = 0; i < sizeof slices / sizeof slices[0] && status == MM_OK; i++) {
        status = slices[i] == NULL ? MM_OK : use_slice(uses, slices[i]);
    }
    return status;
}
