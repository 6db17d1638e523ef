// cli/bus_error.c - see bus_error.h. Everything in the handler is safe in a signal: system calls, static memory. Which
// file it was, the kernel knows (/proc/self/maps), so that no list of mappings has to be kept where a handler
// could read it at any moment.
#include "cli/bus_error.h"

#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

enum { LINE = 4096 + 256, CHUNK = 4096 };
static char line[LINE], chunk[CHUNK];
static atomic_flag busy = ATOMIC_FLAG_INIT;

static const char *read_hex(const char *text, uintptr_t *value)
{
    for (*value = 0;; text++) {
        const char c = *text;
        const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
        if (digit < 0) return text;
        *value = *value * 16 + (uintptr_t)digit;
    }
}

// "7f00-7f01 r--s 00000000 fe:00 1234   /path": the path, if the line is of this address and has one.
static char *path_of_line(uintptr_t address)
{
    uintptr_t first, end;
    const char *at = read_hex(line, &first);
    if (*at != '-') return NULL;
    read_hex(at + 1, &end);
    return address >= first && address < end ? strchr(line, '/') : NULL;
}

static char *mapped_path(uintptr_t address)
{
    const int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    size_t n = 0;
    ssize_t got;
    while (fd >= 0 && (got = read(fd, chunk, CHUNK)) > 0) {
        for (ssize_t i = 0; i < got; i++) {
            if (chunk[i] != '\n') {
                if (n < LINE - 1) line[n++] = chunk[i];
                continue;
            }
            line[n] = 0;
            n = 0;
            char *path = path_of_line(address);
            if (path) return path;
        }
    }
    return NULL;
}

static void say(const char *text)
{
    if (write(STDERR_FILENO, text, strlen(text)) < 0) return; // nobody listens
}

static void on_bus_error(int number, siginfo_t *info, void *context)
{
    (void)context;
    while (atomic_flag_test_and_set(&busy)) {
        pause(); // another thread is about to end the program
    }
    char *path = mapped_path((uintptr_t)info->si_addr);
    if (!path) {
        signal(number, SIG_DFL); // and the access is made again
        atomic_flag_clear(&busy);
        return;
    }
    for (char *p = path; *p; p++) {
        if ((unsigned char)*p < 0x20 || *p == 0x7f) *p = '?';
    }
    say("moetune: ");
    say(path);
    say(": became shorter, or could not be read, while it was in use\n");
    _exit(1);
}

void bus_errors_catch(void)
{
    struct sigaction a;
    memset(&a, 0, sizeof a);
    a.sa_sigaction = on_bus_error;
    a.sa_flags = SA_SIGINFO;
    sigemptyset(&a.sa_mask);
    sigaction(SIGBUS, &a, NULL);
}
