/* The functions of mobilemodel.h that compute fully connected layers. */
#include "fc.h"

#include "bytes.h"
#include "dense.h"
#include "tensor.h"

static const mm_fc_method *const dots[] = {&mm_fc_codes, &mm_fc_split, &mm_fc_vectors, &mm_fc_decoded};

static bool serves(const mm_fc_method *method, const mm_tensor *tensor, const mm_parameters *parameters) {
    return method->serves == NULL || method->serves(tensor, parameters);
}

static const mm_fc_method *choose_method(const mm_tensor *tensor, const mm_parameters *parameters, bool dot) {
    size_t i = 0;
    while (dot && !serves(dots[i], tensor, parameters)) { /* the last one does */
        i++;
    }
    return dot ? dots[i] : &mm_fc_sum;
}

typedef struct fc_call {
    const mm_tensor *tensor;
    bool transposed;
    const float *x;
    size_t x_count;
    const float *bias;
    float *y;
    size_t y_count;
    void *scratch;
    size_t scratch_size;
} fc_call;

/* ------------------------------------------------------------------------------------------------ sizes */

/* x and y in M's order, and what the method takes. */
static uint64_t layer_scratch(const mm_tensor *tensor) {
    const mm_matrix *matrix = &tensor->matrix;
    uint64_t most = mm_fc_sum.scratch(tensor);
    for (size_t i = 0; i < sizeof dots / sizeof dots[0]; i++) {
        if (dots[i]->scratch != NULL && serves(dots[i], tensor, NULL)) {
            most = mm_max(most, dots[i]->scratch(tensor));
        }
    }
    return most + mm_piece(matrix->columns * sizeof(float)) + mm_piece(matrix->rows * sizeof(float));
}

uint64_t mm_fc_scratch(const mm_bundle *bundle, const mm_tensor *tensor) {
    uint64_t size = MM_ALIGNMENT;
    if (tensor->status != MM_OK) {
        return 0;
    }
    if (mm_has_codes(tensor)) {
        size += mm_parameters_scratch(bundle, tensor) + mm_block_scratch(tensor) + layer_scratch(tensor);
    } else {
        size += mm_fc_dense_scratch(bundle, tensor);
    }
    return size > SIZE_MAX ? UINT64_MAX : size;
}

/* Packed: tables, scales and zero points, those that the tensor has, then the blocks. */
static uint64_t parameters_size(const mm_tensor *tensor, uint64_t sizes[MM_PARAMETERS]) {
    const mm_slice *slices[MM_PARAMETERS];
    uint64_t sum = 0;
    mm_slices_of(tensor, slices);
    for (int i = 0; i < MM_PARAMETERS; i++) {
        sizes[i] = slices[i] == NULL ? 0 : slices[i]->size;
        sum += sizes[i];
    }
    return sum;
}

uint64_t mm_packed_size(const mm_bundle *bundle, const mm_tensor *tensor) {
    uint64_t sizes[MM_PARAMETERS];
    if (tensor->status != MM_OK || !mm_has_codes(tensor)) {
        return 0;
    }
    return parameters_size(tensor, sizes) + mm_blocks_size(bundle, tensor);
}

/* ------------------------------------------------------------------------------------------------ reading */

/* Check 13 for all that the tensor's values need. */
static mm_status check_codecs(const mm_bundle *bundle, const mm_tensor *tensor) {
    const mm_matrix *matrix = &tensor->matrix;
    mm_status status = mm_check_parameters(bundle, tensor);
    if (status == MM_OK) {
        status = mm_check_codecs(bundle, matrix->first_payload, matrix->split ? 2 * matrix->blocks : matrix->blocks);
    }
    return status;
}

static mm_status read_parameters(mm_code_source *source, const mm_tensor *tensor, mm_arena *scratch,
                                 mm_parameters *parameters) {
    if (source->packed == NULL) {
        mm_status status = check_codecs(source->bundle, tensor);
        return status == MM_OK ? mm_read_parameters(source->bundle, tensor, scratch, parameters) : status;
    }
    uint64_t sizes[MM_PARAMETERS];
    const uint64_t size = parameters_size(tensor, sizes);
    if (size > source->size) {
        return MM_USAGE;
    }
    parameters->tables = source->packed;
    parameters->scales = parameters->tables + sizes[0];
    parameters->zeros = tensor->has_zeros ? parameters->scales + sizes[1] : NULL;
    source->at = (size_t)size;
    return MM_OK;
}

/* ------------------------------------------------------------------------------------------------ computing */

static mm_status check_call(const mm_bundle *bundle, const fc_call *call) {
    const mm_tensor *tensor = call->tensor;
    if (tensor->status != MM_OK) {
        return tensor->status;
    }
    const uint64_t rows = mm_slices(tensor), columns = mm_slice_elements(tensor);
    const bool floats = tensor->dtype == MM_FLOAT || tensor->dtype == MM_FLOAT16 || tensor->dtype == MM_BFLOAT16;
    const bool counts =
        call->x_count == (call->transposed ? rows : columns) && call->y_count == (call->transposed ? columns : rows);
    return floats && counts && mm_fc_scratch(bundle, tensor) <= call->scratch_size ? MM_OK : MM_USAGE;
}

/* x and y in M's order: the caller's where that is W's. */
static bool place_vectors(const fc_call *call, const mm_order *x_order, const mm_order *y_order, bool dot,
                          mm_arena *scratch, mm_layer *layer) {
    layer->x = call->x;
    layer->y = call->y;
    if (!x_order->natural) {
        float *x = mm_take(scratch, x_order->count * sizeof *x);
        if (x == NULL) {
            return false;
        }
        mm_gather(x_order, call->x, x);
        layer->x = x;
    }
    if (dot && !y_order->natural) {
        layer->y = mm_take(scratch, y_order->count * sizeof *layer->y);
    }
    return layer->y != NULL;
}

