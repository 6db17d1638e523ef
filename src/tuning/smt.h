// tuning/smt.h - what the files of smt share: where blocks are, how they are chosen, and their files. A block is
// size x size elements of a matrix, less at its lower and right edge; when channels of the input are chosen,
// a whole column.
#pragma once
#include "tuning/tuning.h"

struct smt_block {
    int64_t bank, group; // of tuning_input's banks; the matrix in it
    int64_t row, rows, column, columns;
    double score; // 0 where nothing was scored
};

struct smt_blocks { // in the order of these fields once sorted
    struct smt_block *block;
    int64_t count, capacity;
};
void smt_blocks_free(struct smt_blocks *b);
// The block of the matrix that begins at an element. False, naming `where`, if none does.
bool smt_blocks_add(struct smt_blocks *b, const struct tuning_input *in, const struct smt_block *at,
                    const char *where, struct error *err);
// False, naming `where`, if one is there twice, or nothing at all.
bool smt_blocks_sort(struct smt_blocks *b, const struct tuning_input *in, const char *where,
                     struct error *err);

// smt_choice.c: the candidates of a choice, numbered matrix by matrix and row by row: the order of ties.
struct smt_matrix {
    char module[NAME_MAX_LENGTH];
    int64_t layer, bank, group;
    int mlp;               // 0: attention, 1: MLP and experts
    int64_t first;         // its first candidate
    int64_t rows, cols;    // elements
    int64_t height, width; // of a block
    int64_t down, across;  // blocks
};

struct smt_targets {
    struct smt_matrix *matrix; // by layer, then by name
    int64_t count, capacity;
    int64_t candidates;
    int64_t budget
        [2]; // blocks of each group, or of each of its matrices; [0] holds both with scope all
    const struct tuning_input *in;
};
// Finds the matrices and settles the budget, which must not be more than there is.
bool smt_targets_open(struct smt_targets *t, const struct tuning_input *in, struct error *err);
void smt_targets_close(struct smt_targets *t);
// The best by score (candidates). NULL: as many, spread evenly over the candidates.
bool smt_choose(struct smt_blocks *out, const struct smt_targets *t, const double *score,
                struct error *err);

// smt_file.c
bool smt_blocks_read(struct smt_blocks *b, const struct tuning_input *in, const char *path,
                     struct error *err);
bool smt_blocks_write(const struct smt_blocks *b, const struct tuning_input *in, const char *path,
                      struct error *err);
bool smt_blocks_of_adapter(struct smt_blocks *b, const struct tuning_input *in, struct error *err);
// The tensor of an adapter's file that holds a block: "...q_proj.weight[256:512,0:256]".
void smt_block_name(char out[NAME_MAX_LENGTH], const struct tuning_input *in,
                    const struct smt_block *b);
bool smt_config_write(const struct smt_blocks *b, const struct tuning_input *in, const char *dir,
                      struct error *err);
bool smt_config_read(bool *mine, struct tuning_options *r, const char *dir, struct error *err);

// smt_score.c: the policies of the stage before.
extern const struct tuning smt_by_gradient, smt_by_activation, smt_by_training;
