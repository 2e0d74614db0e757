/* Dense tensors, whose elements are W row after row: chunk after chunk, in which rows begin and end where they like. */
#include "fc.h"

#include "bytes.h"
#include "dense.h"
#include "tensor.h"

/* A walk through W's elements. */
typedef struct dense_walk {
    const mm_kernels *kernels;
    mm_stored stored; /* the chunk that is being worked on */
    const float *x;
    float *y;
    uint64_t columns;     /* of W */
    uint64_t row, column; /* of the next element */
    double sum;           /* not transposed: of the row so far */
    mm_sums sums;         /* transposed */
} dense_walk;

uint64_t mm_fc_dense_scratch(const mm_bundle *bundle, const mm_tensor *tensor) {
    return mm_dense_scratch(bundle, tensor) + mm_sums_scratch(mm_slice_elements(tensor));
}

/* The products of a part of a row that lies within a chunk, and within MM_FC_PIECE elements. */
static void add_to_sum(dense_walk *walk, uint64_t count) {
    const mm_stored *stored = &walk->stored;
    const float *x = walk->x + walk->column;
    float values[MM_FC_PIECE];
    if (stored->tensor->stored_dtype == MM_FLOAT16 && stored->stride == 0) {
        walk->sum += (double)walk->kernels->dot_f16(stored->raw + 2 * stored->first, x, (size_t)count);
        return;
    }
    mm_convert_stored(stored, MM_FLOAT, (uint8_t *)values);
    walk->sum += (double)walk->kernels->dot_f32(values, x, (size_t)count);
}

static void add_to_sums(dense_walk *walk, uint64_t count) {
    const float factor = walk->x[walk->row];
    float values[MM_FC_PIECE];
    if (factor != 0) {
        mm_convert_stored(&walk->stored, MM_FLOAT, (uint8_t *)values);
        walk->kernels->axpy_f32(factor, values, (size_t)count, walk->sums.recent + walk->column);
    }
}

static void use_chunk(dense_walk *walk, bool transposed, uint64_t elements) {
    for (uint64_t first = 0; first < elements;) {
        const uint64_t count = mm_min(mm_min(MM_FC_PIECE, walk->columns - walk->column), elements - first);
        walk->stored.first = first;
        walk->stored.count = count;
        if (transposed) {
            add_to_sums(walk, count);
        } else {
            add_to_sum(walk, count);
        }
        first += count;
        walk->column += count;
        if (walk->column < walk->columns) {
            continue;
        }
        if (transposed) {
            mm_end_row(&walk->sums);
        } else {
            walk->y[walk->row] = (float)walk->sum;
            walk->sum = 0;
        }
        walk->column = 0;
        walk->row++;
    }
}

/* A small tensor is one chunk, somewhere in its payload. */
static mm_status use_chunks(const mm_bundle *bundle, dense_walk *walk, bool transposed, mm_arena scratch) {
    const mm_tensor *tensor = walk->stored.tensor;
    const uint32_t first = tensor->small ? tensor->values.payload : tensor->first_chunk;
    const uint32_t chunks = tensor->small ? 1 : tensor->chunks;
    const uint64_t most = tensor->small ? tensor->elements : tensor->chunk_elements;
    mm_status status = mm_check_codecs(bundle, first, chunks);
    for (uint32_t i = 0; i < chunks && status == MM_OK; i++) {
        const uint64_t elements = mm_min(most, tensor->elements - i * most);
        mm_arena chunk = scratch;
        walk->stored.stride = tensor->byte_planes ? elements : 0;
        status = mm_view_bytes(bundle, first + i, &chunk, &walk->stored.raw);
        if (status == MM_OK) {
            walk->stored.raw += tensor->values.offset;
            use_chunk(walk, transposed, elements);
        }
    }
    return status;
}

mm_status mm_fc_dense(const mm_bundle *bundle, const mm_tensor *tensor, bool transposed, const float *x,
                      const float *bias, float *y, mm_arena scratch) {
    dense_walk walk = {.kernels = mm_choose_kernels(), .stored = {.tensor = tensor}, .x = x, .y = y};
    const uint64_t outputs = transposed ? mm_slice_elements(tensor) : mm_slices(tensor);
    walk.columns = mm_slice_elements(tensor);
    if (transposed && !mm_start_sums(walk.columns, &scratch, &walk.sums)) {
        return MM_ERROR;
    }
    mm_status status = use_chunks(bundle, &walk, transposed, scratch);
    if (transposed) {
        mm_finish_sums(&walk.sums);
    }
    for (uint64_t i = 0; i < outputs && status == MM_OK; i++) {
        const float product = transposed ? walk.sums.recent[i] : tensor->elements == 0 ? 0 : y[i];
        y[i] = bias == NULL ? product : product + bias[i];
    }
    return status;
}
