#pragma once
#include <stddef.h>

// A block that lasts until `give_all_back`. Traps if the host gives no more memory.
void *allocate(size_t size);

// Gives back every block.
void give_all_back(void);
