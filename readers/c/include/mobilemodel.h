/*
 * mobilemodel: reads .mm bundles, format 1.0 (the folder spec/ of this project), decodes their tensors, and computes
 * fully connected layers straight from the packed weights.
 *
 *     mm_bundle bundle;
 *     mm_tensor weights;
 *     if (mm_open(&bundle, file, file_size, NULL) != MM_OK) ...
 *     if (mm_find(&bundle, "fc6.weight", &weights) != MM_OK) ...
 *
 *     // decode it: 16-bit floats, all of the first axis
 *     uint64_t slices = mm_slices(&weights);
 *     void *scratch = malloc(mm_decode_scratch(&bundle, &weights));
 *     uint16_t *values = malloc(mm_decoded_size(&weights, MM_FLOAT16, slices));
 *     mm_status status =
 *         mm_decode(&bundle, &weights, MM_FLOAT16, 0, slices, values, values_size, scratch, scratch_size);
 *
 *     // or compute y = W x + b without decoding it
 *     status = mm_fc(&bundle, &weights, x, x_count, bias, y, y_count, scratch, mm_fc_scratch(&bundle, &weights));
 *
 *     if (status != MM_OK) fprintf(stderr, "%s\n", mm_status_name(status));
 *
 * What holds for every function, whatever the bytes of the file are:
 *
 * - It never reads outside of the file's bytes and its inputs, and never writes outside of its outputs and its scratch.
 * - It allocates nothing: every buffer is the caller's. zlib and libzstd work inside the scratch. The stack it takes is
 *   below 32 KiB.
 * - There is no global state and no state behind the caller's back: any number of threads may use the same bundle, each
 *   with its own outputs and scratch.
 * - Its work is bounded by the sizes that mm_open has checked.
 * - Where it fails, what its outputs hold is unspecified.
 *
 * The file's bytes stay the caller's, mapped or in memory: they need no alignment, and must neither change nor go away
 * while the bundle, or a view into it, is used. Scratch needs no alignment either, outputs have that of their type.
 * mm_bundle and mm_tensor are plain values: copy them freely, there is nothing to close.
 */
#ifndef MOBILEMODEL_H
#define MOBILEMODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(MM_SHARED) && defined(__GNUC__)
#define MM_API __attribute__((visibility("default")))
#else
#define MM_API
#endif

#define MM_VERSION "0.1.0"

/* ---- statuses, limits */

/* spec/errors.md; the numbers never change their meaning. */
typedef enum mm_status {
    MM_OK = 0,
    MM_ERROR = 1, /* a library failed for want of scratch: report it */
    MM_NOT_A_BUNDLE = 10,
    MM_TRUNCATED = 11,
    MM_TRAILING_DATA = 12,
    MM_MANIFEST_CHECKSUM = 13,
    MM_MALFORMED_WIRE = 14,
    MM_MALFORMED_MANIFEST = 15,
    MM_MISPLACED_PAYLOAD = 16,
    MM_PAYLOAD_CHECKSUM = 17,
    MM_MALFORMED_STREAM = 18,
    MM_MALFORMED_CONTENT = 19,
    MM_UNSUPPORTED_VERSION = 30,
    MM_UNSUPPORTED_FEATURE = 31,
    MM_UNSUPPORTED_CODEC = 32,
    MM_UNSUPPORTED_ENCODING = 33,
    MM_LIMIT_EXCEEDED = 34,
    MM_USAGE = 70, /* the call is wrong: a buffer too small, a range or a type that the tensor does not have */
    MM_TENSOR_NOT_FOUND = 71
} mm_status;

/* The status's name in the specification, "TRUNCATED"; "ERROR" for a number that is none. */
MM_API const char *mm_status_name(mm_status status);

/* What a program leaves with: 0, 1 damaged, 2 wrong call, 3 malformed, 4 not supported (spec/errors.md §3). */
MM_API int mm_exit_code(mm_status status);

