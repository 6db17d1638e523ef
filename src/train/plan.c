// train/plan.c - what a run will take and what will learn in it, known before anything is allocated.
#include "base/file.h"
#include "base/mem.h"
#include "train/trainer.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

static bool is_number(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (!isdigit((unsigned char)s[i])) return false;
    }
    return n > 0;
}

// "model.layers.3.mlp.experts.7.gate_proj.weight" -> "mlp.experts.gate_proj": what stands before the
// first number, the numbers themselves and the kind of array left out.
void plan_module_name(char out[NAME_MAX_LENGTH], const char *name)
{
    size_t length = 0;
    bool numbered = false;
    out[0] = 0;
    for (const char *p = name; *p;) {
        const size_t n = strcspn(p, ".");
        const bool last = !p[n], number = is_number(p, n);
        const bool kind = last && (!strncmp(p, "weight", n) || !strncmp(p, "bias", n)) && length;
        if (number && !numbered) {
            numbered = true;
            length = 0;
        } else if (!number && !kind && length + n + 2 < NAME_MAX_LENGTH) {
            if (length) out[length++] = '.';
            memcpy(out + length, p, n);
            length += n;
        }
        out[length] = 0;
        p += n + !last;
    }
    if (!numbered && !strncmp(out, "model.", 6)) memmove(out, out + 6, strlen(out + 6) + 1);
}

static bool add_module(struct plan *p, int64_t *capacity, const struct leaf *f, struct error *err)
{
    char name[NAME_MAX_LENGTH];
    plan_module_name(name, f->name);
    int64_t i = 0;
    while (i < p->n_modules && strcmp(p->module[i].name, name) != 0) {
        i++;
    }
    if (i == p->n_modules) {
        struct plan_module *grown = array_grow(p->module, i, capacity, sizeof *grown);
        if (!grown) return fail(err, "no memory for the plan");
        p->module = grown;
        p->module[i] = (struct plan_module){0};
        snprintf(p->module[i].name, sizeof p->module[i].name, "%s", name);
        p->n_modules++;
    }
    p->module[i].tensors++;
    p->module[i].parameters += tensor_count(f->value);
    p->learning += tensor_count(f->value);
    return true;
}

static size_t dataset_bytes(const struct dataset *d)
{
    const size_t token = sizeof *d->id + sizeof *d->learn;
    return d ? (size_t)d->n_tokens * token + (size_t)d->count * sizeof *d->example : 0;
}

// While the result is written one tensor is held twice: as floats and as it is stored.
static size_t export_scratch(const struct model *m)
{
    int64_t most = 0;
    for (int64_t i = 0; i < m->leaves.count; i++) {
        const int64_t n = tensor_count(m->leaves.leaf[i].value);
        if (n > most) most = n;
    }
    return 2 * sizeof(float) * (size_t)most;
}

static void plan_memory(struct plan *p, const struct trainer *t)
{
    const struct run *r = t->run;
    memcpy(p->by_purpose, t->peak, sizeof p->by_purpose);
    const size_t examples =
        (size_t)r->data->count + (r->validation ? (size_t)r->validation->count : 0);
    p->by_purpose[PURPOSE_DATA] += dataset_bytes(r->data) + dataset_bytes(r->validation) +
                                   examples * 2 * sizeof(int64_t) +               // packings
                                   (size_t)t->batch_tokens * 5 * sizeof(int32_t); // batch
    p->by_purpose[PURPOSE_SCRATCH] +=
        t->model.setup.ops->scratch_bytes() + export_scratch(&t->model);
    for (int i = 0; i < PURPOSE_COUNT; i++) {
        p->total += p->by_purpose[i];
    }
    const struct ops *o = t->model.setup.ops;
    p->device = o->name;
    p->device_bytes = o->scratch_bytes();
    for (int i = 0; i < PURPOSE_COUNT; i++) {
        p->device_bytes += t->peak[i];
    }
    if (o->allocate_host) p->device_bytes -= p->in_host;
    p->device_free = o->free_bytes();
    const struct checkpoint *c = &t->model.checkpoint;
    for (int64_t i = 0; i < c->n_shards; i++) {
        p->mapped += c->shard[i].st.map.size;
    }
}

// Checkpoints that lie on the disk together at most: those kept, the best, and the one being written.
static int64_t most_checkpoints(const struct trainer *t)
{
    const struct run *r = t->run;
    const int64_t steps = trainer_steps(t), every = t->options->eval_every;
    int64_t saves = 1; // at the end
    if (r->save_every > 0) saves += steps / r->save_every;
    if (r->validation && every > 0) saves += steps / every;
    const int64_t kept = (r->keep_last > 1 ? r->keep_last : 1) + (r->validation ? 1 : 0);
    return saves < kept + 1 ? saves : kept + 1;
}

static size_t adapter_bytes(const struct leaves *l)
{
    size_t bytes = 65536; // small files
    for (int64_t i = 0; i < l->count; i++) {
        bytes += tensor_bytes(l->leaf[i].value) + 512;
    }
    return bytes;
}

static void plan_disk(struct plan *p, const struct trainer *t)
{
    p->checkpoint_bytes = t->checkpoint_bytes;
    p->checkpoints = most_checkpoints(t);
    p->export_bytes = p->mapped;
    if (trainer_makes_adapter(t)) p->export_bytes = adapter_bytes(&t->model.leaves);
    for (int64_t i = 0; i < t->run->n_stages; i++) {
        if (t->run->stage[i].base) p->export_bytes += p->mapped; // that one stays, too
    }
    p->disk = p->checkpoint_bytes * (size_t)p->checkpoints + p->export_bytes;
    p->disk_free = disk_free(t->run->out);
}

static struct plan_data plan_data(const struct dataset *d, int64_t micro_batches)
{
    if (!d) return (struct plan_data){0};
    return (struct plan_data){d->count, d->n_tokens, d->supervised, micro_batches};
}

bool plan_make(struct plan *p, const struct trainer *t, struct error *err)
{
    const int64_t last = t->run->n_stages - 1; // the one that what learns is told of
    *p = (struct plan){.steps = trainer_steps(t),
                       .batch_tokens = t->batch_tokens,
                       .at_most = t->at_most,
                       .in_host = t->model.moments.capacity};
    p->warmup_steps = schedule_warmup(&t->run->stage[last].options, t->feed[last].steps);
    p->data = plan_data(t->run->data, t->feed[last].micro_batches);
    p->validation = plan_data(t->run->validation, t->validation.count);
    plan_memory(p, t);
    plan_disk(p, t);
    const struct weights *w = &t->model.weights;
    for (int64_t i = 0; i < w->count; i++) {
        p->parameters += tensor_count(w->weight[i].stored);
    }
    int64_t capacity = 0;
    for (int64_t i = 0; i < t->model.leaves.count; i++) {
        if (add_module(p, &capacity, &t->model.leaves.leaf[i], err)) continue;
        plan_free(p);
        return false;
    }
    return true;
}

void plan_free(struct plan *p)
{
    mem_free(p->module);
    *p = (struct plan){0};
}
