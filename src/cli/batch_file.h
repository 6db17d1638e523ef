// cli/batch_file.h - the batch of `dump`: {"input_ids": [[..]], "labels": [[..]]}, optional segment_ids,
// rows of one length. Labels are shifted as transformers does it: position t predicts label t + 1 of its
// row, whatever its segment; -100 carries no loss.
#pragma once
#include "io/packing.h"

struct batch_file {
    struct batch batch; // rows one after another; a row, or a run of one segment id, is a document
    int64_t rows, columns;
};
bool batch_file_read(struct batch_file *b, const char *path, int64_t vocab, struct error *err);
bool batch_file_parse(struct batch_file *b, const char *text, size_t size, const char *where,
                      int64_t vocab, struct error *err);
void batch_file_close(struct batch_file *b); // safe after a failed read
