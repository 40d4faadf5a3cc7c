// Delivers a message while it is young enough, and once:
//
// 1. What has expired by its own word is stale.
// 2. What is older than the configuration allows is stale.
// 3. The same event on another entry of a stream is a replay.

#include <string.h>

#include "bindings/freshness_policy.h"
#include "libc/libc.h"

#define AGE_MS_MAX 604800000

static const char schema[] =
#include "schema.inc"
    ;

static uint64_t age_ms_max = 60000;

static struct {
    oona_policy_host_symbol_t fresh, expired, old, replay;
} reasons;

static freshness_policy_string_t word(const char *text) {
    return (freshness_policy_string_t){(uint8_t *)text, strlen(text)};
}

void exports_freshness_policy_describe(freshness_policy_description_t *ret) {
    ret->name = word("freshness-in-c");
    ret->version = word("1.0.0");
    ret->config_schema = word(schema);
}

// The digits after a key. The host has held the configuration against the schema, so there is one key
// at most, and a number after it; how the number is written, a schema does not say.
static bool read_number(const freshness_policy_string_t *config, uint64_t *number) {
    size_t at = 0;
    while (at < config->len && config->ptr[at] != ':') {
        at++;
    }
    if (at == config->len) {
        return true;
    }
    do {
        at++;
    } while (at < config->len && config->ptr[at] <= ' ');
    uint64_t read = 0;
    size_t digits = 0;
    for (; at < config->len && config->ptr[at] >= '0' && config->ptr[at] <= '9'; at++, digits++) {
        read = read * 10 + (config->ptr[at] - '0');
        if (read > AGE_MS_MAX) {
            return false;
        }
    }
    bool ends = at < config->len && (config->ptr[at] <= ' ' || config->ptr[at] == '}');
    *number = read;
    return digits > 0 && ends;
}

static oona_policy_host_symbol_t intern(const char *name) {
    freshness_policy_string_t interned = word(name);
    return oona_policy_host_intern(&interned);
}

bool exports_freshness_policy_configure(freshness_policy_string_t *config,
                                        freshness_policy_string_t *err) {
    if (!read_number(config, &age_ms_max)) {
        *err = word("age_ms_max must be written in digits alone");
        return false;
    }
    reasons.fresh = intern("fresh");
    reasons.expired = intern("expired");
    reasons.old = intern("old");
    reasons.replay = intern("replay");
    if (!reasons.fresh || !reasons.expired || !reasons.old || !reasons.replay) {
        *err = word("the host has no room for the names of reasons");
        return false;
    }
    return true;
}

static exports_oona_policy_freshness_decision_t
decide(uint64_t now, const exports_oona_policy_freshness_arrival_t *arrival) {
    const exports_oona_policy_freshness_message_t *message = &arrival->message;
    if (message->expires_at != 0 && now > message->expires_at) {
        return (exports_oona_policy_freshness_decision_t){
            EXPORTS_OONA_POLICY_FRESHNESS_VERDICT_STALE, 0, reasons.expired};
    }
    // A message that does not say when it was issued, or says the future, is as young as can be.
    bool says = message->created_at != 0 && message->created_at < now;
    uint64_t age = says ? now - message->created_at : 0;
    if (age > age_ms_max) {
        return (exports_oona_policy_freshness_decision_t){
            EXPORTS_OONA_POLICY_FRESHNESS_VERDICT_STALE, 0, reasons.old};
    }
    if (arrival->nonce == EXPORTS_OONA_POLICY_FRESHNESS_NONCE_OTHER_ENTRY) {
        return (exports_oona_policy_freshness_decision_t){
            EXPORTS_OONA_POLICY_FRESHNESS_VERDICT_REPLAY, 0, reasons.replay};
    }
    // Until it is stale: from then on a copy is too old.
    return (exports_oona_policy_freshness_decision_t){
        EXPORTS_OONA_POLICY_FRESHNESS_VERDICT_FRESH, age_ms_max - age + 1, reasons.fresh};
}

void exports_oona_policy_freshness_decide(uint64_t now,
                                          exports_oona_policy_freshness_list_arrival_t *arrivals,
                                          exports_oona_policy_freshness_list_decision_t *ret) {
    ret->len = arrivals->len;
    ret->ptr = allocate(arrivals->len * sizeof *ret->ptr);
    for (size_t i = 0; i < arrivals->len; i++) {
        ret->ptr[i] = decide(now, &arrivals->ptr[i]);
    }
}

// Called once the host has read the answer. Replaces what the bindings would do.
__attribute__((__export_name__("cabi_post_oona:policy/freshness@0.1.0#decide")))
void __wasm_export_exports_oona_policy_freshness_decide_post_return(uint8_t *answer) {
    (void)answer;
    give_all_back();
}

// The bindings want to be linked with a description of the world; `oona policy build` adds it.
void __component_type_object_force_link_freshness_policy(void) {}
