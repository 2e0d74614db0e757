/* Reading tables, scales and zero points: spec/codecs.md §6. */
#include "bytes.h"
#include "kernels/plain.h"
#include "values.h"

void mm_slices_of(const mm_tensor *tensor, const mm_slice *slices[MM_PARAMETERS]) {
    const bool affine = tensor->encoding == MM_AFFINE;
    slices[0] = affine ? NULL : &tensor->tables;
    slices[1] = affine || tensor->has_scales ? &tensor->scales : NULL;
    slices[2] = affine && tensor->has_zeros ? &tensor->zeros : NULL;
}

/* Number of the first slice that lies in the same payload: small tables and scales often share a pool. */
static int first_of_payload(const mm_slice *slices[MM_PARAMETERS], int slice) {
    int first = 0;
    while (slices[first] == NULL || slices[first]->payload != slices[slice]->payload) {
        first++;
    }
    return first;
}

uint64_t mm_parameters_scratch(const mm_bundle *bundle, const mm_tensor *tensor) {
    const mm_slice *slices[MM_PARAMETERS];
    mm_slices_of(tensor, slices);
    uint64_t size = 0;
    for (int i = 0; i < MM_PARAMETERS; i++) {
        if (slices[i] == NULL || first_of_payload(slices, i) < i) {
            continue;
        }
        mm_payload payload = mm_entry(bundle, slices[i]->payload);
        size += payload.codec == MM_STORED ? 0 : mm_piece(payload.raw_size);
    }
    return size == 0 ? 0 : size + mm_codec_scratch();
}

mm_status mm_check_parameters(const mm_bundle *bundle, const mm_tensor *tensor) {
    const mm_slice *slices[MM_PARAMETERS];
    mm_slices_of(tensor, slices);
    mm_status status = MM_OK;
    for (int i = 0; i < MM_PARAMETERS && status == MM_OK; i++) {
        status = slices[i] == NULL ? MM_OK : mm_check_codec(bundle, slices[i]->payload);
    }
    return status;
}

mm_status mm_read_slice(const mm_bundle *bundle, mm_slice slice, mm_arena *scratch, const uint8_t **data) {
    mm_status status = mm_view_bytes(bundle, slice.payload, scratch, data);
    if (status == MM_OK) {
        *data += slice.offset;
    }
    return status;
}

mm_status mm_read_parameters(const mm_bundle *bundle, const mm_tensor *tensor, mm_arena *scratch,
                             mm_parameters *parameters) {
    const mm_slice *slices[MM_PARAMETERS];
    const uint8_t *raw[MM_PARAMETERS] = {NULL, NULL, NULL};
    mm_slices_of(tensor, slices);
    for (int i = 0; i < MM_PARAMETERS; i++) {
        if (slices[i] == NULL) {
            continue;
        }
        int first = first_of_payload(slices, i);
        mm_status status = MM_OK;
        if (first < i) {
            raw[i] = raw[first] - slices[first]->offset + slices[i]->offset;
        } else {
            status = mm_read_slice(bundle, *slices[i], scratch, &raw[i]);
        }
        if (status != MM_OK) {
            return status;
        }
    }
    *parameters = (mm_parameters){.tables = raw[0], .scales = raw[1], .zeros = raw[2]};
    return MM_OK;
}

void mm_load_floats(uint32_t type, const uint8_t *bytes, uint64_t count, float *out) {
    if (type == MM_TYPE_F16) {
        mm_choose_kernels()->widen(bytes, (size_t)count, out);
        return;
    }
    for (uint64_t i = 0; i < count; i++) {
        out[i] = mm_load_float(bytes + 4 * i);
    }
}

float mm_scale_at(const mm_tensor *tensor, const mm_parameters *parameters, uint64_t index) {
    if (tensor->encoding == MM_AFFINE || tensor->scale_type != MM_TYPE_F16) {
        return mm_load_float(parameters->scales + 4 * index);
    }
    return mm_half_to_float(mm_load16(parameters->scales + 2 * index)); /* without a kernel: many rows have one each */
}

int32_t mm_zero_at(const mm_tensor *tensor, const mm_parameters *parameters, uint64_t index) {
    if (parameters->zeros == NULL) {
        return 1 << (tensor->matrix.depth - 1);
    }
    return tensor->matrix.depth == 16 ? mm_load16(parameters->zeros + 2 * index) : parameters->zeros[index];
}
