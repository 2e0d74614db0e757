#include "check.h"

#include <string.h>

#include "bytes.h"
#include "framing.h"
#include "message.h"
#include "payload.h"
#include "schema.h"
#include "tensor.h"
#include "uses.h"

enum { MAX_FEATURES = 64, MAX_NAME = 1024, MAX_STRING = 65536, MAX_SIDE = 16384, SHA256_SIZE = 32 };
enum { MODE_SHORT = 2 };

/* ------------------------------------------------------------------------------------------------ checks 6 and 7 */

static bool strings_fit(const mm_bundle *bundle, mm_section strings) {
    mm_reader reader = mm_members(bundle, strings);
    mm_field field;
    while (mm_walk(&reader, &field)) {
        if (field.end - field.start > MAX_STRING) {
            return false;
        }
    }
    return true;
}

static bool sources_fit(const mm_bundle *bundle) {
    mm_reader members = mm_members(bundle, bundle->sources);
    mm_reader message;
    if (bundle->sources.count > bundle->limits.values) {
        return false;
    }
    while (mm_next_message(&members, &message)) {
        mm_source source;
        mm_read_source(message, &source);
        if (source.format.size > MAX_STRING || source.file_name.size > MAX_STRING) {
            return false;
        }
    }
    return true;
}

/* The length of the text that is this field of a message; 0 where it is not set. */
static uint32_t text_size(mm_reader message, uint32_t number) {
    const mm_reader text = mm_inner(message, number);
    return text.end - text.at;
}

static bool values_fit(const mm_bundle *bundle, mm_section values) {
    mm_reader members = mm_members(bundle, values);
    mm_reader message;
    if (values.count > bundle->limits.values) { /* names are compared in pairs */
        return false;
    }
    while (mm_next_message(&members, &message)) {
        mm_value value;
        mm_read_value(message, &value);
        if (value.name.size > MAX_NAME || value.dimensions.count > bundle->limits.values) {
            return false;
        }
        mm_reader dimensions = mm_members(bundle, value.dimensions);
        while (mm_next_message(&dimensions, &message)) {
            if (text_size(message, DIMENSION_SYMBOL) > MAX_STRING) {
                return false;
            }
        }
    }
    return true;
}

static bool preprocessing_fits(const mm_bundle *bundle) {
    mm_reader members = mm_members(bundle, bundle->preprocessing);
    mm_reader message;
    while (mm_next_message(&members, &message)) {
        if (text_size(message, PREPROCESSING_INPUT) > MAX_STRING) {
            return false;
        }
    }
    return true;
}

mm_status mm_check_limits(const mm_bundle *bundle, const mm_places *places) {
    bool fit = bundle->tensors.count <= bundle->limits.tensors && bundle->payloads.count <= bundle->limits.payloads;
    mm_reader reader = mm_members(bundle, bundle->tensors);
    mm_field member;
    if (places->features.count > MAX_FEATURES) {
        return MM_LIMIT_EXCEEDED;
    }
    while (mm_walk(&reader, &member)) { /* check 6 of each tensor stands before check 7 of any */
        mm_tensor tensor;
        fit = mm_read_tensor_head(bundle, &member, &tensor) && fit;
        if (tensor.features.count > MAX_FEATURES) {
            return MM_LIMIT_EXCEEDED;
        }
        fit = fit && tensor.name.size <= MAX_NAME && strings_fit(bundle, tensor.features);
    }
    if (places->features.count > 0) { /* version 1.0 names none */
        return MM_UNSUPPORTED_FEATURE;
    }
    fit = fit && bundle->producer.size <= MAX_STRING && bundle->licence.size <= MAX_STRING &&
          bundle->description.size <= MAX_STRING && bundle->scheme.size <= MAX_STRING && sources_fit(bundle) &&
          values_fit(bundle, bundle->inputs) && values_fit(bundle, bundle->outputs) && preprocessing_fits(bundle);
    return fit ? MM_OK : MM_LIMIT_EXCEEDED;
}

/* ------------------------------------------------------------------------------------------------ check 8 */

/* All entries have the five fields and nothing else: 32 bytes from tag to tag, with these tags in their places. */
static bool entries_hold(const mm_bundle *bundle) {
    const mm_section entries = bundle->payloads;
    if (entries.end - entries.start != entries.count * MM_ENTRY_STRIDE) {
        return false;
    }
    for (uint32_t at = entries.start; at < entries.end; at += MM_ENTRY_STRIDE) {
        const uint8_t *entry = bundle->manifest.data + at;
        if (entry[0] != 0x8A || entry[1] != 0x01 || entry[2] != 0x1D || entry[3] != 0x09 || entry[12] != 0x15 ||
            entry[17] != 0x1D || entry[22] != 0x25 || entry[27] != 0x2D) {
            return false;
        }
    }
    return true;
}

