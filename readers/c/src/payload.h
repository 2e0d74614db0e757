/* From a payload's stored bytes to its raw bytes: checks 13 to 15 of spec/container.md §6, and the codecs. */
#ifndef MM_PAYLOAD_H
#define MM_PAYLOAD_H

#include "arena.h"
#include "framing.h"

enum { MM_STORED = 0, MM_ZLIB = 1, MM_PNG = 2, MM_ZSTD = 3 };

/* What zlib or libzstd take of the scratch while they work; 64-byte pieces included. */
uint64_t mm_codec_scratch(void);
uint64_t mm_zlib_scratch(void);
uint64_t mm_zstd_scratch(void); /* 0 in a build without libzstd */

/* A packed matrix (spec/tensors.md §3.3): height rows, at depth 16 twice those of the matrix of codes, of width samples
 * of depth bits, 1, 2, 4 or 8. */
typedef struct mm_packed_shape {
    uint32_t height, width, depth;
} mm_packed_shape;

static inline uint64_t mm_row_bytes(mm_packed_shape shape) { return ((uint64_t)shape.width * shape.depth + 7) / 8; }

/* MM_OK, or MM_UNSUPPORTED_CODEC for a codec that this build does not know (check 13). */
mm_status mm_check_codec(const mm_bundle *bundle, uint32_t index);
mm_status mm_check_codecs(const mm_bundle *bundle, uint32_t first, uint32_t count);

/* The payload's frame and CRC-32 (check 14). */
mm_status mm_check_payload(const mm_bundle *bundle, uint32_t index);

/* Check and decode a payload of bytes into out, which holds raw_size bytes; the codec's state is taken of scratch. */
mm_status mm_read_bytes(const mm_bundle *bundle, uint32_t index, uint8_t *out, mm_arena scratch);

/* The same without a copy where it is stored: *raw points into the file, or into a piece taken of scratch, which also
 * has to hold mm_codec_scratch() behind that piece. */
mm_status mm_view_bytes(const mm_bundle *bundle, uint32_t index, mm_arena *scratch, const uint8_t **raw);

/* Check and decode a packed matrix of this shape; MM_MALFORMED_STREAM where its raw size is another. The piece that is
 * taken of scratch has mm_matrix_piece(shape) bytes. */
mm_status mm_view_matrix(const mm_bundle *bundle, uint32_t index, mm_packed_shape shape, mm_arena *scratch,
                         const uint8_t **raw);

/* Raw bytes of a packed matrix, and those with room for the filter byte that each row of a PNG brings. */
static inline uint64_t mm_matrix_size(mm_packed_shape shape) { return shape.height * mm_row_bytes(shape); }
static inline uint64_t mm_matrix_piece(mm_packed_shape shape) { return mm_matrix_size(shape) + shape.height; }

/* The codecs. Each decodes stored[0 .. stored_size) to exactly raw_size bytes, or gives MM_MALFORMED_STREAM; MM_ERROR
 * where scratch is too small. A PNG leaves its rows together at the start of raw, which holds mm_matrix_piece(shape)
 * bytes; crc32 is that of the stored bytes. */
mm_status mm_decode_zlib(const uint8_t *stored, size_t stored_size, uint8_t *raw, size_t raw_size, mm_arena scratch);
mm_status mm_decode_png(const uint8_t *stored, size_t stored_size, uint32_t crc32, mm_packed_shape shape, uint8_t *raw,
                        mm_arena scratch);
mm_status mm_decode_zstd(const uint8_t *stored, size_t stored_size, uint8_t *raw, size_t raw_size, mm_arena scratch);

#endif
