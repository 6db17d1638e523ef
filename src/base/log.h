// base/log.h - words for people, on stderr, through one callback so that the library stays silent
// unless a program listens. Not for errors: those travel in struct error.
#pragma once

enum log_level { LOG_INFO, LOG_WARNING };

typedef void (*log_sink)(enum log_level level, const char *line, void *user);

void log_set_sink(log_sink sink, void *user); // NULL: silence
void log_info(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_warning(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
