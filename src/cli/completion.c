// cli/completion.c - what bash, zsh and fish read to complete a command line, written from the tables of commands and
// options and from the registries.
#include "cli/commands.h"

#include <string.h>

const char completion_shells[] = "bash|zsh|fish";

enum kind { KIND_SWITCH, KIND_VALUE, KIND_WORDS, KIND_LIST, KIND_FILE, KIND_FILES, KIND_FOLDER };

static enum kind kind_of(const struct option *row)
{
    if (row->type == OPTION_BOOL) return KIND_SWITCH;
    if (row->type == OPTION_NAMES) return KIND_LIST;
    if (row->choices || row->registry) return KIND_WORDS;
    if (row->type == OPTION_TEXTS) return KIND_FILES;
    if (row->unit && !strcmp(row->unit, "FILE")) return KIND_FILE;
    if (row->unit && !strcmp(row->unit, "DIR")) return KIND_FOLDER;
    return KIND_VALUE;
}

static const char *word_of(const struct option *row, int64_t i)
{
    return row->choices ? row->choices[i] : row->registry ? row->registry->name(i) : NULL;
}

static void put_words(FILE *f, const struct option *row)
{
    for (int64_t i = 0; word_of(row, i); i++) {
        fprintf(f, "%s%s", i ? " " : "", word_of(row, i));
    }
}

// Each character of `special` gets a backslash.
static void put_escaped(FILE *f, const char *text, const char *special)
{
    for (const char *p = text; *p; p++) {
        if (strchr(special, *p)) fputc('\\', f);
        fputc(*p, f);
    }
}

static void put_commands(FILE *f, const struct option *row, const char *before, const char *after,
                         const char *between)
{
    const char *separator = "";
    for (int c = 0; c < COMMAND_COUNT; c++) {
        if (!option_in(row, (enum command)c)) continue;
        fprintf(f, "%s%s%s%s", separator, before, commands[c].name, after);
        separator = between;
    }
}

// One line for each option that takes a value: which words complete it.
static void put_bash_values(FILE *f)
{
    static const char *const kinds[] = {
        [KIND_VALUE] = "value", [KIND_WORDS] = "words", [KIND_LIST] = "list",
        [KIND_FILE] = "file",   [KIND_FILES] = "files", [KIND_FOLDER] = "folder"};
    fputs("    case \"$command $option\" in\n", f);
    for (int64_t i = 0; i < option_count(); i++) {
        const struct option *row = option_at(i);
        const enum kind kind = kind_of(row);
        if (kind == KIND_SWITCH) continue;
        char after[80];
        snprintf(after, sizeof after, " --%s'", row->name);
        fputs("    ", f);
        put_commands(f, row, "'", after, "|");
        fprintf(f, ") kind=%s words='", kinds[kind]);
        put_words(f, row);
        fputs("' ;;\n", f);
    }
    fputs("    esac\n", f);
}

static void put_bash_options(FILE *f)
{
    fputs("    case \"$command\" in\n", f);
    for (int c = 0; c < COMMAND_COUNT; c++) {
        fprintf(f, "    %s) words='--help", commands[c].name);
        for (int64_t i = 0; i < option_count(); i++) {
            const struct option *row = option_at(i);
            if (!option_in(row, (enum command)c)) continue;
            fprintf(f, " --%s", row->name);
            if (row->type == OPTION_BOOL) fprintf(f, " --no-%s", row->name);
        }
        fputs("' ;;\n", f);
    }
    fputs("    esac\n", f);
}

// Words are split at '=' too: --name=va is "--name", "=", "va".
static void put_bash(FILE *f)
{
    fputs("# bash completion for moetune, made from its table of options\n"
          "_moetune()\n{\n"
          "    local current=${COMP_WORDS[COMP_CWORD]} command=${COMP_WORDS[1]}\n"
          "    local option= kind= words= after=0 i\n"
          "    COMPREPLY=()\n"
          "    if [ \"$COMP_CWORD\" = 1 ]; then\n        words='",
          f);
    for (int c = 0; c < COMMAND_COUNT; c++) {
        fprintf(f, "%s ", commands[c].name);
    }
    fputs("--help --help-all --version --man --completion'\n"
          "        mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$current\")\n"
          "        return\n"
          "    fi\n"
          "    for ((i = COMP_CWORD - 1; i > 1; i--)); do\n"
          "        [[ ${COMP_WORDS[i]} == = ]] || after=$((after + 1))\n"
          "        [[ ${COMP_WORDS[i]} != --* ]] || { option=${COMP_WORDS[i]} && break; }\n"
          "    done\n"
          "    [ \"$current\" != = ] || current=\n",
          f);
    put_bash_values(f);
    fputs("    [ \"$after\" = 1 ] || [ \"$kind\" = files ] || kind=\n"
          "    [[ $current != -* ]] || [ \"$kind\" = value ] || kind=\n"
          "    [ -n \"$kind\" ] || [ \"$command\" != tokenize ] || [[ $current == -* ]] || "
          "kind=file\n",
          f);
    fputs("    case \"$kind\" in\n"
          "    value) return ;;\n"
          "    words) mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$current\") ;;\n"
          "    list)\n"
          "        local last=${current##*,}\n"
          "        mapfile -t COMPREPLY < <(compgen -P \"${current%\"$last\"}\" -W \"$words\" -- "
          "\"$last\")\n"
          "        compopt -o nospace 2>/dev/null\n        ;;\n"
          "    file | files)\n"
          "        compopt -o filenames 2>/dev/null\n"
          "        mapfile -t COMPREPLY < <(compgen -f -- \"$current\")\n        ;;\n"
          "    folder)\n"
          "        compopt -o filenames 2>/dev/null\n"
          "        mapfile -t COMPREPLY < <(compgen -d -- \"$current\")\n        ;;\n"
          "    esac\n"
          "    [ -z \"$kind\" ] || { [ \"$kind\" = files ] && [ -z \"$current\" ]; } || return\n",
          f);
    put_bash_options(f);
    fputs("    local more\n"
          "    mapfile -t more < <(compgen -W \"$words\" -- \"$current\")\n"
          "    COMPREPLY+=(\"${more[@]}\")\n"
          "}\n"
          "complete -F _moetune moetune\n",
          f);
}

