// io/folders.h - what a folder holds: for the line that says why it is not what was asked for.
#pragma once
#include "base/error.h"

enum folder_kind { FOLDER_MODEL, FOLDER_ADAPTER };

// If `dir` is none of that kind: false, with what it is instead and where what is wanted may lie. Else true.
bool folder_check(const char *dir, enum folder_kind wanted, struct error *err);

bool is_model_file(const char *name); // config.json, weights or their index
// A folder for a new model; it need not exist. False, naming what it holds, if there is one already.
bool folder_has_no_model(const char *dir, struct error *err);
