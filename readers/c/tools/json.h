/* Writes the typed JSON of spec/vectors/README.md: every scalar is a string, two spaces of indentation, a line for each
 * element. The caller writes keys in ascending order. Failures of the stream are for the caller to ask ferror about. */
#ifndef JSON_H
#define JSON_H

#include <stdbool.h>
#include <stdio.h>

#include "mobilemodel.h"

typedef struct json {
    FILE *file;
    unsigned depth;
    bool empty;     /* nothing stands in the innermost list or object yet */
    bool after_key; /* what comes next is a key's value */
} json;

json json_to(FILE *file);
void json_end(json *out); /* the line feed that ends the text */

void json_open(json *out, char bracket); /* '[' or '{' */
void json_close(json *out, char bracket);
void json_key(json *out, const char *key); /* ASCII */

void json_text(json *out, mm_bytes text); /* UTF-8; what is not is written as U+FFFD */
void json_name(json *out, const char *ascii);
void json_number(json *out, uint64_t value);
void json_signed(json *out, int64_t value);
void json_bits(json *out, uint32_t bits);  /* 8 hexadecimal digits */
void json_hash(json *out, mm_bytes bytes); /* two hexadecimal digits for each */

#endif
