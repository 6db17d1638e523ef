// cli/routing_default.c - a model's folder that holds a routing's state says how it is to be run: that is the
// default of --routing and of the options that go with the state, and a flag (or the YAML file) beats it.
#include "cli/setup.h"

#include "base/log.h"
#include "base/mem.h"

#include <string.h>

struct folder {
    const char *dir;
    bool described; // by routing.json; else taken for the released code's
    const struct routing *routing;
    struct routing_options options;
};

static const char *file_of(const struct folder *f)
{
    return f->described ? "routing.json" : "the state of the released ExpertCondenser code";
}

static int *field_of(void *object, size_t at)
{
    return (int *)(void *)((char *)object + at);
}

static bool states(const struct routing *r, const struct routing_stated *s)
{
    for (const struct routing_stated *const *x = r->stated; x && *x; x++) {
        if (*x == s) return true;
    }
    return false;
}

// "default" stands for what is still to be decided, even where a file of options spells it out.
static bool decided(const struct options *o, const struct option *row, int value)
{
    return options_given(o, row->name) && strcmp(row->choices[value], "default") != 0;
}

static bool set_stated(struct options *o, const struct folder *f, const struct routing_stated *s,
                       const struct routing *used, struct buf *taken)
{
    char name[64];
    snprintf(name, sizeof name, "%s", s->name);
    for (char *p = name; *p; p++) {
        *p = *p == '_' ? '-' : *p;
    }
    const struct option *row = option_find(o->command, name);
    int *mine = field_of(&o->config, row->field);
    const int theirs = *field_of((void *)(uintptr_t)&f->options, s->field);
    if (!decided(o, row, *mine)) {
        *mine = theirs;
        return buf_printf(taken, ", --%s %s", name, s->choices[theirs]);
    }
    if (*mine != theirs && states(used, s)) {
        log_warning("%s: %s says --%s %s; %s is used, as given", f->dir, file_of(f), name,
                    s->choices[theirs], s->choices[*mine]);
    }
    return true;
}

// A routing that keeps no state of its own is warned about where the model is opened.
static void set_routing(struct options *o, const struct folder *f, const struct routing *used)
{
    if (!options_given(o, "routing")) {
        o->config.routing = f->routing->name;
    } else if (used != f->routing && used->load) {
        log_warning("%s: %s says --routing %s; %s is used, as given", f->dir, file_of(f),
                    f->routing->name, used->name);
    }
}

static bool settle(struct options *o, struct folder *f, const struct routing_source *s,
                   struct error *err)
{
    if (!routing_described(&f->routing, &f->options, &f->described, s, err)) return false;
    if (!f->routing) return true;
    const bool given = options_given(o, "routing");
    const struct routing *used = given ? routing_find(o->config.routing, err) : f->routing;
    if (!used) return false;
    struct buf taken = {0};
    bool ok = buf_printf(&taken, "--routing %s", used->name);
    set_routing(o, f, used);
    for (const struct routing_stated *const *x = f->routing->stated; ok && x && *x; x++) {
        ok = set_stated(o, f, *x, used, &taken);
    }
    if (ok && !f->described && used->load) {
        log_info("%s: holds %s, taken as %s", f->dir, file_of(f), taken.data);
    }
    buf_free(&taken);
    return ok || fail(err, "no memory for the options");
}

bool routing_settle(struct options *o, struct error *err)
{
    struct checkpoint c = {0};
    struct run_config *config = &o->config;
    struct routing_options whole = {0}; // nothing beats what the folder says of itself
    struct folder f = {0};
    // bench makes a folder of its own; experts may read logs alone
    if (!option_find(o->command, "model") || !config->model) return true;
    const bool weights = checkpoint_exists(config->model); // else told of when the model is opened
    if (weights && !checkpoint_open(&c, config->model, err)) return false;
    const struct checkpoint *opened = weights ? &c : NULL;
    bool ok = routing_options_source(&whole, config->adapter, config->model, opened, err);
    f.dir = whole.source.dir;
    ok = ok && settle(o, &f, &whole.source, err) &&
         routing_options_source(&config->routing_options, config->adapter, config->model, opened,
                                err);
    config->routing_options.source.checkpoint = NULL; // what is there stays known
    checkpoint_close(&c);
    return ok;
}
