// base/clones.h - loops that are worth it are compiled for AVX-512 too; the loader picks.
#pragma once
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__)
#define VECTOR_CLONES __attribute__((target_clones("arch=x86-64-v4", "default")))
#else
#define VECTOR_CLONES
#endif
