#include "dump.h"

#include <stdlib.h>
#include <string.h>

#include "array.h"
#include "workspace.h"

/* ------------------------------------------------------------------------------------------------ memory, failures */

bool workspace_hold(workspace *work, memory *held, uint64_t size) {
    if (size <= held->size && held->data != NULL) {
        return true;
    }
    free(held->data);
    held->data = size < SIZE_MAX ? malloc((size_t)size + 1) : NULL;
    held->size = held->data == NULL ? 0 : (size_t)size;
    work->no_memory = work->no_memory || held->data == NULL;
    return held->data != NULL;
}

void workspace_print_status(workspace *work, mm_status status) {
    json_open(&work->out, '{');
    json_key(&work->out, "status");
    json_name(&work->out, mm_status_name(status));
    json_close(&work->out, '}');
}

/* ------------------------------------------------------------------------------------------------ manifest */

static void print_text(json *out, const char *key, mm_bytes text) {
    json_key(out, key);
    json_text(out, text);
}

static void print_number(json *out, const char *key, uint64_t value) {
    json_key(out, key);
    json_number(out, value);
}

static void print_sources(workspace *work) {
    json *out = &work->out;
    json_key(out, "sources");
    json_open(out, '[');
    for (uint32_t i = 0; i < work->bundle->sources.count; i++) {
        mm_source source;
        if (mm_source_at(work->bundle, i, &source) == MM_OK) {
            json_open(out, '{');
            print_text(out, "file_name", source.file_name);
            print_text(out, "format", source.format);
            json_key(out, "sha256");
            json_hash(out, source.sha256);
            json_close(out, '}');
        }
    }
    json_close(out, ']');
}

static void print_dimensions(workspace *work, const mm_value *value) {
    json *out = &work->out;
    json_key(out, "shape");
    json_open(out, '[');
    for (uint32_t i = 0; i < value->dimensions.count; i++) {
        mm_dimension dimension;
        if (mm_dimension_at(work->bundle, value, i, &dimension) == MM_OK) {
            json_open(out, '{');
            if (dimension.has_size) {
                print_number(out, "size", dimension.size);
            }
            if (dimension.has_symbol) {
                print_text(out, "symbol", dimension.symbol);
            }
            json_close(out, '}');
        }
    }
    json_close(out, ']');
}

/* The graph's inputs or its outputs. */
typedef mm_status value_at(const mm_bundle *bundle, uint32_t index, mm_value *value);

static void print_ends(workspace *work, const char *key, mm_section values, value_at *at) {
    json *out = &work->out;
    json_key(out, key);
    json_open(out, '[');
    for (uint32_t i = 0; i < values.count; i++) {
        mm_value value;
        if (at(work->bundle, i, &value) == MM_OK) {
            json_open(out, '{');
            print_number(out, "dtype", value.dtype);
            print_text(out, "name", value.name);
            if (value.has_shape) {
                print_dimensions(work, &value);
            }
            json_close(out, '}');
        }
    }
    json_close(out, ']');
}

static void print_payloads(workspace *work) {
    json *out = &work->out;
    json_key(out, "payloads");
    json_open(out, '[');
    for (uint32_t i = 0; i < work->bundle->payloads.count; i++) {
        mm_payload payload;
        if (mm_payload_at(work->bundle, i, &payload) == MM_OK) {
            json_open(out, '{');
            print_number(out, "codec", payload.codec);
            json_key(out, "crc32");
            json_bits(out, payload.crc32);
            print_number(out, "offset", payload.offset);
            print_number(out, "raw_size", payload.raw_size);
            print_number(out, "stored_size", payload.stored_size);
            json_close(out, '}');
        }
    }
    json_close(out, ']');
}

static void print_tensors(workspace *work) {
    json_key(&work->out, "tensors");
    json_open(&work->out, '[');
    mm_tensor tensor;
    mm_status status = mm_tensor_at(work->bundle, 0, &tensor);
    while (status == MM_OK) {
        dump_tensor(work, &tensor);
        status = mm_next(work->bundle, &tensor);
    }
    json_close(&work->out, ']');
}

/* ------------------------------------------------------------------------------------------------ preprocessing */

static void print_floats(json *out, const char *key, const float *values, uint32_t count) {
    json_key(out, key);
    json_open(out, '[');
    for (uint32_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &values[i], sizeof bits);
        json_bits(out, bits);
    }
    json_close(out, ']');
}

static void print_resize(json *out, const mm_preprocessing *step) {
    json_key(out, "resize");
    json_open(out, '{');
    print_number(out, "antialias", step->antialias);
    print_number(out, "height", step->resize_height);
    print_number(out, "kernel", step->resize_kernel);
    print_number(out, "mode", step->resize_mode);
    print_number(out, "width", step->resize_width);
    json_close(out, '}');
}

