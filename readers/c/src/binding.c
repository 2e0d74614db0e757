/* What a binding of another language asks before it trusts its own idea of this library. */
#include "mobilemodel.h"

const char *mm_version(void) { return MM_VERSION; }

size_t mm_bundle_size(void) { return sizeof(mm_bundle); }

size_t mm_tensor_size(void) { return sizeof(mm_tensor); }