mm_status mm_check_places(const mm_bundle *bundle, const mm_places *places) {
    uint64_t position = (uint64_t)(bundle->manifest.data - bundle->file.data) + bundle->manifest.size;
    bool misplaced = false;
    if (!places->has_minor || !places->has_file_size || !entries_hold(bundle)) {
        return MM_MALFORMED_MANIFEST;
    }
    for (uint32_t i = 0; i < bundle->payloads.count; i++) {
        const mm_payload payload = mm_entry(bundle, i);
        const mm_frame frame = mm_frame_at(position, payload.stored_size);
        misplaced = misplaced || payload.offset != frame.offset;
        position = frame.offset + payload.stored_size;
    }
    if (places->file_size != position) {
        return MM_MALFORMED_MANIFEST;
    }
    if (bundle->file.size != position) {
        return bundle->file.size < position ? MM_TRUNCATED : MM_TRAILING_DATA;
    }
    return misplaced ? MM_MISPLACED_PAYLOAD : MM_OK;
}

/* ------------------------------------------------------------------------------------------------ check 9, values */

static bool source_holds(const mm_source *source) {
    const uint8_t *name = source->file_name.data;
    const size_t size = source->file_name.size;
    if (source->format.size == 0 || (source->sha256.size != 0 && source->sha256.size != SHA256_SIZE)) {
        return false;
    }
    for (size_t i = 0; i < size; i++) {
        if (name[i] == '/' || name[i] == '\\' || name[i] == 0) {
            return false;
        }
    }
    const bool dots = (size == 1 && name[0] == '.') || (size == 2 && name[0] == '.' && name[1] == '.');
    return !dots && (size < 2 || name[1] != ':');
}

static bool sources_hold(const mm_bundle *bundle) {
    mm_reader members = mm_members(bundle, bundle->sources);
    mm_reader message;
    while (mm_next_message(&members, &message)) {
        mm_source source;
        mm_read_source(message, &source);
        if (!source_holds(&source)) {
            return false;
        }
    }
    return true;
}

/* The name of a value, or the input that a preprocessing is for: field 1 of both, without their other fields. */
static mm_bytes name_of(mm_reader message) {
    const mm_reader name = mm_inner(message, VALUE_NAME);
    return (mm_bytes){name.data + name.at, name.end - name.at};
}

/* Whether one of the members has this name. */
static bool is_named(mm_reader members, mm_bytes name) {
    mm_reader message;
    while (mm_next_message(&members, &message)) {
        if (mm_equal_bytes(name_of(message), name)) {
            return true;
        }
    }
    return false;
}

static mm_status check_values(const mm_bundle *bundle, mm_section values) {
    mm_reader members = mm_members(bundle, values);
    mm_reader before = {members.data, members.at, members.at};
    mm_reader message;
    for (; mm_next_message(&members, &message); before.end = members.at) {
        const mm_bytes name = name_of(message);
        if (name.size == 0 || is_named(before, name)) {
            return MM_MALFORMED_MANIFEST;
        }
    }
    return MM_OK;
}

static bool floats_hold(const float *values, uint32_t count, uint32_t channels) {
    if (count != 0 && count != 1 && count != channels) {
        return false;
    }
    for (uint32_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &values[i], sizeof bits);
        if ((bits & 0x7F800000) == 0x7F800000) { /* infinite, or no number */
            return false;
        }
    }
    return true;
}

/* preprocessing.md §8, but for the names of inputs */
static mm_status check_preprocessing(mm_uses *uses, const mm_preprocessing *p) {
    const uint32_t sides[] = {p->resize_height, p->resize_width, p->crop_height,
                              p->crop_width,    p->mean_height,  p->mean_width};
    if ((p->crop_height == 0) != (p->crop_width == 0) ||
        (p->has_resize && (p->resize_mode == 0 || p->resize_height == 0 || p->resize_width == 0)) ||
        (p->resize_mode == MODE_SHORT && p->resize_height != p->resize_width)) {
        return MM_MALFORMED_MANIFEST;
    }
    for (size_t i = 0; i < sizeof sides / sizeof sides[0]; i++) {
        if (sides[i] > MAX_SIDE) {
            return MM_LIMIT_EXCEEDED;
        }
    }
    if (!floats_hold(p->mean, p->mean_count, p->channels) || !floats_hold(p->scale, p->scale_count, p->channels)) {
        return MM_MALFORMED_MANIFEST;
    }
    if (p->mean_payload < 0) {
        return MM_OK;
    }
    uint32_t raw_size;
    const uint32_t limit = uses->bundle->limits.mean_picture;
    const uint64_t size = (uint64_t)4 * p->mean_height * p->mean_width * p->channels;
    if (p->mean_count != 0 || size == 0) {
        return MM_MALFORMED_MANIFEST;
    }
    const mm_status status = mm_use_bytes(uses, (uint32_t)p->mean_payload, limit, &raw_size);
    return status == MM_OK && raw_size != size ? MM_MALFORMED_MANIFEST : status;
}

