// What the bindings need of a C library.
#pragma once
#include <stddef.h>

size_t strlen(const char *text);
void *memcpy(void *restrict to, const void *restrict from, size_t size);
