/* The strict grammar of spec/container.md §5, driven by a table of the schema. */
#include "schema.h"
#include "utf8.h"
#include "wire.h"

enum { MAX_NESTING = 8, MAX_MESSAGES = 1 << 20 };

typedef enum mm_rule_kind { UNKNOWN = 0, NUMBER, NUMBERS, FLOATS, WIDTH32, WIDTH64, BLOB, TEXT, MESSAGE } mm_rule_kind;

/* How often a field may stand: as a member of its message's oneof, of which no message has more than one, CHOSEN. */
enum { ONCE = 0, REPEATED, CHOSEN };

enum {
    MANIFEST,
    PAYLOAD,
    SOURCE,
    VALUE,
    SHAPE,
    DIMENSION,
    PREPROCESSING,
    RESIZE,
    MEAN_PICTURE,
    TENSOR,
    DENSE,
    PALETTE,
    AFFINE,
    CODES,
    SLICE,
    GROUPING,
    LOSS
};

/* What the schema says of a field. */
typedef struct mm_rule {
    uint8_t kind;
    uint8_t often;
    uint8_t bits;    /* of NUMBER, NUMBERS: the largest one has so many */
    uint8_t message; /* of MESSAGE: which one */
} mm_rule;

/* clang-format off */
#define NUMBER_OF(width) {.kind = NUMBER, .bits = (width)}
#define BOOL NUMBER_OF(1)
#define INT31 NUMBER_OF(31) /* int32 and enum */
#define UINT32 NUMBER_OF(32) /* and sint32, whose zigzag number it is */
#define UINT64 NUMBER_OF(64)
#define ONE(of) {.kind = MESSAGE, .message = (of)}
#define MANY(of) {.kind = MESSAGE, .often = REPEATED, .message = (of)}
#define CHOICE(of) {.kind = MESSAGE, .often = CHOSEN, .message = (of)}

static const mm_rule payload_rules[] = {
    [PAYLOAD_OFFSET] = {.kind = WIDTH64},
    [PAYLOAD_STORED_SIZE] = {.kind = WIDTH32},
    [PAYLOAD_RAW_SIZE] = {.kind = WIDTH32},
    [PAYLOAD_CRC32] = {.kind = WIDTH32},
    [PAYLOAD_CODEC] = {.kind = WIDTH32},
};

static const mm_rule source_rules[] = {
    [SOURCE_FORMAT] = {.kind = TEXT},
    [SOURCE_FILE_NAME] = {.kind = TEXT},
    [SOURCE_SHA256] = {.kind = BLOB},
};

static const mm_rule dimension_rules[] = {
    [DIMENSION_SIZE] = {.kind = NUMBER, .often = CHOSEN, .bits = 64},
    [DIMENSION_SYMBOL] = {.kind = TEXT, .often = CHOSEN},
};

static const mm_rule shape_rules[] = {[SHAPE_DIMENSIONS] = MANY(DIMENSION)};

static const mm_rule value_rules[] = {[VALUE_NAME] = {.kind = TEXT}, [VALUE_DTYPE] = INT31, [VALUE_SHAPE] = ONE(SHAPE)};

static const mm_rule resize_rules[] = {
    [RESIZE_MODE] = INT31,
    [RESIZE_HEIGHT] = UINT32,
    [RESIZE_WIDTH] = UINT32,
    [RESIZE_KERNEL] = INT31,
    [RESIZE_ANTIALIAS] = BOOL,
};

static const mm_rule mean_picture_rules[] = {
    [MEAN_PICTURE_PAYLOAD] = UINT32,
    [MEAN_PICTURE_HEIGHT] = UINT32,
    [MEAN_PICTURE_WIDTH] = UINT32,
};

static const mm_rule preprocessing_rules[] = {
    [PREPROCESSING_INPUT] = {.kind = TEXT},
    [PREPROCESSING_RESIZE] = ONE(RESIZE),
    [PREPROCESSING_CROP_HEIGHT] = UINT32,
    [PREPROCESSING_CROP_WIDTH] = UINT32,
    [PREPROCESSING_COLOUR_ORDER] = INT31,
    [PREPROCESSING_MEAN] = {.kind = FLOATS},
    [PREPROCESSING_MEAN_PICTURE] = ONE(MEAN_PICTURE),
    [PREPROCESSING_SCALE] = {.kind = FLOATS},
    [PREPROCESSING_LAYOUT] = INT31,
};