/* What a file may ask for (spec/security.md §3). A limit above the format's counts as the format's. */
typedef struct mm_limits {
    uint32_t file;         /* bytes of the file */
    uint32_t manifest;     /* bytes of the manifest */
    uint32_t tensors;      /* number of tensors */
    uint32_t payloads;     /* number of payloads */
    uint32_t elements;     /* product of the dims that are not 0, of each tensor */
    uint32_t block;        /* raw bytes of a block of codes, a plane, a dense chunk */
    uint32_t table;        /* raw bytes of a payload that is one slice */
    uint32_t graph;        /* raw bytes; 64 MiB unless told, where the format allows 2^31 - 1 */
    uint32_t labels;       /* raw bytes */
    uint32_t report;       /* raw bytes */
    uint32_t mean_picture; /* raw bytes */
    uint32_t uses;         /* this reader's own: payloads that tensors use, counted at each use; 2^22 */
    uint32_t values;       /* this reader's own: sources, inputs, outputs, dimensions of each of these; 1,024 */
} mm_limits;

/* The limits that mm_open takes where it is given none. */
MM_API mm_limits mm_default_limits(void);

/* ---- opening */

/* Bytes within the caller's file. Text is UTF-8 without a NUL at its end, and not fit to be printed unescaped. */
typedef struct mm_bytes {
    const uint8_t *data;
    size_t size;
} mm_bytes;

/* Where the members of a repeated field of the manifest stand. */
typedef struct mm_section {
    uint32_t start; /* of the first one's tag, from the start of the manifest */
    uint32_t end;
    uint32_t count;
} mm_section;

typedef struct mm_bundle {
    mm_bytes file;
    mm_bytes manifest;
    uint32_t spec_minor;
    mm_bytes producer, licence, description, scheme;
    mm_section sources, inputs, outputs, preprocessing, tensors, payloads;
    int32_t graph, labels, report; /* index of the payload, or -1 */
    mm_limits limits;
} mm_bundle;

/*
 * Open the bundle in data[0 .. size), and check all of it but the payloads (spec/container.md §6, checks 1 to 11).
 * limits may be NULL. On failure nothing of *bundle may be used.
 *
 * Takes a time linear in the manifest's bytes and in mm_limits.uses; reads the manifest and the frame of payload 0.
 */
MM_API mm_status mm_open(mm_bundle *bundle, const void *data, size_t size, const mm_limits *limits);

typedef struct mm_payload {
    uint64_t offset; /* of the first stored byte, from the start of the file */
    uint32_t stored_size;
    uint32_t raw_size;
    uint32_t crc32;
    uint32_t codec; /* 0 stored, 1 zlib, 2 png, 3 zstd */
} mm_payload;

/* The entry of a payload. MM_USAGE where index is not below bundle->payloads.count. */
MM_API mm_status mm_payload_at(const mm_bundle *bundle, uint32_t index, mm_payload *payload);

typedef struct mm_source {
    mm_bytes format, file_name;
    mm_bytes sha256; /* 32 bytes, or none */
} mm_source;

/* A file that the model came from. Time is linear in index, as it is for the other functions by index below. */
MM_API mm_status mm_source_at(const mm_bundle *bundle, uint32_t index, mm_source *source);

typedef struct mm_value {
    mm_bytes name;
    uint32_t dtype; /* onnx.TensorProto.DataType; 0: not a tensor */
    bool has_shape; /* false: the rank is not known */
    mm_section dimensions;
} mm_value;

typedef struct mm_dimension {
    bool has_size; /* at most one of both; neither: not known */
    bool has_symbol;
    uint64_t size;
    mm_bytes symbol;
} mm_dimension;

MM_API mm_status mm_input_at(const mm_bundle *bundle, uint32_t index, mm_value *value);
MM_API mm_status mm_output_at(const mm_bundle *bundle, uint32_t index, mm_value *value);
MM_API mm_status mm_dimension_at(const mm_bundle *bundle, const mm_value *value, uint32_t index,
                                 mm_dimension *dimension);

