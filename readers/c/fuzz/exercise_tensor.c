/* Tensors decoded as a whole and in parts, to every type. */
#include "checking.h"
#include "reference.h"

#include <math.h>
#include <string.h>

bool same_float(float a, float b) { return isnan(a) ? isnan(b) : a == b && !signbit(a) == !signbit(b); }

static uint64_t bytes_of(uint64_t elements, uint32_t bits) {
    return elements / 8 * bits + (elements % 8 * bits + 7) / 8;
}

/* Elements of one slice: dims but for the first, also where that is 0. */
static uint64_t slice_elements(const mm_tensor *tensor) {
    uint64_t product = 1;
    for (uint32_t axis = 1; axis < tensor->rank; axis++) {
        product *= tensor->dims[axis];
    }
    return product;
}

static void check_shape(const mm_tensor *tensor) {
    CHECK(tensor->rank <= MM_MAX_RANK);
    CHECK(mm_slices(tensor) == (tensor->rank == 0 ? 1 : tensor->dims[0]));
    CHECK(tensor->elements == mm_slices(tensor) * slice_elements(tensor));
    uint32_t bits = reference_bits(tensor->dtype);
    CHECK(tensor->status != MM_OK || bits > 0);
    if (tensor->status == MM_OK) {
        CHECK(mm_decoded_size(tensor, tensor->dtype, mm_slices(tensor)) == bytes_of(tensor->elements, bits));
        CHECK(mm_decoded_size(tensor, 0, 1) == 0 && mm_decoded_size(tensor, UINT32_MAX, 1) == 0);
    }
}

static bool has_type(const mm_tensor *tensor, uint32_t type) {
    uint32_t dtype = tensor->dtype;
    bool real = dtype == MM_FLOAT || dtype == MM_FLOAT16 || dtype == MM_BFLOAT16;
    return type == dtype || (real && (type == MM_FLOAT || type == MM_FLOAT16));
}

/* Some slices decoded into a buffer of their own. Where status is not MM_OK, nothing may be said of its bytes. */
static buffer decoded(const mm_bundle *bundle, const mm_tensor *tensor, uint32_t type, uint64_t first, uint64_t count,
                      buffer scratch, mm_status *status) {
    uint64_t size = mm_decoded_size(tensor, type, count);
    CHECK(size == bytes_of(count * slice_elements(tensor), reference_bits(type)));
    buffer out = buffer_of(size, 0);
    *status = mm_decode(bundle, tensor, type, first, count, out.data, out.size, scratch.data, scratch.size);
    return out;
}

/* Calls that are wrong, whatever the file holds. */
static void misuse(const mm_bundle *bundle, const mm_tensor *tensor, buffer scratch) {
    uint64_t slices = mm_slices(tensor);
    buffer out = buffer_of(mm_decoded_size(tensor, tensor->dtype, slices), 0);
    if (out.size > 0) {
        CHECK(mm_decode(bundle, tensor, tensor->dtype, 0, slices, out.data, out.size - 1, scratch.data, scratch.size) ==
              MM_USAGE);
    }
    if (scratch.size > 0) {
        CHECK(mm_decode(bundle, tensor, tensor->dtype, 0, slices, out.data, out.size, scratch.data, scratch.size - 1) ==
              MM_USAGE);
    }
    CHECK(mm_decode(bundle, tensor, tensor->dtype, 0, slices + 1, out.data, out.size, scratch.data, scratch.size) ==
          MM_USAGE);
    CHECK(mm_decode(bundle, tensor, tensor->dtype, UINT64_MAX, 2, out.data, out.size, scratch.data, scratch.size) ==
          MM_USAGE);
    CHECK(mm_decode(bundle, tensor, 0, 0, slices, out.data, out.size, scratch.data, scratch.size) == MM_USAGE);
    release(&out);
}

static bool same_element(uint32_t type, const uint8_t *a, const uint8_t *b, uint64_t index) {
    if (type == MM_FLOAT) {
        return same_float(((const float *)(const void *)a)[index], ((const float *)(const void *)b)[index]);
    }
    uint16_t x = ((const uint16_t *)(const void *)a)[index], y = ((const uint16_t *)(const void *)b)[index];
    return x == y || (type == MM_FLOAT16 && (x & 0x7FFF) > 0x7C00 && (y & 0x7FFF) > 0x7C00);
}

/* A range of slices holds what stands there in the whole. */
static void exercise_range(const mm_bundle *bundle, const mm_tensor *tensor, uint32_t type, buffer whole,
                           mm_status of_whole, buffer scratch, choices *from) {
    uint64_t slices = mm_slices(tensor), in_slice = slice_elements(tensor);
    uint64_t first = choose(from, slices + 1), count = choose(from, slices - first + 1);
    uint32_t bits = reference_bits(type);
    mm_status status;
    buffer part = decoded(bundle, tensor, type, first, count, scratch, &status);
    uint64_t start = first * in_slice * bits; /* in bits */
    if (start % 8 != 0) {
        CHECK(status == MM_USAGE || (status == MM_OK && part.size == 0));
    } else {
        CHECK(decoding_status(status));
        CHECK(of_whole != MM_OK || status == MM_OK);
    }
    if (status == MM_OK && of_whole == MM_OK && part.size > 0) {
        const uint8_t *expected = whole.data + start / 8;
        if (has_type(tensor, MM_FLOAT) && type != MM_BFLOAT16) {
            for (uint64_t i = 0; i < count * in_slice; i++) {
                CHECK(same_element(type, part.data, expected, i));
            }
        } else {
            uint64_t spare = count * in_slice * bits % 8; /* a last byte that the part shares with what follows */
            CHECK(memcmp(part.data, expected, part.size - (spare > 0)) == 0);
            CHECK(spare == 0 || ((part.data[part.size - 1] ^ expected[part.size - 1]) & ((1u << spare) - 1)) == 0);
        }
    }
    release(&part);
}

