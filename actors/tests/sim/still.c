/* The one randomness that a simulation does not own comes from the system by this call: the order
 * of Rust's hash maps, and whom tokio wakes first. Preloaded, it answers the same every time. */
#include <stddef.h>
#include <sys/types.h>

ssize_t getrandom(void *bytes, size_t count, unsigned flags) {
    static unsigned long state = 1;
    (void)flags;
    for (size_t index = 0; index < count; index++) {
        state = state * 6364136223846793005ul + 1442695040888963407ul;
        ((unsigned char *)bytes)[index] = (unsigned char)(state >> 56);
    }
    return (ssize_t)count;
}