/* spec/preprocessing.md. Enumerations are the schema's numbers. */
typedef struct mm_preprocessing {
    mm_bytes input;
    bool supported; /* false: a value of a later version, so that MM_UNSUPPORTED_FEATURE is due where it is used */
    bool has_resize, antialias;
    uint32_t resize_mode, resize_height, resize_width, resize_kernel;
    uint32_t crop_height, crop_width; /* 0: no crop */
    uint32_t colour_order, layout;
    uint32_t channels;
    uint32_t mean_count, scale_count; /* 0, 1 or channels */
    float mean[3], scale[3];
    int32_t mean_payload; /* or -1: no mean picture */
    uint32_t mean_height, mean_width;
} mm_preprocessing;

MM_API mm_status mm_preprocessing_at(const mm_bundle *bundle, uint32_t index, mm_preprocessing *preprocessing);

/* ---- tensors */

#define MM_MAX_RANK 16

/* Numbers of onnx.TensorProto.DataType that mean something here; a tensor may have any of spec/tensors.md §2. */
enum { MM_FLOAT = 1, MM_UINT8 = 2, MM_INT8 = 3, MM_FLOAT16 = 10, MM_BFLOAT16 = 16 };

/* The numbers are those of the fields of Tensor. */
typedef enum mm_encoding { MM_ENCODING_UNKNOWN = 0, MM_DENSE = 5, MM_PALETTE = 6, MM_AFFINE = 7 } mm_encoding;

enum { MM_TYPE_F16 = 1, MM_TYPE_F32 = 2 }; /* of tables and scales */

typedef struct mm_slice {
    uint32_t payload;
    uint64_t offset, size; /* bytes of the payload's raw bytes */
} mm_slice;

/* Which rows and sub-vectors share a table, or a scale (spec/tensors.md §3.2); both at least 1. */
typedef struct mm_grouping {
    uint32_t row_group, col_group;
    uint32_t across; /* groups along a segment: t = (r div row_group) across + s div col_group */
    uint32_t count;  /* T */
} mm_grouping;

/* The matrix of codes (spec/tensors.md §3): M[r, c] is the element at row r C + c of the permuted view. */
typedef struct mm_matrix {
    uint32_t axes; /* of the view */
    uint32_t row_axes;
    uint64_t view[MM_MAX_RANK]; /* as it is permuted: sizes of the permuted axes, in their order */
    uint64_t step[MM_MAX_RANK]; /* elements from one index of a permuted axis to the next, in the tensor's own order */
    uint64_t rows, columns;     /* R, C */
    uint32_t depth;             /* bits of a stored code */
    uint32_t vector;            /* d */
    uint64_t segment;           /* L; 0 where C = 0 */
    uint64_t subvectors;        /* S: codes in a segment */
    uint64_t codes_per_row;     /* N */
    uint64_t rows_per_block;    /* B, at most max(R, 1) */
    uint32_t blocks;
    uint32_t first_payload;
    uint32_t background; /* of a split stream */
    bool split;
} mm_matrix;

typedef struct mm_tensor {
    mm_bytes name;
    uint32_t dtype; /* of the decoded elements */
    uint32_t rank;
    uint64_t dims[MM_MAX_RANK];
    uint64_t elements;
    mm_encoding encoding;
    mm_status status;        /* MM_OK; else of a later version: MM_UNSUPPORTED_FEATURE, MM_UNSUPPORTED_ENCODING */
    mm_section features;     /* required features */
    bool has_loss, has_sqnr; /* no loss: bit-identical to the source */
    int32_t sqnr_millidb;
    uint32_t largest_error; /* in units of 2^-24 of the largest |w| */

    /* dense */
    uint32_t stored_dtype;
    bool byte_planes, small;
    uint64_t chunk_elements; /* at most the tensor's elements, or 1 */
    uint32_t chunks, first_chunk;
    mm_slice values; /* of a small one */

    /* palette, affine */
    mm_matrix matrix;
    uint32_t entries; /* E */
    uint32_t table_type, scale_type;
    mm_grouping tables_by, scales_by;
    bool has_scales, has_zeros;
    mm_slice tables, scales, zeros;

    mm_section message; /* where it stands in the manifest, for mm_next */
} mm_tensor;

