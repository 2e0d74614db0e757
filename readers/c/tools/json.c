#include "json.h"

#include <inttypes.h>
#include <string.h>

json json_to(FILE *file) { return (json){file, 0, true, false}; }

void json_end(json *out) { fputc('\n', out->file); }

static void new_line(json *out) {
    fputc('\n', out->file);
    for (unsigned i = 0; i < out->depth; i++) {
        fputs("  ", out->file);
    }
}

/* Before a value or a key: what stands between it and the one before. */
static void next(json *out) {
    if (!out->after_key && out->depth > 0) {
        if (!out->empty) {
            fputc(',', out->file);
        }
        new_line(out);
    }
    out->after_key = false;
    out->empty = false;
}

void json_open(json *out, char bracket) {
    next(out);
    fputc(bracket, out->file);
    out->depth++;
    out->empty = true;
}

void json_close(json *out, char bracket) {
    out->depth--;
    if (!out->empty) {
        new_line(out);
    }
    fputc(bracket, out->file);
    out->empty = false;
}

void json_key(json *out, const char *key) {
    next(out);
    fprintf(out->file, "\"%s\": ", key);
    out->after_key = true;
}

void json_name(json *out, const char *ascii) {
    next(out);
    fprintf(out->file, "\"%s\"", ascii);
}

void json_number(json *out, uint64_t value) {
    next(out);
    fprintf(out->file, "\"%" PRIu64 "\"", value);
}

void json_signed(json *out, int64_t value) {
    next(out);
    fprintf(out->file, "\"%" PRId64 "\"", value);
}

void json_bits(json *out, uint32_t bits) {
    next(out);
    fprintf(out->file, "\"%08" PRIx32 "\"", bits);
}

void json_hash(json *out, mm_bytes bytes) {
    next(out);
    fputc('"', out->file);
    for (size_t i = 0; i < bytes.size; i++) {
        fprintf(out->file, "%02x", bytes.data[i]);
    }
    fputc('"', out->file);
}

/* ------------------------------------------------------------------------------------------------ texts */

/* The character that begins at *at, which moves behind it. */
static uint32_t next_character(mm_bytes text, size_t *at) {
    static const uint32_t smallest[5] = {0, 0, 0x80, 0x800, 0x10000}; /* by number of bytes: no overlong forms */
    uint32_t head = text.data[(*at)++];
    size_t length = head < 0x80 ? 1 : head < 0xC0 ? 0 : head < 0xE0 ? 2 : head < 0xF0 ? 3 : head < 0xF8 ? 4 : 0;
    if (length == 1) {
        return head;
    }
    if (length == 0 || length - 1 > text.size - *at) {
        return 0xFFFD;
    }
    uint32_t character = head & (0x7Fu >> length);
    for (size_t i = 0; i < length - 1; i++) {
        uint32_t byte = text.data[*at + i];
        if (byte >> 6 != 2) {
            return 0xFFFD;
        }
        character = character << 6 | (byte & 0x3F);
    }
    bool surrogate = character >= 0xD800 && character < 0xE000;
    if (character < smallest[length] || character > 0x10FFFF || surrogate) {
        return 0xFFFD;
    }
    *at += length - 1;
    return character;
}

static void write_character(FILE *file, uint32_t character) {
    static const char named[] = "\"\\\b\f\n\r\t";
    static const char letters[] = "\"\\bfnrt";
    const char *found = character > 0 && character < 0x80 ? strchr(named, (int)character) : NULL;
    if (found != NULL) {
        fprintf(file, "\\%c", letters[found - named]);
    } else if (character >= 0x20 && character < 0x7F) {
        fputc((int)character, file);
    } else if (character < 0x10000) {
        fprintf(file, "\\u%04" PRIx32, character);
    } else {
        uint32_t above = character - 0x10000;
        fprintf(file, "\\u%04" PRIx32 "\\u%04" PRIx32, 0xD800 + (above >> 10), 0xDC00 + (above & 0x3FF));
    }
}

void json_text(json *out, mm_bytes text) {
    next(out);
    fputc('"', out->file);
    for (size_t at = 0; at < text.size;) {
        write_character(out->file, next_character(text, &at));
    }
    fputc('"', out->file);
}
