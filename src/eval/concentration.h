// eval/concentration.h - how unevenly a layer's load lies on its experts (docs/METHODS.md, "experts"). Arithmetic on
// host arrays; knows no model.
#pragma once
#include <stdbool.h>
#include <stdint.h>

enum { COVER_COUNT = 3 };
extern const int cover_percent[COVER_COUNT]; // 50, 80, 95

struct concentration {
    bool any;         // there was load; else all below is 0
    double gini;      // 0 (level) to (E - 1) / E (one expert has all)
    double entropy;   // -sum_e s_e log s_e / log E of the shares s, 1 (level) to 0; 0 where E = 1
    double effective; // exp(-sum_e s_e log s_e): as many experts used alike have this entropy
    int64_t cover[COVER_COUNT]; // the fewest experts that hold so many per cent of the load
    int64_t unused;             // experts without load
};

// order (E) <- experts by their load, use (E) >= 0, the most used first, or the least; ties: the lower id.
void experts_by_use(int32_t *order, const double *use, int64_t E, bool least);
// order (E) is filled, the most used first: the first cover[i] of it are the super experts of cover_percent[i], and
// those after the last cover are the long tail. share (E) <- use / its sum.
void concentration_of(struct concentration *c, int32_t *order, double *share, const double *use,
                      int64_t E);