/* The tensor of this name, which ends with NUL. MM_TENSOR_NOT_FOUND. Time is linear in the number of tensors. */
MM_API mm_status mm_find(const mm_bundle *bundle, const char *name, mm_tensor *tensor);

/* The tensor number index, in ascending order of names. MM_USAGE where there is none. */
MM_API mm_status mm_tensor_at(const mm_bundle *bundle, uint32_t index, mm_tensor *tensor);

/* The tensor behind this one, in constant time. MM_TENSOR_NOT_FOUND after the last. */
MM_API mm_status mm_next(const mm_bundle *bundle, mm_tensor *tensor);

/* A required feature of a tensor. */
MM_API mm_status mm_feature_at(const mm_bundle *bundle, const mm_tensor *tensor, uint32_t index, mm_bytes *feature);

/* How many slices the first axis has; 1 for a scalar. */
MM_API uint64_t mm_slices(const mm_tensor *tensor);

/* Bytes of `slices` decoded slices, as elements of type; 0 for a type that mm_decode does not make of the tensor. */
MM_API uint64_t mm_decoded_size(const mm_tensor *tensor, uint32_t type, uint64_t slices);

/* Bytes of scratch for the functions below, mm_decode to mm_zeros. */
MM_API uint64_t mm_decode_scratch(const mm_bundle *bundle, const mm_tensor *tensor);

/*
 * Decode the slices first .. first + count - 1 of the tensor's first axis (a scalar has one slice) into out, as
 * elements in the tensor's own order. Where they are whole rows of codes, only their blocks are read.
 *
 * type is the tensor's own dtype: the raw bytes of spec/tensors.md §2, bit for bit. Or, for a tensor of FLOAT, FLOAT16
 * or BFLOAT16: MM_FLOAT, the values that the tensor holds, widened exactly; MM_FLOAT16, each value rounded once from
 * binary32 to nearest, ties to even.
 *
 * MM_USAGE: the type, the range, or a buffer that is too small; for types below 8 bits also a range that does not begin
 * at a byte. Otherwise the checks 12 to 16 of spec/container.md §6 with the payloads that the range needs.
 */
MM_API mm_status mm_decode(const mm_bundle *bundle, const mm_tensor *tensor, uint32_t type, uint64_t first,
                           uint64_t count, void *out, size_t out_size, void *scratch, size_t scratch_size);

/*
 * Decode the rows first .. first + count - 1 of the matrix of codes: count x columns values of MM_FLOAT or MM_FLOAT16,
 * in the matrix's own order. The way to stream a layer: rows_per_block rows at a time read each block once. MM_USAGE
 * for a dense tensor.
 */
MM_API mm_status mm_decode_rows(const mm_bundle *bundle, const mm_tensor *tensor, uint32_t type, uint64_t first,
                                uint64_t count, void *out, size_t out_size, void *scratch, size_t scratch_size);

/* The codes of rows first .. first + count - 1: count x codes_per_row numbers. out_count: numbers that out holds. */
MM_API mm_status mm_codes(const mm_bundle *bundle, const mm_tensor *tensor, uint64_t first, uint64_t count,
                          uint32_t *out, size_t out_count, void *scratch, size_t scratch_size);

/* Tables x entries x vector values as they are stored, of table_type. tensor->tables.size bytes. */
MM_API mm_status mm_tables(const mm_bundle *bundle, const mm_tensor *tensor, void *out, size_t out_size, void *scratch,
                           size_t scratch_size);

/* The scales as they are stored, of scale_type. tensor->scales.size bytes; none where a palette has none. */
MM_API mm_status mm_scales(const mm_bundle *bundle, const mm_tensor *tensor, void *out, size_t out_size, void *scratch,
                           size_t scratch_size);

/* The zero points of an affine tensor, also where the bundle leaves them out: scales_by.count numbers of 1 byte, at
 * depth 16 of 2. */
MM_API mm_status mm_zeros(const mm_bundle *bundle, const mm_tensor *tensor, void *out, size_t out_size, void *scratch,
                          size_t scratch_size);

/* ---- fully connected layers */

