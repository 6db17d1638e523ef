// cli/server.c - see server.h.
#include "cli/server.h"

#include "cli/progress.h"
#include "io/http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CLIENTS = 16 };
static const double patience = 5; // seconds that a client may take to ask, and then to read

struct client {
    int fd; // -1: the place is free
    double since;
    struct buf in, out; // out.size 0: still asking
    size_t sent;
};

struct server {
    int fd;
    unsigned port;
    server_page page;
    void *user;
    struct client client[CLIENTS];
};

unsigned server_port(const struct server *s)
{
    return s->port;
}

static void drop(struct client *c)
{
    if (c->fd >= 0) close(c->fd);
    buf_free(&c->in);
    buf_free(&c->out);
    *c = (struct client){.fd = -1};
}

static bool listen_on(struct server *s, unsigned port, struct error *err)
{
    const int on = 1;
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    socklen_t size = sizeof a;
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (s->fd < 0 || setsockopt(s->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
        bind(s->fd, (struct sockaddr *)&a, sizeof a) != 0 || listen(s->fd, CLIENTS) != 0 ||
        getsockname(s->fd, (struct sockaddr *)&a, &size) != 0) {
        return fail(err, "127.0.0.1:%u: cannot listen: %s", port, strerror(errno));
    }
    s->port = ntohs(a.sin_port);
    return true;
}

struct server *server_open(unsigned port, server_page page, void *user, struct error *err)
{
    struct server *s = mem_zalloc(1, sizeof *s);
    if (!s) {
        fail(err, "no memory for the server");
        return NULL;
    }
    s->page = page;
    s->user = user;
    for (int i = 0; i < CLIENTS; i++) {
        s->client[i].fd = -1;
    }
    if (listen_on(s, port, err)) return s;
    server_close(s);
    return NULL;
}

void server_close(struct server *s)
{
    if (!s) return;
    for (int i = 0; i < CLIENTS; i++) {
        drop(&s->client[i]);
    }
    if (s->fd >= 0) close(s->fd);
    mem_free(s);
}

static struct client *free_place(struct server *s)
{
    struct client *oldest = &s->client[0];
    for (int i = 0; i < CLIENTS; i++) {
        struct client *c = &s->client[i];
        if (c->fd < 0) return c;
        if (c->since < oldest->since) oldest = c;
    }
    drop(oldest);
    return oldest;
}

static void admit(struct server *s)
{
    const int fd = accept4(s->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) return;
    struct client *c = free_place(s);
    c->fd = fd;
    c->since = monotonic_seconds();
}

static bool put_head(struct client *c, int status, const char *reason, const char *type,
                     size_t size)
{
    return buf_printf(
        &c->out,
        "HTTP/1.1 %d %s\r\nContent-Type: %s; charset=utf-8\r\nContent-Length: %zu\r\n"
        "Connection: close\r\nCache-Control: no-store\r\n"
        "X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n"
        "Cross-Origin-Resource-Policy: same-origin\r\n"
        "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; "
        "script-src 'unsafe-inline'; connect-src 'self'; img-src data:; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'\r\n%s\r\n",
        status, reason, type, size, status == HTTP_NOT_ALLOWED ? "Allow: GET\r\n" : "");
}

static void answer(struct server *s, struct client *c, enum http_answer a)
{
    struct error why;
    struct buf body = {0};
    int status = (int)a;
    const char *reason = http_reason(a), *type = "text/plain";
    bool ok = true;
    if (a != HTTP_OK) {
        ok = buf_printf(&body, "%d %s\n", status, reason);
    } else if (s->page(s->user, &body, &why)) {
        type = "text/html";
    } else {
        status = 500;
        reason = "Internal Server Error";
        buf_free(&body);
        ok = buf_printf(&body, "%s\n", why.msg);
    }
    ok = ok && put_head(c, status, reason, type, body.size) &&
         buf_append(&c->out, body.data, body.size);
    buf_free(&body);
    c->since = monotonic_seconds();
    if (!ok) drop(c);
}

static void hear(struct server *s, struct client *c)
{
    char bytes[4096];
    const ssize_t got = recv(c->fd, bytes, sizeof bytes, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0 || !buf_append(&c->in, bytes, (size_t)got)) {
        drop(c);
        return;
    }
    const enum http_answer a = http_request(c->in.data, c->in.size, s->port);
    if (a != HTTP_MORE) answer(s, c, a);
}

static void speak(struct client *c)
{
    const ssize_t put = send(c->fd, c->out.data + c->sent, c->out.size - c->sent, MSG_NOSIGNAL);
    if (put < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (put > 0) c->sent += (size_t)put;
    if (put > 0 && c->sent < c->out.size) return;
    if (put > 0) shutdown(c->fd, SHUT_WR); // all of it goes out before the end
    drop(c);
}

bool server_turn(struct server *s, int milliseconds, struct error *err)
{
    struct pollfd wait[CLIENTS + 1] = {{.fd = s->fd, .events = POLLIN}};
    for (int i = 0; i < CLIENTS; i++) {
        const struct client *c = &s->client[i];
        wait[i + 1] = (struct pollfd){.fd = c->fd, .events = c->out.size ? POLLOUT : POLLIN};
    }
    const int ready = poll(wait, CLIENTS + 1, milliseconds);
    if (ready < 0 && errno != EINTR) return fail(err, "poll: %s", strerror(errno));
    for (int i = 0; i < CLIENTS; i++) {
        struct client *c = &s->client[i];
        if (c->fd < 0) continue;
        if (monotonic_seconds() - c->since > patience) {
            drop(c);
        } else if (ready > 0 && wait[i + 1].revents) {
            if (c->out.size) {
                speak(c);
            } else {
                hear(s, c);
            }
        }
    }
    if (ready > 0 && wait[0].revents) admit(s);
    return true;
}