static const mm_rule slice_rules[] = {[SLICE_PAYLOAD] = UINT32, [SLICE_OFFSET] = UINT64, [SLICE_SIZE] = UINT64};

static const mm_rule grouping_rules[] = {[GROUPING_ROW_GROUP] = UINT32, [GROUPING_COL_GROUP] = UINT32};

static const mm_rule codes_rules[] = {
    [CODES_VIEW] = {.kind = NUMBERS, .bits = 64},
    [CODES_PERM] = {.kind = NUMBERS, .bits = 32},
    [CODES_ROW_AXES] = UINT32,
    [CODES_DEPTH] = UINT32,
    [CODES_VECTOR] = UINT32,
    [CODES_SEGMENT] = UINT32,
    [CODES_ROWS_PER_BLOCK] = UINT32,
    [CODES_FIRST_PAYLOAD] = UINT32,
    [CODES_SPLIT] = BOOL,
    [CODES_BACKGROUND] = UINT32,
};

static const mm_rule palette_rules[] = {
    [PALETTE_CODES] = ONE(CODES),
    [PALETTE_ENTRIES] = UINT32,
    [PALETTE_TABLE_TYPE] = INT31,
    [PALETTE_TABLES] = ONE(SLICE),
    [PALETTE_TABLES_BY] = ONE(GROUPING),
    [PALETTE_SCALES] = ONE(SLICE),
    [PALETTE_SCALES_BY] = ONE(GROUPING),
    [PALETTE_SCALE_TYPE] = INT31,
};

static const mm_rule affine_rules[] = {
    [AFFINE_CODES] = ONE(CODES),
    [AFFINE_SCALES] = ONE(SLICE),
    [AFFINE_ZEROS] = ONE(SLICE),
    [AFFINE_BY] = ONE(GROUPING),
};

static const mm_rule dense_rules[] = {
    [DENSE_STORED_DTYPE] = INT31,
    [DENSE_CHUNK_ELEMENTS] = UINT64,
    [DENSE_FIRST_PAYLOAD] = UINT32,
    [DENSE_BYTE_PLANES] = BOOL,
    [DENSE_SMALL] = ONE(SLICE),
};

static const mm_rule loss_rules[] = {[LOSS_SQNR_MILLIDB] = UINT32, [LOSS_LARGEST_ERROR] = {.kind = WIDTH32}};
/* clang-format on */

static const mm_rule tensor_rules[] = {
    [TENSOR_NAME] = {.kind = TEXT},
    [TENSOR_DTYPE] = INT31,
    [TENSOR_DIMS] = {.kind = NUMBERS, .bits = 64},
    [TENSOR_REQUIRED_FEATURES] = {.kind = TEXT, .often = REPEATED},
    [TENSOR_DENSE] = CHOICE(DENSE),
    [TENSOR_PALETTE] = CHOICE(PALETTE),
    [TENSOR_AFFINE] = CHOICE(AFFINE),
    [TENSOR_LOSS] = ONE(LOSS),
};

static const mm_rule manifest_rules[] = {
    [MANIFEST_SPEC_MAJOR] = UINT32,
    [MANIFEST_SPEC_MINOR] = UINT32,
    [MANIFEST_REQUIRED_FEATURES] = {.kind = TEXT, .often = REPEATED},
    [MANIFEST_FILE_SIZE] = {.kind = WIDTH64},
    [MANIFEST_PRODUCER] = {.kind = TEXT},
    [MANIFEST_SOURCES] = MANY(SOURCE),
    [MANIFEST_LICENCE] = {.kind = TEXT},
    [MANIFEST_DESCRIPTION] = {.kind = TEXT},
    [MANIFEST_SCHEME] = {.kind = TEXT},
    [MANIFEST_INPUTS] = MANY(VALUE),
    [MANIFEST_OUTPUTS] = MANY(VALUE),
    [MANIFEST_PREPROCESSING] = MANY(PREPROCESSING),
    [MANIFEST_GRAPH] = UINT32,
    [MANIFEST_LABELS] = UINT32,
    [MANIFEST_REPORT] = UINT32,
    [MANIFEST_TENSORS] = MANY(TENSOR),
    [MANIFEST_PAYLOADS] = MANY(PAYLOAD),
};

#define MESSAGE_OF(rules) {(rules), sizeof(rules) / sizeof(rules)[0]}