/*
 * y = W x + bias, where W is the tensor as a matrix: its first axis by the product of the others. x has a value for
 * each column, y and bias (which may be NULL) one for each row of W.
 *
 * Palettes, affine and dense tensors are used as they lie in the file, one block at a time, and no row is decoded where
 * a kernel computes on its codes. Against W decoded, summed in any order, y differs by at most 1e-5 x sum |w x|; x is
 * to be finite (columns whose weight is 0 may be skipped).
 *
 * FLOAT, FLOAT16 and BFLOAT16 tensors. MM_USAGE: another type, a count that is not W's, a scratch that is too small,
 * or a matrix of codes whose rows are neither rows nor columns of W.
 */
MM_API mm_status mm_fc(const mm_bundle *bundle, const mm_tensor *tensor, const float *x, size_t x_count,
                       const float *bias, float *y, size_t y_count, void *scratch, size_t scratch_size);

/* The same for W transposed: the weights of a MatMul, inputs by outputs. x has a value for each row, y for each column.
 */
MM_API mm_status mm_fc_transposed(const mm_bundle *bundle, const mm_tensor *tensor, const float *x, size_t x_count,
                                  const float *bias, float *y, size_t y_count, void *scratch, size_t scratch_size);

/* Bytes of scratch for each of the functions of this part. */
MM_API uint64_t mm_fc_scratch(const mm_bundle *bundle, const mm_tensor *tensor);

/*
 * For layers that run often: tables, scales, zero points and packed codes, decompressed and checked once, as they stand
 * in raw payloads one after the other. AlexNet's fc6 at 4 bits takes 18.9 MB so, of 151 MB in 32-bit floats.
 */
MM_API uint64_t mm_packed_size(const mm_bundle *bundle, const mm_tensor *tensor);
MM_API mm_status mm_pack(const mm_bundle *bundle, const mm_tensor *tensor, void *packed, size_t packed_size,
                         void *scratch, size_t scratch_size);

/* mm_fc, mm_fc_transposed, with packed instead of the file's payloads. MM_USAGE for a dense tensor. */
MM_API mm_status mm_fc_packed(const mm_bundle *bundle, const mm_tensor *tensor, const void *packed, size_t packed_size,
                              bool transposed, const float *x, size_t x_count, const float *bias, float *y,
                              size_t y_count, void *scratch, size_t scratch_size);

/* ---- graph, labels, report */

typedef enum mm_content { MM_GRAPH, MM_LABELS, MM_REPORT } mm_content;

/* Raw bytes of it; -1 where the bundle has none. */
MM_API int64_t mm_content_size(const mm_bundle *bundle, mm_content content);

/* Bytes of scratch for mm_read_content and mm_mean_picture. */
MM_API uint64_t mm_content_scratch(const mm_bundle *bundle);

/* The raw bytes: an onnx.ModelProto; UTF-8 lines (MM_MALFORMED_CONTENT where they are not); JSON, not parsed. */
MM_API mm_status mm_read_content(const mm_bundle *bundle, mm_content content, void *out, size_t out_size, void *scratch,
                                 size_t scratch_size);

/* Line number index of labels that mm_read_content has read. MM_USAGE behind the last. */
MM_API mm_status mm_label(const void *labels, size_t size, uint32_t index, mm_bytes *label);

/* The mean picture: height x width x channels values. MM_USAGE where there is none, or where out holds fewer. */
MM_API mm_status mm_mean_picture(const mm_bundle *bundle, const mm_preprocessing *preprocessing, float *out,
                                 size_t out_count, void *scratch, size_t scratch_size);

/* Which kernels this processor runs: "plain", "neon", "neon-crc", "neon-fp16", "sse4", "avx2". */
MM_API const char *mm_kernels_name(void);

/* For bindings of other languages, which hold the structs as bytes: MM_VERSION of the library that was loaded, and
 * sizes. */
MM_API const char *mm_version(void);
MM_API size_t mm_bundle_size(void);
MM_API size_t mm_tensor_size(void);

#ifdef __cplusplus
}
#endif

#endif
