#include "exercise.h"
#include "checking.h"

#include <string.h>

mm_limits exercise_small_limits(void) {
    mm_limits limits = mm_default_limits();
    limits.manifest = 1u << 16;
    limits.tensors = 32;
    limits.payloads = 256;
    limits.elements = 1u << 12;
    limits.block = 1u << 14;
    limits.table = 1u << 14;
    limits.graph = limits.labels = limits.report = limits.mean_picture = 1u << 12;
    limits.uses = 1u << 10;
    limits.values = 16;
    return limits;
}

mm_limits exercise_large_limits(void) {
    mm_limits limits = mm_default_limits();
    limits.elements = 1u << 20;
    limits.block = limits.table = limits.graph = limits.labels = limits.report = limits.mean_picture = 1u << 22;
    return limits;
}

bool decoding_status(mm_status status) {
    switch (status) {
    case MM_OK:
    case MM_MISPLACED_PAYLOAD:
    case MM_PAYLOAD_CHECKSUM:
    case MM_MALFORMED_STREAM:
    case MM_UNSUPPORTED_FEATURE:
    case MM_UNSUPPORTED_CODEC:
    case MM_UNSUPPORTED_ENCODING: return true;
    default: return false;
    }
}

static bool opening_status(mm_status status) {
    return status == MM_OK || (status >= MM_NOT_A_BUNDLE && status <= MM_MISPLACED_PAYLOAD) ||
           status == MM_UNSUPPORTED_VERSION || status == MM_UNSUPPORTED_FEATURE || status == MM_LIMIT_EXCEEDED;
}

/* ------------------------------------------------------------------------------------------------ opening twice */

static bool same_bytes(mm_bytes a, const uint8_t *a_file, mm_bytes b, const uint8_t *b_file) {
    return a.size == b.size && (a.size == 0 || a.data - a_file == b.data - b_file);
}

static bool same_section(mm_section a, mm_section b) {
    return a.start == b.start && a.end == b.end && a.count == b.count;
}

static bool same_bundle(const mm_bundle *a, const mm_bundle *b) {
    const uint8_t *a_file = a->file.data, *b_file = b->file.data;
    return same_bytes(a->file, a_file, b->file, b_file) && same_bytes(a->manifest, a_file, b->manifest, b_file) &&
           a->spec_minor == b->spec_minor && same_bytes(a->producer, a_file, b->producer, b_file) &&
           same_bytes(a->licence, a_file, b->licence, b_file) &&
           same_bytes(a->description, a_file, b->description, b_file) &&
           same_bytes(a->scheme, a_file, b->scheme, b_file) && same_section(a->sources, b->sources) &&
           same_section(a->inputs, b->inputs) && same_section(a->outputs, b->outputs) &&
           same_section(a->preprocessing, b->preprocessing) && same_section(a->tensors, b->tensors) &&
           same_section(a->payloads, b->payloads) && a->graph == b->graph && a->labels == b->labels &&
           a->report == b->report;
}

/* The limits change whether the bytes open, never what they hold; where the bytes stand in memory changes nothing. */
static void open_again(const mm_bundle *bundle, mm_status status, const uint8_t *data, size_t size,
                       const mm_limits *limits, choices *from) {
    mm_bundle other;
    buffer moved = buffer_of(size, 1 + choose(from, 7));
    if (size > 0) {
        memcpy(moved.data, data, size);
    }
    mm_status moved_status = mm_open(&other, moved.data, size, limits);
    CHECK(moved_status == status);
    CHECK(status != MM_OK || same_bundle(bundle, &other));
    release(&moved);

    mm_status unlimited = mm_open(&other, data, size, NULL);
    CHECK(opening_status(unlimited));
    CHECK(status != MM_OK || (unlimited == MM_OK && same_bundle(bundle, &other)));
    CHECK(unlimited == MM_OK || status != MM_OK);
}

/* ------------------------------------------------------------------------------------------------ accessors */

static uint32_t seen; /* so that no look at a view is left out */