static const struct {
    const mm_rule *rules; /* by field number; number 0 has none */
    uint32_t count;
} messages[] = {
    [MANIFEST] = MESSAGE_OF(manifest_rules),
    [PAYLOAD] = MESSAGE_OF(payload_rules),
    [SOURCE] = MESSAGE_OF(source_rules),
    [VALUE] = MESSAGE_OF(value_rules),
    [SHAPE] = MESSAGE_OF(shape_rules),
    [DIMENSION] = MESSAGE_OF(dimension_rules),
    [PREPROCESSING] = MESSAGE_OF(preprocessing_rules),
    [RESIZE] = MESSAGE_OF(resize_rules),
    [MEAN_PICTURE] = MESSAGE_OF(mean_picture_rules),
    [TENSOR] = MESSAGE_OF(tensor_rules),
    [DENSE] = MESSAGE_OF(dense_rules),
    [PALETTE] = MESSAGE_OF(palette_rules),
    [AFFINE] = MESSAGE_OF(affine_rules),
    [CODES] = MESSAGE_OF(codes_rules),
    [SLICE] = MESSAGE_OF(slice_rules),
    [GROUPING] = MESSAGE_OF(grouping_rules),
    [LOSS] = MESSAGE_OF(loss_rules),
};

static uint32_t wire_type_of(mm_rule_kind kind) {
    switch (kind) {
    case NUMBER: return MM_WIRE_VARINT;
    case WIDTH32: return MM_WIRE_FIXED32;
    case WIDTH64: return MM_WIRE_FIXED64;
    default: return MM_WIRE_BYTES;
    }
}

static bool fits(uint64_t number, uint32_t bits) { return bits == 64 || number >> bits == 0; }

/* Rules 4, 6 and 7 of a field's content; a message's content is looked at later. */
static bool content_holds(const mm_rule *rule, const mm_reader *reader, const mm_field *field) {
    switch (rule->kind) {
    case NUMBER: return fits(field->value, rule->bits);
    case FLOATS: return (field->end - field->start) % 4 == 0;
    case TEXT: return mm_is_utf8(reader->data + field->start, field->end - field->start);
    case NUMBERS:
        for (mm_reader run = mm_enter(reader, field); run.at < run.end;) {
            uint64_t number;
            if (!mm_read_varint(&run, &number) || !fits(number, rule->bits)) {
                return false;
            }
        }
        return true;
    default: return true;
    }
}

/* A message that is being read, its fields so far having passed. */
typedef struct mm_level {
    mm_reader reader;
    uint32_t message;
    uint32_t last; /* number of the field before */
    bool chosen;   /* a member of the oneof stands */
} mm_level;

/* Read the next field and check it; *found is its rule, or NULL where the schema does not name it. */
static bool field_holds(mm_level *level, mm_field *field, const mm_rule **found) {
    *found = NULL;
    if (!mm_read_field(&level->reader, field) || field->number < level->last) {
        return false;
    }
    const bool again = field->number == level->last;
    level->last = field->number;
    if (field->number >= messages[level->message].count) {
        return true;
    }
    const mm_rule *rule = &messages[level->message].rules[field->number];
    if (rule->kind == UNKNOWN) {
        return true;
    }
    const bool chosen = rule->often == CHOSEN;
    if (field->wire_type != wire_type_of(rule->kind) || (again && rule->often != REPEATED) ||
        (chosen && level->chosen)) {
        return false;
    }
    level->chosen = level->chosen || chosen;
    *found = rule;
    return content_holds(rule, &level->reader, field);
}

mm_status mm_check_grammar(mm_bytes manifest) {
    mm_level levels[MAX_NESTING + 1];
    uint32_t nesting = 0;
    uint32_t begun = 1; /* messages */
    levels[0] = (mm_level){.reader = {manifest.data, 0, (uint32_t)manifest.size}, .message = MANIFEST};
    for (;;) {
        mm_level *inner = &levels[nesting];
        if (inner->reader.at == inner->reader.end) {
            if (nesting == 0) {
                return MM_OK;
            }
            nesting--;
            continue;
        }
        mm_field field;
        const mm_rule *rule;
        if (!field_holds(inner, &field, &rule)) {
            return MM_MALFORMED_WIRE;
        }
        if (rule != NULL && rule->kind == MESSAGE) {
            if (begun == MAX_MESSAGES || nesting == MAX_NESTING) {
                return MM_LIMIT_EXCEEDED;
            }
            begun++;
            nesting++;
            levels[nesting] = (mm_level){.reader = mm_enter(&inner->reader, &field), .message = rule->message};
        }
    }
}