/* MM_FLOAT of a tensor of 16 bits is that of its elements, and MM_FLOAT16 is MM_FLOAT rounded. */
static void compare_types(const mm_tensor *tensor, buffer own, buffer floats, buffer halves) {
    const uint16_t *elements = (const uint16_t *)(const void *)own.data;
    const float *values = (const float *)(const void *)floats.data;
    for (uint64_t i = 0; i < tensor->elements; i++) {
        if (tensor->dtype == MM_FLOAT16) {
            CHECK(same_float(values[i], reference_half(elements[i])));
        } else if (tensor->dtype == MM_BFLOAT16) {
            CHECK(same_float(values[i], reference_bfloat(elements[i])));
        }
        uint16_t rounded = reference_rounded(values[i]);
        CHECK(same_element(MM_FLOAT16, halves.data, (const uint8_t *)&rounded - 2 * i, i));
    }
}

static void exercise_types(const mm_bundle *bundle, const mm_tensor *tensor, buffer own, mm_status of_own,
                           buffer scratch, choices *from) {
    mm_status status;
    buffer floats = decoded(bundle, tensor, MM_FLOAT, 0, mm_slices(tensor), scratch, &status);
    CHECK(status == of_own);
    exercise_range(bundle, tensor, MM_FLOAT, floats, status, scratch, from);
    buffer halves = decoded(bundle, tensor, MM_FLOAT16, 0, mm_slices(tensor), scratch, &status);
    CHECK(status == of_own);
    exercise_range(bundle, tensor, MM_FLOAT16, halves, status, scratch, from);
    if (status == MM_OK) {
        compare_types(tensor, own, floats, halves);
    }
    const float *whole = status == MM_OK ? (const float *)(const void *)floats.data : NULL;
    if (tensor->encoding != MM_DENSE) {
        exercise_matrix(bundle, tensor, whole, scratch, from);
    }
    exercise_fc(bundle, tensor, whole, from);
    release(&halves);
    release(&floats);
}

/* A tensor of a later version is listed, and nothing else. */
static void exercise_foreign(const mm_bundle *bundle, const mm_tensor *tensor, buffer scratch) {
    uint64_t room[16] = {0};
    CHECK(tensor->status == MM_UNSUPPORTED_FEATURE || tensor->status == MM_UNSUPPORTED_ENCODING);
    mm_status status = mm_decode(bundle, tensor, tensor->dtype, 0, 0, room, sizeof room, scratch.data, scratch.size);
    CHECK(status == tensor->status || status == MM_USAGE);
    status = mm_decode_rows(bundle, tensor, MM_FLOAT, 0, 0, room, sizeof room, scratch.data, scratch.size);
    CHECK(status == tensor->status || status == MM_USAGE);
    status = mm_codes(bundle, tensor, 0, 0, (uint32_t *)room, 0, scratch.data, scratch.size);
    CHECK(status == tensor->status || status == MM_USAGE);
    status = mm_tables(bundle, tensor, room, sizeof room, scratch.data, scratch.size);
    CHECK(status == tensor->status || status == MM_USAGE);
    status = mm_scales(bundle, tensor, room, sizeof room, scratch.data, scratch.size);
    CHECK(status == tensor->status || status == MM_USAGE);
    status = mm_zeros(bundle, tensor, room, sizeof room, scratch.data, scratch.size);
    CHECK(status == tensor->status || status == MM_USAGE);
    buffer work = buffer_of(mm_fc_scratch(bundle, tensor), 1);
    status = mm_fc(bundle, tensor, (float *)room, 1, NULL, (float *)room + 1, 1, work.data, work.size);
    CHECK(status == tensor->status || status == MM_USAGE);
    status = mm_pack(bundle, tensor, room, sizeof room, work.data, work.size);
    CHECK(status == tensor->status || status == MM_USAGE);
    release(&work);
}

void exercise_tensor(const mm_bundle *bundle, const mm_tensor *tensor, choices *from) {
    check_shape(tensor);
    buffer scratch = buffer_of(mm_decode_scratch(bundle, tensor), choose(from, 64));
    if (tensor->status != MM_OK) {
        exercise_foreign(bundle, tensor, scratch);
        release(&scratch);
        return;
    }
    misuse(bundle, tensor, scratch);
    mm_status status;
    buffer own = decoded(bundle, tensor, tensor->dtype, 0, mm_slices(tensor), scratch, &status);
    CHECK(decoding_status(status));
    exercise_range(bundle, tensor, tensor->dtype, own, status, scratch, from);
    if (has_type(tensor, MM_FLOAT)) {
        exercise_types(bundle, tensor, own, status, scratch, from);
    } else {
        CHECK(mm_decoded_size(tensor, MM_FLOAT, 1) == 0);
    }
    release(&own);
    release(&scratch);
}
