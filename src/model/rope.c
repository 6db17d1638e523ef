// model/rope.c - see rope.h. Frequencies follow modeling_rope_utils of transformers 5 (4.57 has the same
// formulas), operation by operation in float32:
//   plain    f_i = theta^(-2i/D)
//   linear   f_i / factor
//   llama3   f_i where a turn is short, f_i / factor where it is long, by positions of pre-training; a
//            ramp between (Llama 3.1)
//   yarn     f_i for low i, f_i / factor for high i, a ramp between; cosines and sines grow by
//            attention_factor (Peng et al. 2023, arXiv 2309.00071)
// "dynamic" and "longrope" depend on the longest text of a batch, so that a text's result would hang on
// what lies beside it: refused, as is every other kind.
#include "model/rope.h"

#include "base/log.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define PI 3.14159265358979323846

static const struct kind {
    const char *name;
    enum rope_kind kind;
    const char *key[9]; // read besides those of every kind
} kinds[] = {
    {"default", ROPE_PLAIN, {NULL}},
    {"linear", ROPE_LINEAR, {"factor"}},
    {"llama3",
     ROPE_LLAMA3,
     {"factor", "original_max_position_embeddings", "low_freq_factor", "high_freq_factor"}},
    {"yarn",
     ROPE_YARN,
     {"factor", "original_max_position_embeddings", "attention_factor", "beta_fast", "beta_slow",
      "mscale", "mscale_all_dim", "truncate"}},
};
enum { KINDS = sizeof kinds / sizeof *kinds };

struct reader {
    struct model_config *config;
    const json_t *root, *dict;
    const char *where; // of the dictionary
    struct error *err;
};

static bool real(const struct reader *r, const char *key, double min, bool required, double *out)
{
    return json_get_real(r->dict, key, min, 1e9, required, out, r->where, r->err);
}

// The one beside the dictionary is the stronger; without either, all positions of the model.
static bool read_original(const struct reader *r, double *out)
{
    static const char key[] = "original_max_position_embeddings";
    int64_t n = r->config->max_positions;
    if (!json_get_int(r->dict, key, 1, 1 << 30, false, &n, r->where, r->err) ||
        !json_get_int(r->root, key, 1, 1 << 30, false, &n, r->where, r->err)) {
        return false;
    }
    *out = (double)n;
    return true;
}

static bool read_llama3(const struct reader *r, struct rope_scaling *s)
{
    if (!read_original(r, &s->original_positions) ||
        !real(r, "low_freq_factor", 1e-9, true, &s->low_factor) ||
        !real(r, "high_freq_factor", 1e-9, true, &s->high_factor)) {
        return false;
    }
    return s->high_factor > s->low_factor ||
           fail(r->err, "%s: high_freq_factor %g, expected more than low_freq_factor %g", r->where,
                s->high_factor, s->low_factor);
}

static double mscale(double factor, double scale)
{
    return factor <= 1 ? 1 : 0.1 * scale * log(factor) + 1;
}

static bool read_yarn(const struct reader *r, struct rope_scaling *s)
{
    double numerator = 0, denominator = 0; // 0: not given, as in transformers
    s->truncate = true;
    if (!read_original(r, &s->original_positions) ||
        !real(r, "attention_factor", 0, false, &s->attention_factor) ||
        !real(r, "beta_fast", 0, false, &s->beta_fast) ||
        !real(r, "beta_slow", 0, false, &s->beta_slow) ||
        !real(r, "mscale", 0, false, &numerator) ||
        !real(r, "mscale_all_dim", 0, false, &denominator) ||
        !json_get_bool(r->dict, "truncate", false, &s->truncate, r->where, r->err)) {
        return false;
    }
    if (!(s->beta_fast > 0)) s->beta_fast = 32;
    if (!(s->beta_slow > 0)) s->beta_slow = 1;
    const json_t *given = json_object_get(r->dict, "attention_factor");
    if (!given || json_is_null(given)) {
        s->attention_factor = numerator > 0 && denominator > 0
                                  ? mscale(s->factor, numerator) / mscale(s->factor, denominator)
                                  : mscale(s->factor, 1);
    }
    const double implied = (double)r->config->max_positions / s->original_positions;
    if (fabs(implied - s->factor) > 1e-9 * s->factor && fabs(implied - 1) > 1e-9) {
        log_warning("%s: factor %g counts, though max_position_embeddings %" PRId64
                    " is %g times original_max_position_embeddings",
                    r->where, s->factor, r->config->max_positions, implied);
    }
    return true;
}

static bool read_scaling(const struct reader *r, const struct kind *k)
{
    struct rope_scaling *s = &r->config->rope_scaling;
    s->kind = k->kind;
    if (s->kind == ROPE_PLAIN) return true;
    if (!real(r, "factor", 1e-3, true, &s->factor)) return false;
    if (s->kind == ROPE_LLAMA3) return read_llama3(r, s);
    return s->kind != ROPE_YARN || read_yarn(r, s);
}

static bool whole_rotation(const json_t *o, const char *where, struct error *err)
{
    double part = 1;
    if (!json_get_real(o, "partial_rotary_factor", 0, 1e6, false, &part, where, err)) return false;
    if (part >= 1 && part <= 1) return true;
    return fail(err, "%s: partial_rotary_factor %g is not implemented, expected 1", where, part);
}

static bool is_read(const struct kind *k, const char *key)
{
    static const char *const always[] = {"type", "rope_type", "rope_theta",
                                         "partial_rotary_factor"};
    for (size_t i = 0; i < sizeof always / sizeof *always; i++) {
        if (!strcmp(always[i], key)) return true;
    }
    for (int i = 0; k->key[i]; i++) {
        if (!strcmp(k->key[i], key)) return true;
    }
    return false;
}

