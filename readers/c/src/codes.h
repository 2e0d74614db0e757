/* Blocks of codes as they lie in raw payloads: spec/tensors.md §3.3 and §3.4. */
#ifndef MM_CODES_H
#define MM_CODES_H

#include "payload.h"

/* One block, decompressed and checked. Pointers go into the file, the scratch, or the caller's packed codes. */
typedef struct mm_block {
    uint64_t first_row;
    uint64_t rows;
    const uint8_t *codes; /* plain: packed rows; at depth 16 high rows, then low rows. split: other codes, one row */
    const uint8_t *plane; /* split: packed rows of 1 bit; else NULL */
    uint64_t ones;        /* split: number of other codes */
} mm_block;

/* Bytes of scratch that one block takes: its raw bytes, PNG's filters, and the codec. */
uint64_t mm_block_scratch(const mm_tensor *tensor);

/* Where codes come from: the file, or raw blocks that lie one after the other in packed (a split block: plane, then
 * other codes). */
typedef struct mm_code_source {
    const mm_bundle *bundle;
    const uint8_t *packed; /* NULL: the file */
    size_t size;
    size_t at; /* of the next block in packed, at most size */
} mm_code_source;

/* Read block number index: of the file, with checks 13 to 15; of packed, the next one, or MM_USAGE where it does not
 * fit. scratch is where its bytes go, so that each call with the same scratch reuses it. */
mm_status mm_read_block(mm_code_source *source, const mm_tensor *tensor, uint32_t index, mm_arena scratch,
                        mm_block *block);

/* Raw bytes of all blocks; of a split stream, whose planes tell, from the payload entries. */
uint64_t mm_blocks_size(const mm_bundle *bundle, const mm_tensor *tensor);

/* Bytes of a packed row of plain codes (of one half at depth 16), or of the plane. */
uint64_t mm_code_row_bytes(const mm_matrix *matrix);

/* Ones in the first rows rows of the plane: where a row's other codes begin. Spare bits do not count. */
uint64_t mm_ones_before(const mm_matrix *matrix, const uint8_t *plane, uint64_t rows);

/* The k of kernels.h: depth is 1 << k, up to 8. */
static inline uint32_t mm_depth_index(uint32_t depth) { return depth == 1 ? 0 : depth == 2 ? 1 : depth == 4 ? 2 : 3; }

/* Walks along one row of a block. Plain codes may be taken in any order: set `n`. Those of a split stream follow each
 * other. */
typedef struct mm_row {
    const mm_matrix *matrix;
    const mm_block *block;
    uint64_t row;         /* within the block */
    const uint8_t *codes; /* packed row; its high bytes at depth 16; the plane's row where split */
    const uint8_t *low;   /* depth 16, plain: the row's low bytes */
    uint64_t n;           /* number of the next code */
    uint64_t other;       /* number of the next other code */
    uint32_t last;        /* the code taken last, kept for split streams */
} mm_row;

/* A row from its first code on. `other` is what mm_ones_before says (0 where not split). */
mm_row mm_row_at(const mm_tensor *tensor, const mm_block *block, uint64_t row, uint64_t other);

/* The next count codes of the row, as numbers: 17 bits at most. */
void mm_next_codes(mm_row *row, uint64_t count, uint32_t *codes);

/* Up to 32 samples of a packed row of 1 bit, from the one numbered n on, the first in the highest bit. Zeros stand for
 * what is behind count, of which no byte is read. */
static inline uint32_t mm_plane_bits(const uint8_t *plane, uint64_t n, uint64_t count) {
    const uint8_t *at = plane + n / 8;
    uint32_t skip = (uint32_t)(n % 8);
    uint32_t wanted = count < 32 ? (uint32_t)count : 32;
    uint64_t bits = 0;
    for (uint32_t have = 0; have < skip + wanted; have += 8) {
        bits |= (uint64_t)*at++ << (56 - have);
    }
    return (uint32_t)(bits << skip >> 32) & ~(uint32_t)(UINT64_C(0xFFFFFFFF) >> wanted);
}

/* Other code number k of a split block, as it is stored: renumbered without the background. */
static inline uint32_t mm_other_code(const mm_block *block, uint32_t depth, uint64_t k) {
    if (depth == 16) {
        return (uint32_t)block->codes[k] << 8 | block->codes[block->ones + k];
    }
    uint64_t bit = k * depth;
    return (uint32_t)block->codes[bit / 8] >> (8 - depth - bit % 8) & ((1u << depth) - 1);
}

#endif
