// cli/help.c - --help, written from the tables of commands and options and from the registries.
#include "cli/commands.h"

#include <string.h>

enum { HELP_COLUMN = 30, WIDTH = 100 };

// Words from `column` on, broken at WIDTH.
static void print_wrapped(FILE *f, const char *text, size_t column, size_t at)
{
    while (*text) {
        const size_t word = strcspn(text, " ");
        if (at + word + 1 > WIDTH) {
            fprintf(f, "\n%*s", (int)column, "");
            at = column;
        }
        fprintf(f, "%s%.*s", at > column ? " " : "", (int)word, text);
        at += word + (at > column);
        text += word + (text[word] == ' ');
    }
}

static size_t print_label(FILE *f, const struct option *row)
{
    char value[128];
    size_t n = 0;
    value[0] = 0;
    for (int i = 0; row->choices && row->choices[i]; i++) {
        n += (size_t)snprintf(value + n, sizeof value - n, "%s%s", i ? "|" : " ", row->choices[i]);
    }
    if (row->unit) snprintf(value, sizeof value, " %s", row->unit);
    const char *no = row->type == OPTION_BOOL ? "[no-]" : "";
    const int printed = fprintf(f, "  --%s%s%s", no, row->name, value);
    return printed < 0 ? 0 : (size_t)printed;
}

static void print_option(FILE *f, const struct option *row)
{
    const size_t at = print_label(f, row);
    if (at + 1 >= HELP_COLUMN) fputc('\n', f);
    fprintf(f, "%*s", at + 1 >= HELP_COLUMN ? HELP_COLUMN : (int)(HELP_COLUMN - at), "");
    char words[512];
    const char *value = option_default(row);
    snprintf(words, sizeof words, value ? "%s [%s]" : "%s", option_help(row), value);
    print_wrapped(f, words, HELP_COLUMN, HELP_COLUMN);
    fputc('\n', f);
    for (int64_t i = 0; row->registry && row->registry->name(i); i++) {
        fprintf(f, "%*s%-12s ", HELP_COLUMN + 2, "", row->registry->name(i));
        print_wrapped(f, row->registry->help(i), HELP_COLUMN + 15, HELP_COLUMN + 15);
        fputc('\n', f);
    }
}

void help_command(FILE *f, enum command c)
{
    fprintf(f, "moetune %s: %s\n\nusage: moetune %s %s\n", commands[c].name, commands[c].summary,
            commands[c].name, commands[c].usage);
    for (int g = 0; g < GROUP_COUNT; g++) {
        bool any = false;
        for (int64_t i = 0; i < option_count(); i++) {
            const struct option *row = option_at(i);
            if ((int)row->group != g || !option_in(row, c)) continue;
            if (!any) fprintf(f, "\n%s:\n", option_group_name((enum option_group)g));
            any = true;
            print_option(f, row);
        }
    }
    fprintf(f,
            "\nDefaults stand in brackets. --name value and --name=value are the same.\n"
            "\nexamples:\n%s",
            commands[c].examples);
}

void help_commands(FILE *f)
{
    fprintf(f,
            "moetune: fine-tune Mixture-of-Experts language models from Hugging Face checkpoints\n"
            "\nusage: moetune COMMAND [--option value]\n\ncommands:\n");
    for (int c = 0; c < COMMAND_COUNT; c++) {
        fprintf(f, "  %-10s %s\n", commands[c].name, commands[c].summary);
    }
    fprintf(f,
            "\nmoetune COMMAND --help   the command's options\n"
            "moetune --help-all       every option and the commands that it belongs to\n"
            "moetune --man            moetune(1), for `man -l -`\n"
            "moetune --completion %s   what that shell reads to complete all this\n"
            "moetune --version\n",
            completion_shells);
}

void help_all(FILE *f)
{
    for (int g = 0; g < GROUP_COUNT; g++) {
        fprintf(f, "%s%s:\n", g ? "\n" : "", option_group_name((enum option_group)g));
        for (int64_t i = 0; i < option_count(); i++) {
            const struct option *row = option_at(i);
            if ((int)row->group != g) continue;
            print_option(f, row);
            fprintf(f, "%*s(", HELP_COLUMN, "");
            const char *comma = "";
            for (int c = 0; c < COMMAND_COUNT; c++) {
                if (!option_in(row, (enum command)c)) continue;
                fprintf(f, "%s%s", comma, commands[c].name);
                comma = ", ";
            }
            fprintf(f, ")\n");
        }
    }
}
