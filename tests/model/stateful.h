// tests/model/stateful.h - models with a routing's state, in folders that a test changes.
#pragma once
#include "parity.h"

#include "base/dir.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"
#include "model/families.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const models[] = {"olmoe-gqa", "qwen-dense", "qwen-all"};
enum { MODELS = 3 };

static char root[1024]; // the test's folder; set by main

// Paths live until the program ends.
static inline const char *in(const char *dir, const char *name)
{
    static char *path[1000];
    static int n;
    assert_true(n < 1000);
    assert_true(asprintf(&path[n], "%s/%s", dir, name) > 0);
    return path[n++];
}

static inline const char *folder(const char *name)
{
    struct error err;
    const char *path = in(root, name);
    check_ok(dir_remove(path, &err) && dir_make(path, &err), &err);
    return path;
}

static inline void put(const char *dir, const char *name, const char *text)
{
    struct error err;
    check_ok(file_write(in(dir, name), text, strlen(text), &err), &err);
}

static char *text_of(const char *dir, const char *name)
{
    struct error err;
    char *text;
    size_t size;
    check_ok(file_read(&text, &size, in(dir, name), 1 << 20, &err), &err);
    return text;
}

static inline void check_same_text(const char *a, const char *b, const char *name)
{
    char *x = text_of(a, name), *y = text_of(b, name);
    assert_string_equal(x, y);
    mem_free(x);
    mem_free(y);
}

static char warned[4096];
static int warnings;

static inline void hear(enum log_level level, const char *line, void *user)
{
    (void)user;
    if (level != LOG_WARNING) return;
    warnings++;
    snprintf(warned, sizeof warned, "%s", line);
}

static inline void listen(void)
{
    warnings = 0;
    warned[0] = 0;
    log_set_sink(hear, NULL);
}

static inline struct routing_options defaults(void)
{
    return (struct routing_options){.aux_coef = -1,
                                    .z_coef = -1,
                                    .bias_rate = 1e-3,
                                    .phase2_rate = 5e-5,
                                    .condenser_count = "2",
                                    .condenser_max = 4,
                                    .condenser_gini_power = 1};
}

struct variant {
    const char *routing;
    int bias_in, preset, gate;
    const char *described;
};

static const struct variant variants[] = {
    {"bias", BIAS_IN_DEFAULT, 0, 0, "{\"routing\": \"bias\", \"bias_in\": \"selection\"}"},
    {"bias", BIAS_IN_LOGITS, 0, 0, "{\"routing\": \"bias\", \"bias_in\": \"logits\"}"},
    {"condenser", BIAS_IN_DEFAULT, CONDENSER_PAPER, CONDENSER_SIGMOID,
     "{\"routing\": \"condenser\", \"condenser_preset\": \"paper\", \"bias_in\": \"selection\", "
     "\"condenser_gate\": \"sigmoid\"}"},
    {"condenser", BIAS_IN_DEFAULT, CONDENSER_RELEASED, CONDENSER_ROUTER,
     "{\"routing\": \"condenser\", \"condenser_preset\": \"released\", \"bias_in\": \"logits\", "
     "\"condenser_gate\": \"router\"}"},
};
enum { VARIANTS = 4 };

static inline struct model_setup setup_of(const struct parity *p, const char *dir,
                                          const struct variant *v, bool learns)
{
    struct error err;
    const struct parity_case *c = parity_cases;
    while (strcmp(c->name, p->name) != 0) {
        c++;
    }
    struct model_setup s = parity_setup(p, c, DTYPE_F32);
    if (dir) s.dir = dir;
    if (!learns) s.tuning = NULL;
    s.routing = routing_find(v->routing, &err);
    s.routing_options = defaults();
    s.routing_options.bias_in = v->bias_in;
    s.routing_options.condenser_preset = v->preset;
    s.routing_options.condenser_gate = v->gate;
    return s;
}

static inline double some_bias(int64_t layer, int64_t e)
{
    struct rng r = {.seed = (uint64_t)(layer * 64 + e + 1)};
    return 0.05 * rng_normal(&r);
}

static inline const char *bias_file(const struct model_config *c)
{
    struct error err;
    struct buf b = {0};
    const char *path = in(root, "bias.json"), *comma = "";
    buf_puts(&b, "{\"moe_bias_states\": {");
    for (int64_t l = 0; l < c->n_layers; l++) {
        if (!c->moe_layer[l]) continue;
        buf_printf(&b, "%s\"model.layers.%d.mlp\": {\"bias_values\": [", comma, (int)l);
        for (int64_t e = 0; e < c->n_experts; e++) {
            buf_printf(&b, "%s%.9g", e ? ", " : "", (double)(float)some_bias(l, e));
        }
        buf_puts(&b, "]}");
        comma = ", ";
    }
    buf_puts(&b, "}}");
    check_ok(file_write(path, b.data, b.size, &err), &err);
    buf_free(&b);
    return path;
}

static inline struct model_config config_of(const struct parity *p)
{
    struct error err;
    struct model_config c;
    const struct family *f;
    const struct model_setup s = setup_of(p, NULL, &variants[0], true);
    check_ok(family_read_config(&f, &c, s.dir, &err), &err);
    return c;
}

// The model with a state: from a bias file, and its last phase begun; a learnt gate is moved.
static inline void model_with_state(struct model *m, const struct parity *p, const char *dir,
                                    const struct variant *v)
{
    struct error err;
    const struct model_config c = config_of(p);
    struct model_setup s = setup_of(p, dir, v, true);
    s.routing_options.bias_file = bias_file(&c);
    parity_model(m, &s);
    check_ok(model_begin_last_phase(m, &err), &err);
    for (int64_t i = 0; i < m->leaves.count; i++) {
        const struct leaf *f = &m->leaves.leaf[i];
        if (!strstr(f->name, "condenser_gate")) continue;
        for (int64_t k = 0; k < tensor_count(f->value); k++) {
            data_f32(f->value)[k] += 0.01F * (float)(k % 7);
        }
    }
}

static inline struct tensor logits_of(struct model *m, const struct parity *p)
{
    model_forward(m, &p->batch[0], NULL, false);
    return parity_logits(m, &p->batch[0]);
}

static inline void check_same_logits(struct model *a, struct model *b, const struct parity *p)
{
    const struct tensor x = logits_of(a, p), y = logits_of(b, p);
    assert_memory_equal(x.data, y.data, tensor_bytes(x));
    mem_free(x.data);
    mem_free(y.data);
}

static inline void copy_file(const char *to, const char *from, const char *name)
{
    struct error err;
    check_ok(file_copy(in(to, name), in(from, name), &err), &err);
}

static inline const char *copy_of_fixture(const struct parity *p, const char *name)
{
    struct dir_names n;
    struct error err;
    const char *to = folder(name);
    const struct model_setup s = setup_of(p, NULL, &variants[0], true);
    check_ok(dir_list(&n, s.dir, &err), &err);
    for (int64_t i = 0; i < n.count; i++) {
        copy_file(to, s.dir, n.name[i]);
    }
    dir_names_free(&n);
    return to;
}