static mm_status check_all_preprocessing(mm_uses *uses) {
    const mm_bundle *bundle = uses->bundle;
    const mm_reader inputs = mm_members(bundle, bundle->inputs);
    mm_reader members = mm_members(bundle, bundle->preprocessing);
    mm_reader before = {members.data, members.at, members.at};
    mm_reader message;
    if (bundle->preprocessing.count > bundle->inputs.count) {
        return MM_MALFORMED_MANIFEST; /* one of them names no input, or one that another names */
    }
    for (; mm_next_message(&members, &message); before.end = members.at) {
        mm_preprocessing preprocessing;
        mm_read_preprocessing(message, &preprocessing);
        if (!is_named(inputs, preprocessing.input) || is_named(before, preprocessing.input)) {
            return MM_MALFORMED_MANIFEST;
        }
        const mm_status status = check_preprocessing(uses, &preprocessing);
        if (status != MM_OK) {
            return status;
        }
    }
    return MM_OK;
}

/* ------------------------------------------------------------------------------------------------ checks 9 and 10 */

/* Whether the name is one, and stands behind the one before (the first tensor: behind an empty one). */
static bool name_holds(mm_bytes before, mm_bytes name) {
    const size_t common = before.size < name.size ? before.size : name.size;
    const int order = common == 0 ? 0 : memcmp(before.data, name.data, common);
    return name.size > 0 && memchr(name.data, 0, name.size) == NULL &&
           (order < 0 || (order == 0 && before.size < name.size));
}

static mm_status check_tensors(mm_uses *uses, bool *any_foreign) {
    mm_reader reader = mm_members(uses->bundle, uses->bundle->tensors);
    mm_field member;
    mm_bytes before = {reader.data, 0};
    *any_foreign = false;
    while (mm_walk(&reader, &member)) {
        mm_tensor tensor;
        mm_status status = mm_read_tensor(uses->bundle, &member, &tensor);
        status = name_holds(before, tensor.name) ? status : MM_MALFORMED_MANIFEST;
        if (status == MM_OK && tensor.status == MM_OK) {
            status = mm_use_tensor(uses, &tensor);
        }
        if (status != MM_OK) {
            return status;
        }
        *any_foreign = *any_foreign || tensor.status != MM_OK;
        before = tensor.name;
    }
    return MM_OK;
}

/* index -1: there is none */
static mm_status check_content(mm_uses *uses, int32_t index, uint32_t limit) {
    uint32_t raw_size;
    return index < 0 ? MM_OK : mm_use_bytes(uses, (uint32_t)index, limit, &raw_size);
}

mm_status mm_check_structure(const mm_bundle *bundle) {
    mm_uses uses;
    bool any_foreign;
    mm_begin_uses(&uses, bundle);
    mm_status status = check_tensors(&uses, &any_foreign);
    status = status != MM_OK ? status : check_content(&uses, bundle->graph, bundle->limits.graph);
    status = status != MM_OK ? status : check_content(&uses, bundle->labels, bundle->limits.labels);
    status = status != MM_OK ? status : check_content(&uses, bundle->report, bundle->limits.report);
    status = status != MM_OK || sources_hold(bundle) ? status : MM_MALFORMED_MANIFEST;
    status = status != MM_OK ? status : check_values(bundle, bundle->inputs);
    status = status != MM_OK ? status : check_values(bundle, bundle->outputs);
    status = status != MM_OK ? status : check_all_preprocessing(&uses);
    for (uint32_t i = 0; i < bundle->payloads.count && status == MM_OK; i++) {
        const mm_payload payload = mm_entry(bundle, i);
        status = mm_sizes_suit(&payload) ? MM_OK : MM_MALFORMED_MANIFEST;
    }
    return status == MM_OK && !any_foreign && !mm_all_used(&uses) ? MM_MALFORMED_MANIFEST : status;
}
