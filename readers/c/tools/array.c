#include "array.h"

#include <string.h>

array array_of_bits(unsigned bits) {
    array made = {.bits = bits};
    sha256_start(&made.hash);
    return made;
}

array array_of_type(uint32_t dtype) {
    static const uint8_t bits[] = {0,  32,  8,  8, 16, 16, 32, 64, 0, 8, 16, 64, 32, 64,
                                   64, 128, 16, 8, 8,  8,  8,  4,  4, 4, 8,  2,  2};
    enum { COMPLEX64 = 14, COMPLEX128 = 15 };
    array made = array_of_bits(dtype < sizeof bits ? bits[dtype] : 0);
    made.is_complex = dtype == COMPLEX64 || dtype == COMPLEX128;
    return made;
}

void array_add(array *to, const uint8_t *data, size_t size) {
    if (size == 0) {
        return;
    }
    sha256_add(&to->hash, data, size);
    size_t room = sizeof to->first - to->kept;
    size_t kept = size < room ? size : room;
    memcpy(to->first + to->kept, data, kept);
    to->kept += kept;
}

/* The hexadecimal digits of little-endian bytes. */
static char *write_digits(char *at, const uint8_t *bytes, size_t count) {
    static const char digits[] = "0123456789abcdef";
    for (size_t i = count; i > 0; i--) {
        *at++ = digits[bytes[i - 1] >> 4];
        *at++ = digits[bytes[i - 1] & 15];
    }
    return at;
}

static void print_element(const array *from, json *out, unsigned index) {
    char text[2 * ARRAY_WIDEST + 1];
    char *end = text;
    size_t width = from->bits / 8;
    const uint8_t *bytes = from->first + index * width;
    if (from->bits < 8) {
        unsigned bit = index * from->bits;
        uint8_t sample = (uint8_t)(from->first[bit / 8] >> bit % 8 & ((1u << from->bits) - 1));
        end = write_digits(text, &sample, 1);
        memmove(text, text + 1, 1);
        end--;
    } else if (from->is_complex) {
        end = write_digits(end, bytes, width / 2);
        end = write_digits(end, bytes + width / 2, width / 2);
    } else {
        end = write_digits(end, bytes, width);
    }
    *end = '\0';
    json_name(out, text);
}

static void print_digest(sha256_state *hash, json *out) {
    uint8_t digest[SHA256_BYTES];
    sha256_finish(hash, digest);
    json_key(out, "sha256");
    json_hash(out, (mm_bytes){digest, sizeof digest});
}

void array_print(array *from, json *out, const uint64_t *shape, uint32_t rank) {
    bool some = true;
    uint64_t elements = 1; /* up to ARRAY_FIRST, so that no product is too large */
    for (uint32_t i = 0; i < rank; i++) {
        some = some && shape[i] > 0;
        uint64_t size = shape[i] < ARRAY_FIRST ? shape[i] : ARRAY_FIRST;
        elements = elements * size < ARRAY_FIRST ? elements * size : ARRAY_FIRST;
    }
    json_open(out, '{');
    json_key(out, "first");
    json_open(out, '[');
    for (unsigned i = 0; some && i < elements; i++) {
        print_element(from, out, i);
    }
    json_close(out, ']');
    print_digest(&from->hash, out);
    json_key(out, "shape");
    json_open(out, '[');
    for (uint32_t i = 0; i < rank; i++) {
        json_number(out, shape[i]);
    }
    json_close(out, ']');
    json_close(out, '}');
}

void blob_print(json *out, const uint8_t *data, size_t size) {
    sha256_state hash;
    sha256_start(&hash);
    sha256_add(&hash, data, size);
    json_open(out, '{');
    print_digest(&hash, out);
    json_key(out, "size");
    json_number(out, size);
    json_close(out, '}');
}
