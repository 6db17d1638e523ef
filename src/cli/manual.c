// cli/manual.c - moetune(1), written from the tables of commands and options and from the registries.
#include "cli/commands.h"

#include <utf8proc.h>

// Text of the tables as troff reads it: nothing of it is a request, and an option's dashes stay dashes when copied.
static void put_text(FILE *f, const char *text)
{
    static const char *const names[] = {['\\'] = "\\(rs", ['-'] = "\\-",   ['\''] = "\\(aq",
                                        ['`'] = "\\(ga",  ['^'] = "\\(ha", ['~'] = "\\(ti"};
    bool start = true;
    for (const char *p = text; *p; p++) {
        const unsigned char c = (unsigned char)*p;
        if (start && c == '.') fputs("\\&", f);
        start = c == '\n';
        utf8proc_int32_t code;
        const utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)p, -1, &code);
        if (n > 1) { // troff itself reads Latin-1
            fprintf(f, "\\[u%04X]", (unsigned)code);
            p += n - 1;
        } else if (c < sizeof names / sizeof *names && names[c]) {
            fputs(names[c], f);
        } else {
            fputc(c, f);
        }
    }
}

static void put_label(FILE *f, const struct option *row)
{
    fprintf(f, ".TP\n\\fB\\-\\-%s", row->type == OPTION_BOOL ? "[no\\-]" : "");
    put_text(f, row->name);
    fputs("\\fR", f);
    for (int i = 0; row->choices && row->choices[i]; i++) {
        fprintf(f, "%s\\fB", i ? "\\fR|" : " ");
        put_text(f, row->choices[i]);
    }
    if (row->unit) {
        fputs(" \\fI", f);
        put_text(f, row->unit);
    }
    fputs("\\fR\n", f);
}

static void put_option(FILE *f, const struct option *row)
{
    put_label(f, row);
    put_text(f, option_help(row));
    if (option_default(row)) {
        fputs(" [", f);
        put_text(f, option_default(row));
        fputc(']', f);
    }
    fputc('\n', f);
    for (int64_t i = 0; row->registry && row->registry->name(i); i++) {
        fputs(".br\n\\fB", f);
        put_text(f, row->registry->name(i));
        fputs("\\fR: ", f);
        put_text(f, row->registry->help(i));
        fputc('\n', f);
    }
    const char *comma = "";
    fputs(".br\n(", f);
    for (int c = 0; c < COMMAND_COUNT; c++) {
        if (!option_in(row, (enum command)c)) continue;
        fprintf(f, "%s%s", comma, commands[c].name);
        comma = ", ";
    }
    fputs(")\n", f);
}

static void put_commands(FILE *f)
{
    fputs(".SH COMMANDS\n", f);
    for (int c = 0; c < COMMAND_COUNT; c++) {
        fprintf(f, ".TP\n\\fB%s\\fR ", commands[c].name);
        put_text(f, commands[c].usage);
        fputc('\n', f);
        put_text(f, commands[c].summary);
        fputc('\n', f);
    }
}

static void put_options(FILE *f)
{
    fputs(".SH OPTIONS\n"
          "Defaults stand in brackets, the commands that have the option in parentheses.\n"
          "\\fB\\-\\-name\\fR \\fIvalue\\fR and \\fB\\-\\-name=\\fIvalue\\fR are the same.\n"
          "An option whose default or meaning depends on the command stands here more than once.\n",
          f);
    for (int g = 0; g < GROUP_COUNT; g++) {
        const char *name = option_group_name((enum option_group)g);
        fprintf(f, ".SS %c%s\n", name[0] - 'a' + 'A', name + 1);
        for (int64_t i = 0; i < option_count(); i++) {
            if ((int)option_at(i)->group == g) put_option(f, option_at(i));
        }
    }
}

static void put_examples(FILE *f)
{
    fputs(".SH EXAMPLES\n.nf\n", f);
    for (int c = 0; c < COMMAND_COUNT; c++) {
        put_text(f, commands[c].examples);
    }
    fputs(".fi\n", f);
}

void manual(FILE *f)
{
    fputs(".TH MOETUNE 1 \"\" \"moetune " MOETUNE_VERSION "\" \"User Commands\"\n"
          ".nh\n.ad l\n"
          ".SH NAME\nmoetune \\- fine\\-tune Mixture\\-of\\-Experts language models\n"
          ".SH SYNOPSIS\n\\fBmoetune\\fR \\fICOMMAND\\fR [\\fB\\-\\-option\\fR \\fIvalue\\fR]...\n"
          ".br\n\\fBmoetune\\fR \\fICOMMAND\\fR \\fB\\-\\-help\\fR\n"
          ".br\n\\fBmoetune\\fR \\fB\\-\\-version\\fR\n"
          ".SH DESCRIPTION\n"
          "A Hugging Face folder of a Mixture\\-of\\-Experts or dense model and a file of examples "
          "go\n"
          "in; a fine\\-tuned folder, or an adapter, comes out that the usual programs load.\n"
          "How tokens are routed and what learns are chosen apart.\n",
          f);
    put_commands(f);
    put_options(f);
    put_examples(f);
    fprintf(f,
            ".SH EXIT STATUS\n"
            ".TP\n.B %d\ndone\n.TP\n.B %d\nfailed; one line on standard error says why\n"
            ".TP\n.B %d\nwrong usage or configuration\n"
            ".TP\n.B %d\nstopped by a signal; what was done is saved\n",
            STATUS_DONE, STATUS_FAILED, STATUS_USAGE, STATUS_STOPPED);
    fputs(".SH SEE ALSO\nThe methods, the files of a run and the library libmoetune are described "
          "in\n"
          "the documents that are installed with the program (share/doc/moetune).\n",
          f);
}
