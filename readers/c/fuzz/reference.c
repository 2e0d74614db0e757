#include "reference.h"

#include <math.h>
#include <string.h>

uint32_t reference_bits(uint32_t dtype) {
    static const uint8_t bits[27] = {0,  32,  8,  8, 16, 16, 32, 64, 0, 8, 16, 64, 32, 64,
                                     64, 128, 16, 8, 8,  8,  8,  4,  4, 4, 8,  2,  2};
    return dtype < sizeof bits ? bits[dtype] : 0;
}

float reference_half(uint16_t half) {
    int exponent = half >> 10 & 31;
    float fraction = (float)(half & 1023);
    float value = exponent == 31  ? (fraction > 0 ? NAN : INFINITY)
                  : exponent == 0 ? fraction * 0x1p-24f
                                  : (1024 + fraction) * 0x1p-25f * (float)((uint32_t)1 << exponent);
    return half >> 15 ? -value : value;
}

uint16_t reference_rounded(float value) {
    uint16_t sign = signbit(value) ? 0x8000 : 0;
    double magnitude = fabs((double)value);
    int exponent;
    if (isnan(value)) {
        return 0x7E00;
    }
    if (magnitude >= 65520) {
        return sign | 0x7C00;
    }
    if (magnitude < 0x1p-14) {
        return (uint16_t)(sign + (uint16_t)rint(magnitude * 0x1p24));
    }
    double fraction = frexp(magnitude, &exponent); /* in [0.5, 1): 11 bits of it, the first one implied */
    return (uint16_t)(sign + (uint16_t)((exponent + 14) * 1024 + (int)rint(fraction * 2048) - 1024));
}

float reference_bfloat(uint16_t bfloat) {
    uint32_t bits = (uint32_t)bfloat << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static float number(const uint8_t *values, uint32_t type, uint64_t index) {
    if (type == MM_TYPE_F16) {
        return reference_half((uint16_t)(values[2 * index] | values[2 * index + 1] << 8));
    }
    const uint8_t *at = values + 4 * index;
    uint32_t bits = at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static uint64_t group(const mm_matrix *matrix, const mm_grouping *by, uint64_t row, uint64_t s) {
    uint64_t across = (matrix->subvectors + by->col_group - 1) / by->col_group;
    return row / by->row_group * across + s / by->col_group;
}

float reference_value(const mm_tensor *tensor, const reference_parts *parts, uint64_t row, uint64_t column) {
    const mm_matrix *matrix = &tensor->matrix;
    uint64_t q = column / matrix->segment, p = column % matrix->segment;
    uint64_t s = p / matrix->vector, j = p % matrix->vector;
    uint32_t code = parts->codes[row * matrix->codes_per_row + q * matrix->subvectors + s];
    if (tensor->encoding == MM_AFFINE) {
        uint64_t t = group(matrix, &tensor->scales_by, row, s);
        int zero = matrix->depth == 16 ? parts->zeros[2 * t] | parts->zeros[2 * t + 1] << 8 : parts->zeros[t];
        return (float)((int)code - zero) * number(parts->scales, MM_TYPE_F32, t);
    }
    uint64_t t = group(matrix, &tensor->tables_by, row, s);
    float value = 0;
    if (code < tensor->entries) {
        value = number(parts->tables, tensor->table_type, (t * tensor->entries + code) * matrix->vector + j);
    }
    if (tensor->has_scales) {
        value *= number(parts->scales, tensor->scale_type, group(matrix, &tensor->scales_by, row, s));
    }
    return value;
}