static void print_mean_picture(workspace *work, const mm_preprocessing *step) {
    const uint64_t shape[3] = {step->mean_height, step->mean_width, step->channels};
    uint64_t size = shape[0] * shape[1] * shape[2] * sizeof(float); /* sides of 14 bits */
    uint64_t scratch = mm_content_scratch(work->bundle);
    mm_status status = MM_ERROR;
    json_key(&work->out, "mean_picture");
    if (workspace_hold(work, &work->result, size) && workspace_hold(work, &work->scratch, scratch)) {
        status = mm_mean_picture(work->bundle, step, (float *)(void *)work->result.data, (size_t)(size / sizeof(float)),
                                 work->scratch.data, work->scratch.size);
    }
    if (status != MM_OK) {
        workspace_print_status(work, status);
        return;
    }
    array picture = array_of_type(MM_FLOAT);
    array_add(&picture, work->result.data, (size_t)size);
    array_print(&picture, &work->out, shape, 3);
}

static void print_preprocessing(workspace *work) {
    json *out = &work->out;
    json_key(out, "preprocessing");
    json_open(out, '[');
    for (uint32_t i = 0; i < work->bundle->preprocessing.count; i++) {
        mm_preprocessing step;
        if (mm_preprocessing_at(work->bundle, i, &step) == MM_OK) {
            json_open(out, '{');
            print_number(out, "colour_order", step.colour_order);
            print_number(out, "crop_height", step.crop_height);
            print_number(out, "crop_width", step.crop_width);
            print_text(out, "input", step.input);
            print_number(out, "layout", step.layout);
            print_floats(out, "mean", step.mean, step.mean_count);
            if (step.mean_payload >= 0) {
                print_mean_picture(work, &step);
            }
            if (step.has_resize) {
                print_resize(out, &step);
            }
            print_floats(out, "scale", step.scale, step.scale_count);
            json_close(out, '}');
        }
    }
    json_close(out, ']');
}

/* ------------------------------------------------------------------------------------------------ content */

static void print_labels(json *out, const uint8_t *text, size_t size) {
    mm_bytes label;
    json_open(out, '[');
    while (mm_label(text, size, 0, &label) == MM_OK) { /* of what is left: the first line */
        json_text(out, label);
        size_t line = label.size + 1;
        if (size <= line) {
            break;
        }
        text += line;
        size -= line;
    }
    json_close(out, ']');
}

static void print_content(workspace *work, const char *key, mm_content content) {
    int64_t size = mm_content_size(work->bundle, content);
    if (size < 0) {
        return;
    }
    mm_status status = MM_ERROR;
    json_key(&work->out, key);
    if (workspace_hold(work, &work->result, (uint64_t)size) &&
        workspace_hold(work, &work->scratch, mm_content_scratch(work->bundle))) {
        status = mm_read_content(work->bundle, content, work->result.data, (size_t)size, work->scratch.data,
                                 work->scratch.size);
    }
    if (status != MM_OK) {
        workspace_print_status(work, status);
    } else if (content == MM_LABELS) {
        print_labels(&work->out, work->result.data, (size_t)size);
    } else {
        blob_print(&work->out, work->result.data, (size_t)size);
    }
}

/* ------------------------------------------------------------------------------------------------ the bundle */

static void print_bundle(workspace *work) {
    const mm_bundle *bundle = work->bundle;
    json *out = &work->out;
    char version[16];
    snprintf(version, sizeof version, "1.%lu", (unsigned long)bundle->spec_minor);
    json_open(out, '{');
    print_text(out, "description", bundle->description);
    print_number(out, "file_size", bundle->file.size);
    print_content(work, "graph", MM_GRAPH);
    print_ends(work, "inputs", bundle->inputs, mm_input_at);
    print_content(work, "labels", MM_LABELS);
    print_text(out, "licence", bundle->licence);
    print_ends(work, "outputs", bundle->outputs, mm_output_at);
    print_payloads(work);
    print_preprocessing(work);
    print_text(out, "producer", bundle->producer);
    print_content(work, "report", MM_REPORT);
    print_text(out, "scheme", bundle->scheme);
    print_sources(work);
    json_key(out, "spec");
    json_name(out, version);
    print_tensors(work);
    json_close(out, '}');
    json_end(out);
}

mm_status mm_dump(const mm_bundle *bundle, FILE *out) {
    workspace work = {.bundle = bundle, .out = json_to(out)};
    print_bundle(&work);
    free(work.result.data);
    free(work.scratch.data);
    return work.no_memory || ferror(out) ? MM_ERROR : MM_OK;
}
