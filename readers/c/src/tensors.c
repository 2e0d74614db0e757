/* The tensors of an open bundle. */
#include <string.h>

#include "manifest.h"
#include "message.h"
#include "schema.h"
#include "tensor.h"

mm_status mm_tensor_at(const mm_bundle *bundle, uint32_t index, mm_tensor *tensor) {
    mm_field member;
    if (!mm_member_at(bundle, bundle->tensors, index, &member)) {
        return MM_USAGE;
    }
    return mm_read_tensor(bundle, &member, tensor);
}

mm_status mm_next(const mm_bundle *bundle, mm_tensor *tensor) {
    mm_reader reader = {bundle->manifest.data, tensor->message.end, bundle->tensors.end};
    mm_field member;
    return mm_walk(&reader, &member) ? mm_read_tensor(bundle, &member, tensor) : MM_TENSOR_NOT_FOUND;
}

/* Below 0, 0 or above 0, as the bytes of the name of the tensor `member` stand before, at or behind those of `name`. */
static int compare_name(const mm_bundle *bundle, const mm_field *member, const char *name, size_t size) {
    const mm_reader message = {bundle->manifest.data, member->start, member->end};
    const mm_reader text = mm_inner(message, TENSOR_NAME);
    const size_t found = text.end - text.at;
    const int order = memcmp(text.data + text.at, name, found < size ? found : size);
    return order != 0 ? order : (found > size) - (found < size);
}

mm_status mm_find(const mm_bundle *bundle, const char *name, mm_tensor *tensor) {
    const size_t size = strlen(name);
    mm_reader reader = mm_members(bundle, bundle->tensors);
    mm_field member;
    while (mm_walk(&reader, &member)) {
        const int order = compare_name(bundle, &member, name, size);
        if (order == 0) {
            return mm_read_tensor(bundle, &member, tensor);
        }
        if (order > 0) { /* names ascend */
            break;
        }
    }
    return MM_TENSOR_NOT_FOUND;
}

mm_status mm_feature_at(const mm_bundle *bundle, const mm_tensor *tensor, uint32_t index, mm_bytes *feature) {
    mm_field member;
    if (!mm_member_at(bundle, tensor->features, index, &member)) {
        return MM_USAGE;
    }
    *feature = (mm_bytes){bundle->manifest.data + member.start, member.end - member.start};
    return MM_OK;
}

uint64_t mm_slices(const mm_tensor *tensor) { return tensor->rank == 0 ? 1 : tensor->dims[0]; }

uint64_t mm_slice_elements(const mm_tensor *tensor) {
    uint64_t elements = 1;
    for (uint32_t axis = 1; axis < tensor->rank; axis++) {
        elements *= tensor->dims[axis];
    }
    return elements;
}