static bool check_keys(const struct reader *r, const struct kind *k)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)r->dict, key, value)
    {
        if (json_is_object(value)) {
            return fail(r->err, "%s: %.100s: rotations by layer are not implemented", r->where,
                        key);
        }
        if (!is_read(k, key)) {
            log_warning("%s: %s is not read: the type is %s", r->where, key, k->name);
        }
    }
    return true;
}

static const struct kind *find_kind(const struct reader *r)
{
    const char *type = kinds[0].name;
    if (!json_get_text(r->dict, "type", false, &type, r->where, r->err) ||
        !json_get_text(r->dict, "rope_type", false, &type, r->where, r->err)) {
        return NULL;
    }
    for (int i = 0; i < KINDS; i++) {
        if (!strcmp(kinds[i].name, type)) return &kinds[i];
    }
    fail(r->err, "%s: type %.100s is not implemented, expected default, linear, llama3 or yarn",
         r->where, type);
    return NULL;
}

static const json_t *dictionary(const json_t *root, const char *name)
{
    const json_t *d = json_object_get(root, name);
    const bool nothing =
        json_is_null(d) || json_is_false(d) || (json_is_object(d) && !json_object_size(d));
    return nothing ? NULL : d;
}

static bool read_dictionary(const struct reader *r, double *theta)
{
    if (!json_is_object(r->dict)) return fail(r->err, "%s: expected an object", r->where);
    const struct kind *k = find_kind(r);
    return k && json_get_real(r->dict, "rope_theta", 1e-3, 1e30, false, theta, r->where, r->err) &&
           whole_rotation(r->dict, r->where, r->err) && check_keys(r, k) && read_scaling(r, k);
}

bool rope_read(struct model_config *c, const json_t *root, const char *where, struct error *err)
{
    double theta = (double)c->rope_theta;
    if (!json_get_real(root, "rope_theta", 1e-3, 1e30, false, &theta, where, err) ||
        !whole_rotation(root, where, err)) {
        return false;
    }
    const char *name = "rope_scaling"; // the stronger where both are there
    const json_t *dict = dictionary(root, name);
    if (!dict) dict = dictionary(root, name = "rope_parameters");
    char of_dict[512];
    snprintf(of_dict, sizeof of_dict, "%.400s: %s", where, name);
    const struct reader r = {c, root, dict, of_dict, err};
    if (dict && !read_dictionary(&r, &theta)) return false;
    c->rope_theta = (float)theta;
    if (c->rope_scaling.kind != ROPE_YARN || c->rope_theta > 1) return true;
    return fail(err, "%s: rope_theta %g, yarn needs more than 1", where, theta);
}

static float llama3(const struct rope_scaling *s, float f)
{
    const float original = (float)s->original_positions, factor = (float)s->factor;
    const float turn = (float)(2 * PI) / f; // positions
    if (turn < (float)(s->original_positions / s->high_factor)) return f;
    if (turn > (float)(s->original_positions / s->low_factor)) return f / factor;
    const float smooth =
        (original / turn - (float)s->low_factor) / (float)(s->high_factor - s->low_factor);
    return (1.0F - smooth) * f / factor + smooth * f;
}

// The index at which a frequency makes so many turns over the positions of pre-training.
static double index_of_turns(const struct model_config *c, double turns)
{
    const double positions = c->rope_scaling.original_positions;
    return (double)c->head_dim * log(positions / (turns * 2 * PI)) /
           (2 * log((double)c->rope_theta));
}

// How much of the stretched frequency i is.
static float yarn_share(const struct model_config *c, int64_t i)
{
    const struct rope_scaling *s = &c->rope_scaling;
    double low = index_of_turns(c, s->beta_fast), high = index_of_turns(c, s->beta_slow);
    if (s->truncate) low = floor(low), high = ceil(high);
    low = fmax(low, 0), high = fmin(high, (double)c->head_dim - 1);
    double width = high - low;
    if (!(width > 0 || width < 0)) width = 0.001;
    return fminf(fmaxf(((float)i - (float)low) / (float)width, 0.0F), 1.0F);
}

static float yarn(const struct model_config *c, int64_t i, float length)
{
    const float keep = 1.0F - yarn_share(c, i);
    return 1.0F / ((float)c->rope_scaling.factor * length) * (1.0F - keep) + 1.0F / length * keep;
}

void rope_frequencies(float *frequency, const struct model_config *c)
{
    const struct rope_scaling *s = &c->rope_scaling;
    for (int64_t i = 0; i < c->head_dim / 2; i++) {
        const float length = powf(c->rope_theta, (float)(2 * i) / (float)c->head_dim);
        const float f = 1.0F / length;
        frequency[i] = s->kind == ROPE_LINEAR   ? f / (float)s->factor
                       : s->kind == ROPE_LLAMA3 ? llama3(s, f)
                       : s->kind == ROPE_YARN   ? yarn(c, i, length)
                                                : f;
    }
}

void rope_table(float *table, int64_t positions, const struct model_config *c)
{
    const int64_t half = c->head_dim / 2;
    const float size =
        c->rope_scaling.kind == ROPE_YARN ? (float)c->rope_scaling.attention_factor : 1.0F;
    rope_frequencies(table, c); // the first row; written over last
    for (int64_t p = positions - 1; p >= 0; p--) {
        for (int64_t i = 0; i < half; i++) {
            const float angle = (float)p * table[i];
            const float cosine = (float)cos((double)angle), sine = (float)sin((double)angle);
            table[p * 2 * half + i] = size * cosine;
            table[p * 2 * half + half + i] = size * sine;
        }
    }
}
