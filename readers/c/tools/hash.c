#include "hash.h"

#ifdef __APPLE__
/* CommonCrypto counts in 32 bits. */
enum { MOST_AT_ONCE = 1 << 30 };

void sha256_start(sha256_state *state) { CC_SHA256_Init(state); }

void sha256_add(sha256_state *state, const uint8_t *data, size_t size) {
    while (size > 0) {
        size_t now = size < MOST_AT_ONCE ? size : MOST_AT_ONCE;
        CC_SHA256_Update(state, data, (CC_LONG)now);
        data += now;
        size -= now;
    }
}

void sha256_finish(sha256_state *state, uint8_t digest[SHA256_BYTES]) { CC_SHA256_Final(digest, state); }

#else

void sha256_start(sha256_state *state) { SHA256_Init(state); }

void sha256_add(sha256_state *state, const uint8_t *data, size_t size) { SHA256_Update(state, data, size); }

void sha256_finish(sha256_state *state, uint8_t digest[SHA256_BYTES]) { SHA256_Final(digest, state); }

#endif
