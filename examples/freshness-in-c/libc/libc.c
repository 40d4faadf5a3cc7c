// Memory for one call: what the host passes in and what the policy answers. It is given back as a whole
// once the host has read the answer, so nothing leaks and nothing is searched.

#include "libc.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define PAGE_BYTES 65536
#define ALIGNMENT 16

extern unsigned char __heap_base;

static uintptr_t top;

void *allocate(size_t size) {
    if (top == 0) {
        top = (uintptr_t)&__heap_base;
    }
    uintptr_t block = (top + ALIGNMENT - 1) & ~(uintptr_t)(ALIGNMENT - 1);
    if (size > UINT32_MAX - block) {
        abort();
    }
    uintptr_t end = block + size;
    uintptr_t have = __builtin_wasm_memory_size(0) * PAGE_BYTES;
    if (end > have) {
        uintptr_t pages = (end - have + PAGE_BYTES - 1) / PAGE_BYTES;
        // The host bounds the memory of a policy, and refuses what goes beyond.
        if (__builtin_wasm_memory_grow(0, pages) == (size_t)-1) {
            abort();
        }
    }
    top = end;
    return (void *)block;
}

void give_all_back(void) { top = 0; }

// The host asks for new blocks only.
void *realloc(void *block, size_t size) {
    if (block != NULL) {
        abort();
    }
    return allocate(size);
}

void free(void *block) { (void)block; }

_Noreturn void abort(void) { __builtin_trap(); }

size_t strlen(const char *text) {
    size_t length = 0;
    while (text[length] != 0) {
        length++;
    }
    return length;
}

void *memcpy(void *restrict to, const void *restrict from, size_t size) {
    return __builtin_memcpy(to, from, size);
}
