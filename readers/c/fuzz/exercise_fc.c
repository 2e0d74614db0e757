/* Fully connected layers, streamed and packed, against sums of the decoded weights in double precision. */
#include "checking.h"

#include <math.h>
#include <string.h>

/* One product to be computed: y = W x + bias, or with W transposed. */
typedef struct product {
    const mm_bundle *bundle;
    const mm_tensor *tensor;
    const float *weights; /* decoded, rows x columns; NULL where they could not be */
    uint64_t rows, columns;
    bool transposed;
    const float *x, *bias;
    uint64_t inputs, outputs;
} product;

/* How exact the library says it is; and what is too small, or too large, to be said in binary32. */
#define PROMISE  1e-5
#define SMALLEST 0x1p-120
#define LARGEST  0x1p120

static void check_sums(const product *of, const float *y) {
    uint64_t across = of->transposed ? 1 : of->columns, along = of->transposed ? of->columns : 1;
    for (uint64_t o = 0; o < of->outputs; o++) {
        double sum = of->bias != NULL ? (double)of->bias[o] : 0, size = fabs(sum);
        for (uint64_t i = 0; i < of->inputs; i++) {
            double term = (double)of->weights[o * across + i * along] * (double)of->x[i];
            sum += term;
            size += fabs(term);
        }
        if (size < LARGEST) { /* also: no weight is a NaN */
            CHECK(fabs((double)y[o] - sum) <= PROMISE * size + SMALLEST);
        }
    }
}

static mm_status streamed(const product *of, size_t inputs, float *y, size_t outputs, buffer scratch) {
    return (of->transposed ? mm_fc_transposed : mm_fc)(of->bundle, of->tensor, of->x, inputs, of->bias, y, outputs,
                                                       scratch.data, scratch.size);
}

static mm_status packed(const product *of, buffer codes, float *y, size_t outputs, buffer scratch) {
    return mm_fc_packed(of->bundle, of->tensor, codes.data, codes.size, of->transposed, of->x, (size_t)of->inputs,
                        of->bias, y, outputs, scratch.data, scratch.size);
}

/* A matrix of codes may lie so that neither its rows nor its columns are those of W: then every call says MM_USAGE. */
static mm_status exercise_streamed(const product *of, float *y, buffer scratch) {
    mm_status status = streamed(of, (size_t)of->inputs, y, (size_t)of->outputs, scratch);
    CHECK(decoding_status(status) || (status == MM_USAGE && of->tensor->encoding != MM_DENSE));
    CHECK(status == MM_USAGE || (status == MM_OK) == (of->weights != NULL));
    if (status == MM_OK) {
        check_sums(of, y);
    }
    CHECK(streamed(of, (size_t)of->inputs + 1, y, (size_t)of->outputs, scratch) == MM_USAGE);
    CHECK(streamed(of, (size_t)of->inputs, y, (size_t)of->outputs + 1, scratch) == MM_USAGE);
    if (scratch.size > 0) {
        buffer less = {scratch.memory, scratch.data, scratch.size - 1};
        CHECK(streamed(of, (size_t)of->inputs, y, (size_t)of->outputs, less) == MM_USAGE);
    }
    return status;
}

static void exercise_packed(const product *of, buffer codes, bool filled, mm_status of_streamed, float *y,
                            buffer scratch, choices *from) {
    if (filled) {
        mm_status status = packed(of, codes, y, (size_t)of->outputs, scratch);
        CHECK(status == of_streamed);
        if (status == MM_OK) {
            check_sums(of, y);
        }
    }
    /* Packed codes that were cut, or are others': any status, but nothing outside of the buffers. */
    buffer others = buffer_of(choose(from, (uint64_t)codes.size + 1), 0);
    memset(others.data, (int)choose(from, 256), others.size);
    packed(of, others, y, (size_t)of->outputs, scratch);
    release(&others);
}

/* x and bias: all the same, or spread; with zeros among them. */
static buffer floats_of(uint64_t count, choices *from) {
    buffer out = buffer_of(4 * count, 0);
    uint32_t kind = choose(from, 4);
    for (uint64_t i = 0; i < count; i++) {
        float value = kind == 0 ? 0.7f : (float)((int)choose(from, 4001) - 2000) / 512;
        ((float *)(void *)out.data)[i] = kind == 1 && i % 3 > 0 ? 0 : value;
    }
    return out;
}

static void exercise_product(product of, buffer codes, bool filled, buffer scratch, choices *from) {
    of.inputs = of.transposed ? of.rows : of.columns;
    of.outputs = of.transposed ? of.columns : of.rows;
    buffer x = floats_of(of.inputs, from), bias = floats_of(of.outputs, from), y = buffer_of(4 * of.outputs, 0);
    of.x = (const float *)(const void *)x.data;
    of.bias = choose(from, 2) ? (const float *)(const void *)bias.data : NULL;
    float *out = (float *)(void *)y.data;
    mm_status status = exercise_streamed(&of, out, scratch);
    if (of.tensor->encoding != MM_DENSE) {
        exercise_packed(&of, codes, filled, status, out, scratch, from);
    } else {
        CHECK(packed(&of, codes, out, (size_t)of.outputs, scratch) == MM_USAGE);
    }
    release(&y);
    release(&bias);
    release(&x);
}

void exercise_fc(const mm_bundle *bundle, const mm_tensor *tensor, const float *whole, choices *from) {
    product of = {.bundle = bundle, .tensor = tensor, .weights = whole, .rows = mm_slices(tensor), .columns = 1};
    for (uint32_t axis = 1; axis < tensor->rank; axis++) {
        of.columns *= tensor->dims[axis];
    }
    if (of.rows > 1u << 16 || of.columns > 1u << 16) { /* beside a size of 0 */
        return;
    }
    buffer scratch = buffer_of(mm_fc_scratch(bundle, tensor), choose(from, 64));
    buffer codes = buffer_of(tensor->encoding == MM_DENSE ? 0 : mm_packed_size(bundle, tensor), choose(from, 2));
    bool filled = false;
    if (tensor->encoding != MM_DENSE) {
        mm_status status = mm_pack(bundle, tensor, codes.data, codes.size, scratch.data, scratch.size);
        CHECK(decoding_status(status) && (status == MM_OK || whole == NULL));
        filled = status == MM_OK;
        if (codes.size > 0) {
            CHECK(mm_pack(bundle, tensor, codes.data, codes.size - 1, scratch.data, scratch.size) == MM_USAGE);
            mm_pack(bundle, tensor, codes.data, codes.size, scratch.data, scratch.size);
        }
    }
    exercise_product(of, codes, filled, scratch, from);
    of.transposed = true;
    exercise_product(of, codes, filled, scratch, from);
    release(&codes);
    release(&scratch);
}