static void look(const mm_bundle *bundle, mm_bytes view) {
    if (view.size == 0) {
        return;
    }
    CHECK(view.data >= bundle->manifest.data);
    CHECK(view.size <= bundle->manifest.size - (size_t)(view.data - bundle->manifest.data));
    for (size_t i = 0; i < view.size; i++) {
        seen += view.data[i];
    }
}

static void look_at_payloads(const mm_bundle *bundle) {
    mm_payload payload;
    for (uint32_t i = 0; i < bundle->payloads.count; i++) {
        CHECK(mm_payload_at(bundle, i, &payload) == MM_OK);
        CHECK(payload.offset % 64 == 0 && payload.offset <= bundle->file.size);
        CHECK(payload.stored_size <= bundle->file.size - payload.offset);
    }
    CHECK(mm_payload_at(bundle, bundle->payloads.count, &payload) == MM_USAGE);
    CHECK(mm_payload_at(bundle, UINT32_MAX, &payload) == MM_USAGE);
}

static void look_at_value(const mm_bundle *bundle, const mm_value *value) {
    mm_dimension dimension;
    look(bundle, value->name);
    CHECK(value->name.size >= 1 && value->name.size <= 1024);
    for (uint32_t i = 0; i < value->dimensions.count; i++) {
        CHECK(mm_dimension_at(bundle, value, i, &dimension) == MM_OK);
        CHECK(value->has_shape && !(dimension.has_size && dimension.has_symbol));
        if (dimension.has_symbol) {
            look(bundle, dimension.symbol);
        }
    }
    CHECK(mm_dimension_at(bundle, value, value->dimensions.count, &dimension) == MM_USAGE);
}

static void look_at_preprocessing(const mm_bundle *bundle, uint32_t index, choices *from) {
    mm_preprocessing preprocessing;
    CHECK(mm_preprocessing_at(bundle, index, &preprocessing) == MM_OK);
    look(bundle, preprocessing.input);
    CHECK(preprocessing.channels == 1 || preprocessing.channels == 3);
    CHECK(preprocessing.mean_count <= 3 && preprocessing.scale_count <= 3);
    CHECK((preprocessing.crop_height == 0) == (preprocessing.crop_width == 0));
    uint64_t count = preprocessing.mean_payload < 0
                         ? 0
                         : (uint64_t)preprocessing.mean_height * preprocessing.mean_width * preprocessing.channels;
    buffer scratch = buffer_of(mm_content_scratch(bundle), choose(from, 64));
    buffer picture = buffer_of(4 * count, 0);
    mm_status status = mm_mean_picture(bundle, &preprocessing, (float *)(void *)picture.data, (size_t)count,
                                       scratch.data, scratch.size);
    CHECK(preprocessing.mean_payload < 0 ? status == MM_USAGE : decoding_status(status));
    if (count > 0) {
        CHECK(mm_mean_picture(bundle, &preprocessing, (float *)(void *)picture.data, (size_t)count - 1, scratch.data,
                              scratch.size) == MM_USAGE);
    }
    release(&picture);
    release(&scratch);
}

static void look_around(const mm_bundle *bundle, choices *from) {
    mm_source source;
    mm_value value;
    mm_preprocessing preprocessing;
    look(bundle, bundle->producer);
    look(bundle, bundle->licence);
    look(bundle, bundle->description);
    look(bundle, bundle->scheme);
    for (uint32_t i = 0; i < bundle->sources.count; i++) {
        CHECK(mm_source_at(bundle, i, &source) == MM_OK);
        look(bundle, source.format);
        look(bundle, source.file_name);
        look(bundle, source.sha256);
        CHECK(source.format.size > 0 && (source.sha256.size == 0 || source.sha256.size == 32));
    }
    for (uint32_t i = 0; i < bundle->inputs.count; i++) {
        CHECK(mm_input_at(bundle, i, &value) == MM_OK);
        look_at_value(bundle, &value);
    }
    for (uint32_t i = 0; i < bundle->outputs.count; i++) {
        CHECK(mm_output_at(bundle, i, &value) == MM_OK);
        look_at_value(bundle, &value);
    }
    for (uint32_t i = 0; i < bundle->preprocessing.count; i++) {
        look_at_preprocessing(bundle, i, from);
    }
    CHECK(mm_source_at(bundle, bundle->sources.count, &source) == MM_USAGE);
    CHECK(mm_input_at(bundle, bundle->inputs.count, &value) == MM_USAGE);
    CHECK(mm_output_at(bundle, bundle->outputs.count, &value) == MM_USAGE);
    CHECK(mm_preprocessing_at(bundle, bundle->preprocessing.count, &preprocessing) == MM_USAGE);
}

