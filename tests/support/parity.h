// tests/support/parity.h - the tiny models of fixtures/make_parity.py and make_routing.py: opened here, and
// what transformers computed with them.
#pragma once
#include "support.h"

#include "model/model.h"

enum { PARITY_BATCHES = 4, PARITY_STEPS = 20 };

struct parity {
    const char *folder, *name; // fixtures/FOLDER/NAME
    const char *prefix;        // of the tensors that parity_gradient and parity_of_layer find
    struct fixture reference;
    struct batch batch[PARITY_BATCHES]; // views of the fixture: never batch_free
    int64_t max_tokens;                 // of the largest batch
};

struct parity_case {
    const char *name, *layout; // v4: a tensor an expert; v5: fused
};
extern const struct parity_case parity_cases[];
extern const int parity_n_cases;
extern const int parity_n_moe_cases; // those with experts, which come first

void parity_open(struct parity *p, const char *name); // in fixtures/parity
void parity_open_in(struct parity *p, const char *folder, const char *name);
void parity_close(struct parity *p);
// A setup for this case with topk and, if it is to learn, full tuning; the test may change it.
struct model_setup parity_setup(const struct parity *p, const struct parity_case *c, enum dtype t);
void parity_model(struct model *m, const struct model_setup *s); // open and allocate
// All rows of the batch; the caller frees with mem_free.
struct tensor parity_logits(struct model *m, const struct batch *b);
// The reference's gradient of a leaf, cut out of the fused one where the leaf is one expert's matrix.
struct tensor parity_gradient(const struct parity *p, const char *leaf);
bool parity_dense(const struct parity *p); // no layer has experts
struct tensor parity_of_layer(const struct parity *p, const char *what, int64_t layer);
