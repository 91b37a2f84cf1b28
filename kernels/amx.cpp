#include "operation.h"

namespace q3e {
extern const Variant amx = {
    "amx",
    [](const Product&, int) -> int64_t { return -1; },
    [](const Product&, const Team&) {},
    [](const Attention&, int) -> int64_t { return -1; },
    [](const Attention&, const Team&) {},
};
}  // namespace q3e
