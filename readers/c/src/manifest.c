#include "manifest.h"

#include <string.h>

#include "bytes.h"
#include "message.h"
#include "payload.h"
#include "schema.h"

/* ------------------------------------------------------------------------------------------------ sections */

mm_reader mm_members(const mm_bundle *bundle, mm_section section) {
    return (mm_reader){bundle->manifest.data, section.start, section.end};
}

bool mm_member_at(const mm_bundle *bundle, mm_section section, uint32_t index, mm_field *member) {
    mm_reader reader = mm_members(bundle, section);
    bool found = index < section.count && mm_walk(&reader, member);
    for (uint32_t i = 0; i < index && found; i++) {
        found = mm_walk(&reader, member);
    }
    return found;
}

/* The message that a member is. */
static bool message_at(const mm_bundle *bundle, mm_section section, uint32_t index, mm_reader *message) {
    mm_field member;
    const bool found = mm_member_at(bundle, section, index, &member);
    if (found) {
        *message = (mm_reader){bundle->manifest.data, member.start, member.end};
    }
    return found;
}

bool mm_equal_bytes(mm_bytes a, mm_bytes b) {
    return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

/* ------------------------------------------------------------------------------------------------ the manifest */

typedef struct mm_manifest {
    mm_bundle bundle;
    mm_places places;
} mm_manifest;

static const mm_slot manifest_slots[] = {
    [MANIFEST_SPEC_MINOR] = MM_SLOT(mm_manifest, bundle.spec_minor),
    [MANIFEST_REQUIRED_FEATURES] = MM_SLOT(mm_manifest, places.features),
    [MANIFEST_FILE_SIZE] = MM_SLOT(mm_manifest, places.file_size),
    [MANIFEST_PRODUCER] = MM_SLOT(mm_manifest, bundle.producer),
    [MANIFEST_SOURCES] = MM_SLOT(mm_manifest, bundle.sources),
    [MANIFEST_LICENCE] = MM_SLOT(mm_manifest, bundle.licence),
    [MANIFEST_DESCRIPTION] = MM_SLOT(mm_manifest, bundle.description),
    [MANIFEST_SCHEME] = MM_SLOT(mm_manifest, bundle.scheme),
    [MANIFEST_INPUTS] = MM_SLOT(mm_manifest, bundle.inputs),
    [MANIFEST_OUTPUTS] = MM_SLOT(mm_manifest, bundle.outputs),
    [MANIFEST_PREPROCESSING] = MM_SLOT(mm_manifest, bundle.preprocessing),
    [MANIFEST_GRAPH] = MM_SLOT(mm_manifest, bundle.graph),
    [MANIFEST_LABELS] = MM_SLOT(mm_manifest, bundle.labels),
    [MANIFEST_REPORT] = MM_SLOT(mm_manifest, bundle.report),
    [MANIFEST_TENSORS] = MM_SLOT(mm_manifest, bundle.tensors),
    [MANIFEST_PAYLOADS] = MM_SLOT(mm_manifest, bundle.payloads),
};

void mm_read_manifest(mm_bundle *bundle, mm_places *places) {
    mm_manifest all = {.bundle = *bundle};
    const mm_reader message = {bundle->manifest.data, 0, (uint32_t)bundle->manifest.size};
    all.bundle.graph = all.bundle.labels = all.bundle.report = -1;
    const uint32_t found = MM_READ_MESSAGE(message, manifest_slots, &all);
    *bundle = all.bundle;
    *places = all.places;
    places->has_minor = mm_has(found, MANIFEST_SPEC_MINOR);
    places->has_file_size = mm_has(found, MANIFEST_FILE_SIZE);
}

mm_status mm_payload_at(const mm_bundle *bundle, uint32_t index, mm_payload *payload) {
    if (index >= bundle->payloads.count) {
        return MM_USAGE;
    }
    *payload = mm_entry(bundle, index);
    return MM_OK;
}

/* ------------------------------------------------------------------------------------------------ sources, values */

void mm_read_source(mm_reader message, mm_source *source) {
    static const mm_slot slots[] = {
        [SOURCE_FORMAT] = MM_SLOT(mm_source, format),
        [SOURCE_FILE_NAME] = MM_SLOT(mm_source, file_name),
        [SOURCE_SHA256] = MM_SLOT(mm_source, sha256),
    };
    *source = (mm_source){0};
    MM_READ_MESSAGE(message, slots, source);
}

void mm_read_value(mm_reader message, mm_value *value) {
    static const mm_slot slots[] = {
        [VALUE_NAME] = MM_SLOT(mm_value, name),
        [VALUE_DTYPE] = MM_SLOT(mm_value, dtype),
    };
    static const mm_slot shape_slots[] = {[SHAPE_DIMENSIONS] = MM_SLOT(mm_value, dimensions)};
    *value = (mm_value){0};
    value->has_shape = mm_has(MM_READ_MESSAGE(message, slots, value), VALUE_SHAPE);
    MM_READ_MESSAGE(mm_inner(message, VALUE_SHAPE), shape_slots, value);
}

void mm_read_dimension(mm_reader message, mm_dimension *dimension) {
    static const mm_slot slots[] = {
        [DIMENSION_SIZE] = MM_SLOT(mm_dimension, size),
        [DIMENSION_SYMBOL] = MM_SLOT(mm_dimension, symbol),
    };
    *dimension = (mm_dimension){0};
    const uint32_t found = MM_READ_MESSAGE(message, slots, dimension);
    dimension->has_size = mm_has(found, DIMENSION_SIZE);
    dimension->has_symbol = mm_has(found, DIMENSION_SYMBOL);
}

mm_status mm_source_at(const mm_bundle *bundle, uint32_t index, mm_source *source) {
    mm_reader message;
    if (!message_at(bundle, bundle->sources, index, &message)) {
        return MM_USAGE;
    }
    mm_read_source(message, source);
    return MM_OK;
}

static mm_status value_at(const mm_bundle *bundle, mm_section values, uint32_t index, mm_value *value) {
    mm_reader message;
    if (!message_at(bundle, values, index, &message)) {
        return MM_USAGE;
    }
    mm_read_value(message, value);
    return MM_OK;
}

mm_status mm_input_at(const mm_bundle *bundle, uint32_t index, mm_value *value) {
    return value_at(bundle, bundle->inputs, index, value);
}

mm_status mm_output_at(const mm_bundle *bundle, uint32_t index, mm_value *value) {
    return value_at(bundle, bundle->outputs, index, value);
}

mm_status mm_dimension_at(const mm_bundle *bundle, const mm_value *value, uint32_t index, mm_dimension *dimension) {
    mm_reader message;
    if (!message_at(bundle, value->dimensions, index, &message)) {
        return MM_USAGE;
    }
    mm_read_dimension(message, dimension);
    return MM_OK;
}

/* ------------------------------------------------------------------------------------------------ preprocessing */

enum { MAX_CHANNELS = 3, COLOUR_ORDER_GREY = 3 };
enum { LAST_MODE = 3, LAST_KERNEL = 4, LAST_COLOUR_ORDER = 3, LAST_LAYOUT = 2 };

static const mm_slot preprocessing_slots[] = {
    [PREPROCESSING_INPUT] = MM_SLOT(mm_preprocessing, input),
    [PREPROCESSING_CROP_HEIGHT] = MM_SLOT(mm_preprocessing, crop_height),
    [PREPROCESSING_CROP_WIDTH] = MM_SLOT(mm_preprocessing, crop_width),
    [PREPROCESSING_COLOUR_ORDER] = MM_SLOT(mm_preprocessing, colour_order),
    [PREPROCESSING_LAYOUT] = MM_SLOT(mm_preprocessing, layout),
};

static const mm_slot resize_slots[] = {
    [RESIZE_MODE] = MM_SLOT(mm_preprocessing, resize_mode),
    [RESIZE_HEIGHT] = MM_SLOT(mm_preprocessing, resize_height),
    [RESIZE_WIDTH] = MM_SLOT(mm_preprocessing, resize_width),
    [RESIZE_KERNEL] = MM_SLOT(mm_preprocessing, resize_kernel),
    [RESIZE_ANTIALIAS] = MM_SLOT(mm_preprocessing, antialias),
};

static const mm_slot mean_picture_slots[] = {
    [MEAN_PICTURE_PAYLOAD] = MM_SLOT(mm_preprocessing, mean_payload),
    [MEAN_PICTURE_HEIGHT] = MM_SLOT(mm_preprocessing, mean_height),
    [MEAN_PICTURE_WIDTH] = MM_SLOT(mm_preprocessing, mean_width),
};

/* Returns how many there are, MAX_CHANNELS + 1 standing for all that do not fit. */
static uint32_t read_floats(mm_reader run, float values[MAX_CHANNELS]) {
    const uint32_t count = (run.end - run.at) / sizeof *values;
    for (uint32_t i = 0; i < count && i < MAX_CHANNELS; i++) {
        values[i] = mm_load_float(run.data + run.at + i * sizeof *values);
    }
    return (uint32_t)mm_min(count, MAX_CHANNELS + 1);
}

void mm_read_preprocessing(mm_reader message, mm_preprocessing *out) {
    *out = (mm_preprocessing){0};
    const uint32_t found = MM_READ_MESSAGE(message, preprocessing_slots, out);
    out->has_resize = mm_has(found, PREPROCESSING_RESIZE);
    MM_READ_MESSAGE(mm_inner(message, PREPROCESSING_RESIZE), resize_slots, out);
    out->mean_payload = mm_has(found, PREPROCESSING_MEAN_PICTURE) ? 0 : -1;
    MM_READ_MESSAGE(mm_inner(message, PREPROCESSING_MEAN_PICTURE), mean_picture_slots, out);
    out->mean_count = read_floats(mm_inner(message, PREPROCESSING_MEAN), out->mean);
    out->scale_count = read_floats(mm_inner(message, PREPROCESSING_SCALE), out->scale);
    out->channels = out->colour_order == COLOUR_ORDER_GREY ? 1 : MAX_CHANNELS;
    out->supported = out->resize_mode <= LAST_MODE && out->resize_kernel <= LAST_KERNEL &&
                     out->colour_order <= LAST_COLOUR_ORDER && out->layout <= LAST_LAYOUT;
}

mm_status mm_preprocessing_at(const mm_bundle *bundle, uint32_t index, mm_preprocessing *preprocessing) {
    mm_reader message;
    if (!message_at(bundle, bundle->preprocessing, index, &message)) {
        return MM_USAGE;
    }
    mm_read_preprocessing(message, preprocessing);
    return MM_OK;
}
