#include "dense.h"

#include "bytes.h"
#include "kernels/kernels.h"
#include "tensor.h"

enum { PIECE = 512 }; /* elements that are converted at a time */

uint64_t mm_dense_scratch(const mm_bundle *bundle, const mm_tensor *tensor) {
    uint64_t raw = 0;
    if (tensor->small) {
        raw = mm_entry(bundle, tensor->values.payload).raw_size;
    } else if (tensor->chunks > 0) {
        raw = mm_entry(bundle, tensor->first_chunk).raw_size; /* the others have no more */
    }
    return mm_piece(raw) + mm_codec_scratch();
}

/* Floats of any width as binary32, exactly; a number of BFLOAT16 is the upper half of one. */
static void load_floats(uint32_t type, const uint8_t *bytes, size_t count, float *out) {
    if (type == MM_FLOAT16) {
        mm_choose_kernels()->widen(bytes, count, out);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        const uint32_t bits = type == MM_BFLOAT16 ? (uint32_t)mm_load16(bytes + 2 * i) << 16 : mm_load32(bytes + 4 * i);
        memcpy(&out[i], &bits, sizeof bits);
    }
}

void mm_convert_stored(const mm_stored *from, uint32_t type, uint8_t *out) {
    const mm_kernels *kernels = mm_choose_kernels();
    const uint32_t stored_type = from->tensor->stored_dtype;
    const size_t width = mm_type_bits(stored_type) / 8;
    const size_t size = type == MM_FLOAT16 ? sizeof(uint16_t) : sizeof(float);
    for (uint64_t done = 0; done < from->count; done += PIECE, out += PIECE * size) {
        const size_t count = (size_t)mm_min(PIECE, from->count - done);
        const uint64_t first = from->first + done;
        uint8_t joined[PIECE * sizeof(float)];
        float values[PIECE];
        const uint8_t *bytes = from->raw + first * width;
        if (from->stride > 0) {
            kernels->join_planes(from->raw + first, (size_t)from->stride, count, width, joined);
            bytes = joined;
        }
        load_floats(stored_type, bytes, count, values);
        if (type == MM_FLOAT16) {
            kernels->narrow(values, count, (uint16_t *)(void *)out);
        } else {
            memcpy(out, values, count * size);
        }
    }
}

static void copy(const mm_stored *from, uint32_t type, uint8_t *out) {
    const uint32_t bits = mm_type_bits(from->tensor->stored_dtype);
    if (from->tensor->stored_dtype != type) {
        mm_convert_stored(from, type, out);
    } else if (from->stride > 0) {
        const uint8_t *planes = from->raw + from->first;
        mm_choose_kernels()->join_planes(planes, (size_t)from->stride, (size_t)from->count, bits / 8, out);
    } else if (from->count > 0) {
        memcpy(out, from->raw + from->first * bits / 8, (size_t)mm_raw_size(type, from->count));
    }
}

mm_status mm_decode_dense(const mm_bundle *bundle, const mm_tensor *tensor, uint32_t type, uint64_t first,
                          uint64_t count, uint8_t *out, mm_arena scratch) {
    const bool small = tensor->small; /* one chunk, somewhere in its payload */
    const uint32_t first_payload = small ? tensor->values.payload : tensor->first_chunk;
    const uint64_t in_chunk = small ? tensor->elements : tensor->chunk_elements;
    mm_stored from = {.tensor = tensor};
    if (count == 0 && !small) {
        return MM_OK;
    }
    const uint32_t first_chunk = small ? 0 : (uint32_t)(first / in_chunk);
    const uint32_t end_chunk = small ? 1 : (uint32_t)mm_ceil_div(first + count, in_chunk);
    mm_status status = mm_check_codecs(bundle, first_payload + first_chunk, end_chunk - first_chunk);
    for (uint32_t chunk = first_chunk; chunk < end_chunk && status == MM_OK; chunk++) {
        const uint32_t payload = first_payload + chunk;
        const uint64_t start = chunk * in_chunk;
        const uint64_t elements = mm_min(in_chunk, tensor->elements - start);
        from.first = first > start ? first - start : 0;
        from.count = mm_min(elements, first + count - start) - from.first;
        from.stride = tensor->byte_planes ? elements : 0;
        if (!small && from.count == elements && from.stride == 0 && tensor->stored_dtype == type) {
            status = mm_read_bytes(bundle, payload, out, scratch); /* as it is */
        } else {
            mm_arena piece = scratch;
            status = mm_view_bytes(bundle, payload, &piece, &from.raw);
            if (status == MM_OK) {
                from.raw += tensor->values.offset;
                copy(&from, type, out);
            }
        }
        out += mm_raw_size(type, from.count);
    }
    return status;
}