// Within single quotes, and within the brackets of _arguments.
static void put_zsh_text(FILE *f, const char *text)
{
    for (const char *p = text; *p; p++) {
        if (strchr("[]\\", *p)) fputc('\\', f);
        fputs(*p == '\'' ? "'\\'" : "", f);
        fputc(*p, f);
    }
}

static void put_zsh_option(FILE *f, const struct option *row)
{
    static const char *const actions[] = {[KIND_VALUE] = " ",
                                          [KIND_FILE] = "_files",
                                          [KIND_FILES] = "_files",
                                          [KIND_FOLDER] = "_files -/"};
    const enum kind kind = kind_of(row);
    for (int no = 0; no <= (kind == KIND_SWITCH); no++) {
        fprintf(f, "      '%s--%s%s%s[", kind == KIND_FILES ? "*" : "", no ? "no-" : "", row->name,
                kind == KIND_SWITCH || kind == KIND_FILES ? "" : "=");
        put_zsh_text(f, option_help(row));
        fputc(']', f);
        if (kind != KIND_SWITCH) {
            fprintf(f, ":%s%s:", kind == KIND_FILES ? "*--*:" : "",
                    row->unit ? row->unit : "value");
            if (kind == KIND_WORDS || kind == KIND_LIST) {
                fputs(kind == KIND_LIST ? "_values -s , value " : "(", f);
                put_words(f, row);
                fputs(kind == KIND_LIST ? "" : ")", f);
            } else {
                fputs(actions[kind], f);
            }
        }
        fputs("' \\\n", f);
    }
}

static void put_zsh(FILE *f)
{
    fputs("#compdef moetune\n# zsh completion for moetune, made from its table of options\n"
          "_moetune() {\n  local -a commands=(\n",
          f);
    for (int c = 0; c < COMMAND_COUNT; c++) {
        fprintf(f, "    '%s:", commands[c].name);
        put_zsh_text(f, commands[c].summary);
        fputs("'\n", f);
    }
    fputs("  )\n"
          "  if (( CURRENT == 2 )); then\n    _describe command commands\n    return\n  fi\n"
          "  shift words\n  (( CURRENT-- ))\n  case $words[1] in\n",
          f);
    for (int c = 0; c < COMMAND_COUNT; c++) {
        fprintf(f, "  %s)\n    _arguments -S \\\n", commands[c].name);
        for (int64_t i = 0; i < option_count(); i++) {
            if (option_in(option_at(i), (enum command)c)) put_zsh_option(f, option_at(i));
        }
        fprintf(f, "      '--help[the command and its options]'%s\n    ;;\n",
                c == COMMAND_TOKENIZE ? " '1:FILE:_files'" : "");
    }
    fputs("  esac\n}\n_moetune \"$@\"\n", f);
}

static void put_fish_option(FILE *f, const struct option *row)
{
    const enum kind kind = kind_of(row);
    for (int no = 0; no <= (kind == KIND_SWITCH); no++) {
        fputs("complete -c moetune -n '__fish_seen_subcommand_from ", f);
        put_commands(f, row, "", "", " ");
        fprintf(f, "' -l %s%s", no ? "no-" : "", row->name);
        if (kind == KIND_FILE || kind == KIND_FILES) fputs(" -r -F", f);
        if (kind == KIND_FOLDER) fputs(" -x -a '(__fish_complete_directories)'", f);
        if (kind == KIND_VALUE) fputs(" -x", f);
        if (kind == KIND_WORDS || kind == KIND_LIST) {
            fputs(" -x -a '", f);
            put_words(f, row);
            fputc('\'', f);
        }
        fputs(" -d '", f);
        put_escaped(f, option_help(row), "'\\");
        fputs("'\n", f);
    }
}

static void put_fish(FILE *f)
{
    fputs("# fish completion for moetune, made from its table of options\ncomplete -c moetune -f\n",
          f);
    for (int c = 0; c < COMMAND_COUNT; c++) {
        fprintf(f, "complete -c moetune -n __fish_use_subcommand -a %s -d '", commands[c].name);
        put_escaped(f, commands[c].summary, "'\\");
        fputs("'\n", f);
    }
    fputs("complete -c moetune -n '__fish_seen_subcommand_from tokenize' -F\n", f);
    for (int64_t i = 0; i < option_count(); i++) {
        put_fish_option(f, option_at(i));
    }
}

bool completion(FILE *f, const char *shell)
{
    static const struct {
        const char *name;
        void (*put)(FILE *f);
    } shells[] = {{"bash", put_bash}, {"zsh", put_zsh}, {"fish", put_fish}};
    for (size_t i = 0; i < sizeof shells / sizeof *shells; i++) {
        if (strcmp(shells[i].name, shell) != 0) continue;
        shells[i].put(f);
        return true;
    }
    return false;
}
