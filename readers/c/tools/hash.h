/* SHA-256 of libmd, or of CommonCrypto on Apple's systems. */
#ifndef HASH_H
#define HASH_H

#include <stddef.h>
#include <stdint.h>

#ifdef __APPLE__
#include <CommonCrypto/CommonDigest.h>
typedef CC_SHA256_CTX sha256_state;
#else
#include <sys/types.h>

#include <sha256.h>
typedef SHA256_CTX sha256_state;
#endif

enum { SHA256_BYTES = 32 };

void sha256_start(sha256_state *state);
void sha256_add(sha256_state *state, const uint8_t *data, size_t size);
void sha256_finish(sha256_state *state, uint8_t digest[SHA256_BYTES]);

#endif
