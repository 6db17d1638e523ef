// cli/main.c - the program: finds the command, resolves its options, runs it, and turns the outcome
// into one line and an exit status. The only file that knows the process's own streams.
#include "base/log.h"
#include "base/mem.h"
#include "cli/bus_error.h"
#include "cli/setup.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

// A stream that was closed by the caller must not be taken by the first file that is opened.
static void hold_standard_streams(void)
{
    for (int fd = 0; fd < 3; fd++) {
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF && open("/dev/null", O_RDWR) < 0) return;
    }
}

static void print_log(enum log_level level, const char *line, void *user)
{
    const struct output *io = user;
    if (level == LOG_INFO && io->quiet) return;
    if (io->status_terminal && !io->quiet) fputs("\r\033[K", io->status); // over a progress bar
    fputs(level == LOG_WARNING ? "moetune: warning: " : "", io->status);
    output_safe(io->status, line, strlen(line));
    fputc('\n', io->status);
}

// One line, whatever a file name or a value within it holds.
static void print_error(const char *command, const char *message)
{
    char line[2048];
    snprintf(line, sizeof line, "%s", message);
    for (char *p = line; *p; p++) {
        if (*p == '\n' || *p == '\t') *p = ' ';
    }
    fprintf(stderr, "moetune%s%s: ", command ? " " : "", command ? command : "");
    output_safe(stderr, line, strlen(line));
    fputc('\n', stderr);
}

// A reader that went away (head, less) is no failure; a full disk is.
static int finish(int status)
{
    const bool lost = fflush(stdout) != 0 || ferror(stdout);
    if (!lost || errno == EPIPE || status) return status;
    print_error(NULL, "standard output: cannot write all of it");
    return STATUS_FAILED;
}

static int find_word(int argc, char **argv, const char *word)
{
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], word)) return i;
    }
    return 0;
}

// What could not be read for want of memory is no fault of who wrote it.
static int usage_status(void)
{
    return mem_ran_out() ? STATUS_FAILED : STATUS_USAGE;
}

static int run_command(enum command c, int argc, char **argv)
{
    struct options o;
    struct error err = {""};
    json_begin();
    if (!options_parse(&o, c, argc, argv, &err)) {
        print_error(commands[c].name, err.msg);
        return usage_status();
    }
    struct output io = {.result = stdout,
                        .people = o.config.json ? stderr : stdout,
                        .status = stderr,
                        .result_terminal = isatty(STDOUT_FILENO),
                        .people_terminal = isatty(o.config.json ? STDERR_FILENO : STDOUT_FILENO),
                        .status_terminal = isatty(STDERR_FILENO),
                        .json = o.config.json,
                        .quiet = o.config.quiet};
    setup_output(&io);
    enum status status = setup_check(&o, &err);
    log_set_sink(print_log, &io); // what config.json is warned of is said when the model is opened
    if (status == STATUS_DONE) status = commands[c].run(&o, &io, &err);
    if (status != STATUS_DONE && *err.msg) print_error(commands[c].name, err.msg);
    log_set_sink(NULL, NULL);
    options_close(&o);
    return status == STATUS_USAGE ? usage_status() : (int)status;
}

static int print_completion(const char *shell)
{
    char line[256];
    if (completion(stdout, shell)) return STATUS_DONE;
    snprintf(line, sizeof line, "--completion: found %.80s, expected %s", shell, completion_shells);
    print_error(NULL, line);
    return STATUS_USAGE;
}

static int dispatch(int argc, char **argv)
{
    if (argc < 2) {
        help_commands(stderr);
        return STATUS_USAGE;
    }
    if (!strcmp(argv[1], "--version") || !strcmp(argv[1], "version")) {
        printf("moetune %s\n", MOETUNE_VERSION);
        return STATUS_DONE;
    }
    if (!strcmp(argv[1], "--help-all")) {
        help_all(stdout);
        return STATUS_DONE;
    }
    if (!strcmp(argv[1], "--man")) {
        manual(stdout);
        return STATUS_DONE;
    }
    if (!strcmp(argv[1], "--completion")) return print_completion(argc > 2 ? argv[2] : "nothing");
    const char *near;
    const int c = command_find(argv[1], &near);
    if (c < 0 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "help"))) {
        help_commands(stdout);
        return STATUS_DONE;
    }
    if (c < 0) {
        char line[256];
        snprintf(line, sizeof line,
                 near ? "unknown command '%.80s'; did you mean %s?"
                      : "unknown command '%.80s'; see moetune --help",
                 argv[1], near);
        print_error(NULL, line);
        return STATUS_USAGE;
    }
    if (find_word(argc - 1, argv + 1, "--help")) {
        help_command(stdout, (enum command)c);
        return STATUS_DONE;
    }
    if (find_word(argc - 1, argv + 1, "--version")) {
        printf("moetune %s\n", MOETUNE_VERSION);
        return STATUS_DONE;
    }
    return run_command((enum command)c, argc - 2, argv + 2);
}

int main(int argc, char **argv)
{
    hold_standard_streams();
    signal(SIGPIPE, SIG_IGN); // a write that fails is seen where it is made
    signal(SIGXFSZ, SIG_IGN); // so is one beyond `ulimit -f`
    bus_errors_catch();
    return finish(dispatch(argc, argv));
}
