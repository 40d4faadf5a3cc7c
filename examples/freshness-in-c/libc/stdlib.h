// What the bindings need of a C library.
#pragma once
#include <stddef.h>

void *realloc(void *block, size_t size);
void free(void *block);
_Noreturn void abort(void);