/* ------------------------------------------------------------------------------------------------ tensors */

static bool same_tensor(const mm_tensor *a, const mm_tensor *b) {
    const mm_matrix *m = &a->matrix, *n = &b->matrix;
    bool same = a->name.data == b->name.data && a->name.size == b->name.size && a->dtype == b->dtype &&
                a->rank == b->rank && a->elements == b->elements && a->encoding == b->encoding &&
                a->status == b->status && a->message.start == b->message.start && a->message.end == b->message.end &&
                memcmp(a->dims, b->dims, a->rank * sizeof a->dims[0]) == 0;
    if (same && a->status == MM_OK && a->encoding != MM_DENSE) {
        same = m->rows == n->rows && m->columns == n->columns && m->depth == n->depth && m->blocks == n->blocks &&
               m->first_payload == n->first_payload && m->codes_per_row == n->codes_per_row && a->entries == b->entries;
    }
    return same;
}

static void find_tensor(const mm_bundle *bundle, const mm_tensor *tensor) {
    mm_tensor found;
    char name[1025];
    CHECK(tensor->name.size >= 1 && tensor->name.size < sizeof name);
    memcpy(name, tensor->name.data, tensor->name.size);
    name[tensor->name.size] = 0;
    CHECK(mm_find(bundle, name, &found) == MM_OK && same_tensor(tensor, &found));
    name[tensor->name.size - 1] = 0; /* a prefix is another name */
    CHECK(mm_find(bundle, name, &found) != MM_OK || !same_tensor(tensor, &found));
}

static void exercise_tensors(const mm_bundle *bundle, choices *from) {
    mm_tensor tensor, next;
    mm_bytes feature;
    for (uint32_t i = 0; i < bundle->tensors.count; i++) {
        CHECK(mm_tensor_at(bundle, i, &tensor) == MM_OK);
        CHECK(i == 0 || same_tensor(&tensor, &next));
        look(bundle, tensor.name);
        find_tensor(bundle, &tensor);
        for (uint32_t k = 0; k < tensor.features.count; k++) {
            CHECK(mm_feature_at(bundle, &tensor, k, &feature) == MM_OK);
            look(bundle, feature);
        }
        CHECK(mm_feature_at(bundle, &tensor, tensor.features.count, &feature) == MM_USAGE);
        exercise_tensor(bundle, &tensor, from);
        next = tensor;
        CHECK(mm_next(bundle, &next) == (i + 1 < bundle->tensors.count ? MM_OK : MM_TENSOR_NOT_FOUND));
    }
    CHECK(mm_tensor_at(bundle, bundle->tensors.count, &tensor) == MM_USAGE);
    CHECK(mm_find(bundle, "", &tensor) == MM_TENSOR_NOT_FOUND);
}

void exercise(const uint8_t *data, size_t size, const mm_limits *limits) {
    choices from = {size};
    for (size_t i = size < 64 ? 0 : size - 64; i < size; i++) {
        from.state = (from.state ^ data[i]) * 1099511628211u;
    }
    mm_bundle bundle;
    mm_status status = mm_open(&bundle, data, size, limits);
    CHECK(opening_status(status));
    CHECK(status == MM_OK || strcmp(mm_status_name(status), "ERROR") != 0);
    CHECK((mm_exit_code(status) == 0) == (status == MM_OK));
    open_again(&bundle, status, data, size, limits, &from);
    if (status == MM_OK) {
        look_at_payloads(&bundle);
        look_around(&bundle, &from);
        exercise_content(&bundle, &from);
        exercise_tensors(&bundle, &from);
    }
}