static mm_status compute(mm_code_source *source, const fc_call *call) {
    const mm_tensor *tensor = call->tensor;
    mm_orientation orientation = {.rows_are_rows = true};
    if (tensor->elements > 0 && !mm_orient(tensor, &orientation)) {
        return MM_USAGE;
    }
    mm_layer layer = {.tensor = tensor, .kernels = mm_choose_kernels()};
    mm_arena scratch = mm_arena_of(call->scratch, call->scratch_size);
    mm_status status = read_parameters(source, tensor, &scratch, &layer.parameters);
    if (status != MM_OK) {
        return status;
    }
    if (tensor->elements == 0) {
        for (size_t i = 0; i < call->y_count; i++) {
            call->y[i] = call->bias == NULL ? 0 : call->bias[i];
        }
        return MM_OK;
    }
    const bool dot = orientation.rows_are_rows != call->transposed;
    const mm_order *x_order = dot ? &orientation.columns : &orientation.rows;
    const mm_order *y_order = dot ? &orientation.rows : &orientation.columns;
    const mm_fc_method *method = choose_method(tensor, &layer.parameters, dot);
    if (!place_vectors(call, x_order, y_order, dot, &scratch, &layer) ||
        (method->prepare != NULL && !method->prepare(&layer, &scratch))) {
        return MM_ERROR;
    }
    for (uint32_t i = 0; i < tensor->matrix.blocks && status == MM_OK; i++) {
        mm_block block;
        status = mm_read_block(source, tensor, i, scratch, &block);
        if (status == MM_OK) {
            method->use_block(&layer, &block);
        }
    }
    if (status == MM_OK && !dot) {
        mm_finish_sums(&layer.sums);
    }
    if (status == MM_OK) {
        mm_scatter(y_order, dot ? layer.y : layer.sums.recent, call->bias, call->y);
    }
    return status;
}

static mm_status use_file(const mm_bundle *bundle, const fc_call *call) {
    mm_code_source source = {.bundle = bundle};
    mm_status status = check_call(bundle, call);
    if (status != MM_OK) {
        return status;
    }
    if (mm_has_codes(call->tensor)) {
        return compute(&source, call);
    }
    mm_arena scratch = mm_arena_of(call->scratch, call->scratch_size);
    return mm_fc_dense(bundle, call->tensor, call->transposed, call->x, call->bias, call->y, scratch);
}

mm_status mm_fc(const mm_bundle *bundle, const mm_tensor *tensor, const float *x, size_t x_count, const float *bias,
                float *y, size_t y_count, void *scratch, size_t scratch_size) {
    const fc_call call = {tensor, false, x, x_count, bias, y, y_count, scratch, scratch_size};
    return use_file(bundle, &call);
}

mm_status mm_fc_transposed(const mm_bundle *bundle, const mm_tensor *tensor, const float *x, size_t x_count,
                           const float *bias, float *y, size_t y_count, void *scratch, size_t scratch_size) {
    const fc_call call = {tensor, true, x, x_count, bias, y, y_count, scratch, scratch_size};
    return use_file(bundle, &call);
}

/* ------------------------------------------------------------------------------------------------ packed */

static void append(uint8_t **at, const uint8_t *bytes, uint64_t size) {
    if (size > 0) {
        memcpy(*at, bytes, (size_t)size);
        *at += size;
    }
}

mm_status mm_pack(const mm_bundle *bundle, const mm_tensor *tensor, void *packed, size_t packed_size, void *scratch,
                  size_t scratch_size) {
    const mm_matrix *matrix = &tensor->matrix;
    if (tensor->status != MM_OK) {
        return tensor->status;
    }
    if (!mm_has_codes(tensor) || mm_packed_size(bundle, tensor) > packed_size ||
        mm_fc_scratch(bundle, tensor) > scratch_size) {
        return MM_USAGE;
    }
    mm_code_source source = {.bundle = bundle};
    mm_arena arena = mm_arena_of(scratch, scratch_size);
    mm_parameters parameters;
    mm_status status = read_parameters(&source, tensor, &arena, &parameters);
    if (status != MM_OK) {
        return status;
    }
    uint64_t sizes[MM_PARAMETERS];
    parameters_size(tensor, sizes);
    uint8_t *at = packed;
    append(&at, parameters.tables, sizes[0]);
    append(&at, parameters.scales, sizes[1]);
    append(&at, parameters.zeros, sizes[2]);
    for (uint32_t i = 0; i < matrix->blocks && status == MM_OK; i++) {
        mm_block block;
        status = mm_read_block(&source, tensor, i, arena, &block);
        if (status != MM_OK) {
            break;
        }
        const uint32_t payload = matrix->first_payload + (matrix->split ? 2 * i : i);
        if (matrix->split) {
            append(&at, block.plane, mm_entry(bundle, payload).raw_size);
        }
        append(&at, block.codes, mm_entry(bundle, matrix->split ? payload + 1 : payload).raw_size);
    }
    return status;
}

mm_status mm_fc_packed(const mm_bundle *bundle, const mm_tensor *tensor, const void *packed, size_t packed_size,
                       bool transposed, const float *x, size_t x_count, const float *bias, float *y, size_t y_count,
                       void *scratch, size_t scratch_size) {
    const fc_call call = {tensor, transposed, x, x_count, bias, y, y_count, scratch, scratch_size};
    mm_code_source source = {.bundle = bundle, .packed = packed, .size = packed_size};
    mm_status status = check_call(bundle, &call);
    if (status != MM_OK) {
        return status;
    }
    return mm_has_codes(tensor) && packed != NULL ? compute(&source, &call) : MM_USAGE;
}
