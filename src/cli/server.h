// cli/server.h - one page on a port of 127.0.0.1, which this machine alone can reach. One thread; what a client does
// or fails to do holds up nobody: each has a few seconds, and when all places are taken the oldest gives way.
#pragma once
#include "base/error.h"
#include "base/mem.h"

// The page as it is now; NULL or false: it cannot be made, and the client is told so.
typedef bool (*server_page)(void *user, struct buf *out, struct error *err);

struct server;
struct server *server_open(unsigned port, server_page page, void *user,
                           struct error *err); // 0: any
unsigned server_port(const struct server *s);
// Serves for at most so long, or until a signal comes.
bool server_turn(struct server *s, int milliseconds, struct error *err);
void server_close(struct server *s); // NULL is allowed
