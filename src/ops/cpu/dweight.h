// ops/cpu/dweight.h - a rectangle of dy^T x, computed by the calling thread: what gradients of whole matrices, of
// blocks and of scores are made of.
#pragma once
#include "ops/cpu/cpu.h"

enum { TILE_HEIGHT = 512, TILE_WIDTH = 1024 }; // of whole matrices

struct tile {
    float *dw; // its first element; its rows lie ldc apart
    int64_t ldc, row, rows, column, columns;
    int64_t first, count; // rows of dy and x that add to it
};
// dw += dy[first.., row..]^T x[first.., column..]
void dweight_tile(const struct tile *b, struct tensor dy, struct tensor x);
