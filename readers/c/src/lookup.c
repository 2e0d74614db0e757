/* Tables made ready for lookups by code: spec/tensors.md §5.3, §6 and §8. */
#include "bytes.h"
#include "kernels/kernels.h"
#include "values.h"

static void fill_palette(const mm_tensor *tensor, const mm_parameters *parameters, uint32_t table, uint32_t scale,
                         mm_lookup *lookup) {
    const mm_matrix *matrix = &tensor->matrix;
    const uint32_t codes = 1u << matrix->depth;
    const uint32_t width = tensor->table_type == MM_TYPE_F16 ? 2 : 4;
    const uint8_t *stored = parameters->tables + (uint64_t)table * tensor->entries * width;
    float entries[MM_LOOKUP_ENTRIES + 1] = {0}; /* a split stream of depth 8 has 257 */
    mm_load_floats(tensor->table_type, stored, mm_min(tensor->entries, codes + 1), entries);
    if (tensor->has_scales && scale != MM_UNSCALED) {
        const float factor = mm_scale_at(tensor, parameters, scale);
        mm_choose_kernels()->scale_floats(entries, codes + 1, factor, entries);
    }
    lookup->background_f32 = entries[matrix->background];
    for (uint32_t code = 0; code < codes; code++) {
        lookup->f32[code] = entries[code + (matrix->split && code >= matrix->background)];
    }
}

static void fill_affine(const mm_tensor *tensor, const mm_parameters *parameters, uint32_t scale, mm_lookup *lookup) {
    const float factor = mm_scale_at(tensor, parameters, scale);
    const int32_t zero = mm_zero_at(tensor, parameters, scale);
    lookup->background_f32 = 0;
    for (int32_t code = 0; code < 1 << tensor->matrix.depth; code++) {
        lookup->f32[code] = (float)(code - zero) * factor;
    }
}

void mm_prepare_lookup(const mm_tensor *tensor, const mm_parameters *parameters, uint32_t table, uint32_t scale,
                       mm_lookup *lookup) {
    if (lookup->table == table && lookup->scale == scale) {
        return;
    }
    lookup->table = table;
    lookup->scale = scale;
    if (tensor->encoding == MM_AFFINE) {
        fill_affine(tensor, parameters, scale, lookup);
    } else {
        fill_palette(tensor, parameters, table, scale, lookup);
    }
    const uint32_t filled = 1u << tensor->matrix.depth;
    const uint32_t codes = filled < 16 ? 16 : filled;
    for (uint32_t code = filled; code < codes; code++) {
        lookup->f32[code] = 0;
    }
    const mm_kernels *kernels = mm_choose_kernels();
    float widened[MM_LOOKUP_ENTRIES];
    float background;
    kernels->narrow(lookup->f32, codes, lookup->f16);
    kernels->narrow(&lookup->background_f32, 1, &lookup->background_f16);
    kernels->widen((const uint8_t *)lookup->f16, codes, widened);
    kernels->widen((const uint8_t *)&lookup->background_f16, 1, &background);
    if (tensor->dtype == MM_FLOAT16 && scale != MM_UNSCALED) {
        memcpy(lookup->f32, widened, codes * sizeof *widened);
        lookup->background_f32 = background;
    }
    lookup->halves = memcmp(lookup->f32, widened, codes * sizeof *widened) == 0 &&
                     memcmp(&lookup->background_f32, &background, sizeof background) == 0;
}
