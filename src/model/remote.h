// model/remote.h - what an export carries besides weights when its routing is no part of the architecture:
// the Python code with which transformers runs it (model/remote/), its entry in config.json, and a section
// of README.md that says so. An export that is plain again loses them.
#pragma once
#include "base/mem.h"
#include "model/model.h"

extern const char remote_file[]; // modeling_moetune.py
// Its text, embedded at build time.
extern const unsigned char remote_code[];
extern const size_t remote_code_size;

bool remote_is_ours(const json_t *auto_map); // all of its code

// The base's config.json with or without the entry in auto_map; empty: it is right as it is.
bool remote_config(struct buf *out, const char *dir, const struct model_config *c, bool plain,
                   struct error *err);

// README.md: the base's text (NULL: it has none) without the section of an earlier export and, unless the
// export is plain, with one for this routing: at its head, after YAML front matter.
bool remote_readme(struct buf *out, const char *base, const struct model *m, bool plain,
                   struct error *err);
bool remote_has_section(const char *readme);
