/*
 * What is swapped under load: a plugin whose replies show which release answered which call, and how often it ran.
 *
 *     VERSION         its version, as a string literal
 *     STATEFUL        it counts its calls over all releases, so that a swap pauses callers
 *     FAILS_RESTORE   restore_state says no
 *     FAILS_ACTIVATE  activate says no
 *     RED_ACTIVE      health says no once it is active
 *
 * `work` takes `MILLISECONDS NONCE PADDING` and answers `VERSION NONCE LENGTH COUNT`: after so long, for an input of
 * that length, as the so manieth call.
 */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "fleetswap_plugin.h"

FLEETSWAP_NOTE("swapped", VERSION);

#ifdef STATEFUL
#define STATE "{\"writes\":[1],\"reads\":[1]}"
#else
#define STATE "{\"writes\":[],\"reads\":[]}"
#endif

static const char DESCRIPTOR[] =
    "{\"format\":1,\"name\":\"swapped\",\"version\":\"" VERSION "\",\"concurrency\":128,\"functions\":["
    "{\"name\":\"work\",\"input\":null,\"output\":null,\"idempotent\":false,\"probe_safe\":false,\"raw\":true}"
    "],\"state\":" STATE ",\"background\":false,\"needs\":[],\"config\":{}}";

/* Longest input that is copied to be read; the padding behind it is only counted. */
#define HEAD_MAX 64

static atomic_ullong count;
static atomic_int active;

static fleetswap_status refuse(const struct fleetswap_sink *error) {
    fleetswap_write(error, "{\"code\":\"NOT_ME\",\"message\":\"it was built to fail here\"}");
    return FLEETSWAP_ERROR;
}

static fleetswap_status describe(const struct fleetswap_sink *out) {
    return fleetswap_write(out, DESCRIPTOR);
}

static fleetswap_status create(const struct fleetswap_host *host, struct fleetswap_bytes config,
                               fleetswap_instance *instance, const struct fleetswap_sink *error) {
    (void)host, (void)config, (void)error;
    *instance = &active;
    return FLEETSWAP_OK;
}

static fleetswap_status health(fleetswap_instance instance, const struct fleetswap_sink *detail) {
    (void)instance, (void)detail;
#ifdef RED_ACTIVE
    if (active)
        return refuse(detail);
#endif
    return FLEETSWAP_OK;
}

static fleetswap_status call(fleetswap_instance instance, struct fleetswap_bytes function,
                             struct fleetswap_bytes input, uint64_t deadline_ns,
                             const struct fleetswap_sink *out) {
    (void)instance, (void)deadline_ns;
    char head[HEAD_MAX + 1] = {0}, nonce[HEAD_MAX] = {0}, reply[160];
    long milliseconds = 0;
    if (!fleetswap_is(function, "work"))
        return FLEETSWAP_UNKNOWN_FUNCTION;
    memcpy(head, input.data, input.len < HEAD_MAX ? input.len : HEAD_MAX);
    if (sscanf(head, "%ld %63s", &milliseconds, nonce) != 2)
        return refuse(out);
    struct timespec time = {milliseconds / 1000, milliseconds % 1000 * 1000000};
    while (nanosleep(&time, &time) != 0) {
    }
    snprintf(reply, sizeof reply, "%s %s %zu %llu", VERSION, nonce, input.len, ++count);
    return fleetswap_write(out, reply);
}

static fleetswap_status activate(fleetswap_instance instance, const struct fleetswap_sink *error) {
    (void)instance, (void)error;
#ifdef FAILS_ACTIVATE
    return refuse(error);
#endif
    active = 1;
    return FLEETSWAP_OK;
}

static fleetswap_status deactivate(fleetswap_instance instance, const struct fleetswap_sink *error) {
    (void)instance, (void)error;
    active = 0;
    return FLEETSWAP_OK;
}

static fleetswap_status save_state(fleetswap_instance instance, uint32_t version, const struct fleetswap_sink *out) {
    (void)instance, (void)version;
    char state[32];
    snprintf(state, sizeof state, "%llu", (unsigned long long)count);
    return fleetswap_write(out, state);
}

static fleetswap_status restore_state(fleetswap_instance instance, uint32_t version, struct fleetswap_bytes state,
                                      const struct fleetswap_sink *error) {
    (void)instance, (void)version, (void)error;
    char digits[32] = {0};
#ifdef FAILS_RESTORE
    return refuse(error);
#endif
    memcpy(digits, state.data, state.len < 31 ? state.len : 31);
    count = strtoull(digits, NULL, 10);
    return FLEETSWAP_OK;
}

static void destroy(fleetswap_instance instance) {
    (void)instance;
}

FLEETSWAP_EXPORT const struct fleetswap_table *fleetswap_plugin_v1(void) {
    static const struct fleetswap_table table = {
        FLEETSWAP_ABI_MAJOR, FLEETSWAP_ABI_MINOR, sizeof table,  describe,     create,        health,  call,
        activate,            deactivate,          save_state,    restore_state, destroy,
    };
    return &table;
}
