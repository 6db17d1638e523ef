// routing/losses.h - losses on the router itself, with any routing (METHODS, "aux"): load balancing as
// transformers' load_balancing_loss_func has it, over the tokens of all MoE layers together,
//   f_e = assignments to e / tokens (no gradient),  P_e = mean p_e,  loss = E * sum_e f_e P_e
// and the z-loss, the mean of logsumexp(z)^2. p = softmax(z), z as the routing left it.
#pragma once
#include "routing/routing.h"

struct router_losses {
    const struct ops *ops;
    double aux_coef, z_coef;
    int64_t n_experts, moe_layers;
    struct tensor count, sum; // (E) F32 of the micro-batch: assignments, and p summed over tokens
    struct tensor slope;      // (E) F32: dloss/dp_e
    struct tensor p, dp, lse; // (max N, E), (max N, E), (max N) scratch
    struct tensor value;      // (1) F64: the losses since they were taken, coefficients included
};

// Coefficients below 0 mean the default: the checkpoint's router_aux_loss_coef where the routing needs it,
// else 0. Nothing is allocated when both are 0.
void router_losses_open(struct router_losses *s, const struct ops *o, const struct model_config *c,
                        const struct routing *r, const struct routing_options *options,
                        int64_t max_tokens, struct arena *a);
bool router_losses_on(const struct router_losses *s);
void router_losses_begin(struct router_losses *s); // a training micro-batch
// One layer's forward: its logits and the rows that each expert got. weight: the micro-batch's share of the
// step's tokens.
void router_losses_layer(struct router_losses *s, struct tensor z, struct tensor offsets,
                         double weight);
void router_losses_end(struct router_losses *s, int64_t tokens,
                       double weight); // after the last layer
// dz (N,E) += the losses' gradient; p again from z.
void router_losses_backward(struct router_losses *s, struct tensor dz, struct tensor z,
                            double weight);
double router_losses_take(struct router_losses *s); // downloads value and sets it to 0
