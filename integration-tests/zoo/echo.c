/*
 * The plugin that loads and benchmarks call: it answers for what was asked, for how long it was asked to take.
 *
 *     VERSION          its version, as a string literal
 *     STATEFUL         it counts in state that a swap carries over
 *     HEALTH_IS_RED    health says no: a release that a probe refuses
 *     ACTIVATE_FAILS   activate says no: a release that the switch refuses, when calls may wait already
 *     RESTORE_FAILS    restore_state says no, likewise
 *     CREATE_FAILS     create says no
 *
 * `echo` takes "NONCE MILLISECONDS PADDING". It answers with one line: the nonce, the version, what counted the call,
 * the number that the call got there (from 1, without a gap), and the bytes of the input. What counts is the instance,
 * or, with state, all instances that handed it on. So a call that was lost after it ran leaves a gap, and a call that
 * ran twice does as well.
 *
 * `same` answers its input.
 */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "fleetswap_plugin.h"

FLEETSWAP_NOTE("echo", VERSION);

#ifdef STATEFUL
#define STATE "{\"writes\":[1],\"reads\":[1]}"
#else
#define STATE "{\"writes\":[],\"reads\":[]}"
#endif

static const char DESCRIPTOR[] =
    "{\"format\":1,\"name\":\"echo\",\"version\":\"" VERSION "\",\"concurrency\":64,\"functions\":["
    "{\"name\":\"echo\",\"input\":null,\"output\":null,\"idempotent\":false,\"probe_safe\":false,\"raw\":true},"
    "{\"name\":\"same\",\"input\":null,\"output\":null,\"idempotent\":true,\"probe_safe\":true,\"raw\":true}"
    "],\"state\":" STATE ",\"background\":false,\"needs\":[],\"config\":null}";

static struct {
    unsigned long long id;
    atomic_ullong calls;
} counter;

static fleetswap_status refused(const struct fleetswap_sink *error) {
    fleetswap_write(error, "{\"code\":\"MADE_TO_FAIL\",\"message\":\"this release was made to fail\"}");
    return FLEETSWAP_ERROR;
}

static fleetswap_status describe(const struct fleetswap_sink *out) {
    return fleetswap_write(out, DESCRIPTOR);
}

static fleetswap_status create(const struct fleetswap_host *host, struct fleetswap_bytes config,
                               fleetswap_instance *instance, const struct fleetswap_sink *error) {
    (void)host, (void)config, (void)error;
#ifdef CREATE_FAILS
    return refused(error);
#endif
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    counter.id = (unsigned long long)now.tv_sec * 1000000000ULL + (unsigned long long)now.tv_nsec;
    atomic_store(&counter.calls, 0);
    *instance = &counter;
    return FLEETSWAP_OK;
}

static fleetswap_status health(fleetswap_instance instance, const struct fleetswap_sink *detail) {
    (void)instance, (void)detail;
#ifdef HEALTH_IS_RED
    return refused(detail);
#endif
    return FLEETSWAP_OK;
}

static fleetswap_status echo(struct fleetswap_bytes input, const struct fleetswap_sink *out) {
    char head[64] = {0}, line[192], *end;
    memcpy(head, input.data, input.len < sizeof head ? input.len : sizeof head - 1);
    unsigned long long nonce = strtoull(head, &end, 10);
    long milliseconds = strtol(end, NULL, 10);
    unsigned long long number = atomic_fetch_add(&counter.calls, 1) + 1;
    struct timespec time = {milliseconds / 1000, milliseconds % 1000 * 1000000};
    while (milliseconds > 0 && nanosleep(&time, &time) != 0) {
    }
    int len = snprintf(line, sizeof line, "%llu %s %llu %llu %zu\n", nonce, VERSION, counter.id, number, input.len);
    struct fleetswap_bytes bytes = {(const uint8_t *)line, (size_t)len};
    return out->write(out->context, bytes);
}

static fleetswap_status call(fleetswap_instance instance, struct fleetswap_bytes function,
                             struct fleetswap_bytes input, uint64_t deadline_ns,
                             const struct fleetswap_sink *out) {
    (void)instance, (void)deadline_ns;
    if (fleetswap_is(function, "echo"))
        return echo(input, out);
    if (fleetswap_is(function, "same"))
        return out->write(out->context, input);
    return FLEETSWAP_UNKNOWN_FUNCTION;
}

static fleetswap_status activate(fleetswap_instance instance, const struct fleetswap_sink *error) {
    (void)instance, (void)error;
#ifdef ACTIVATE_FAILS
    return refused(error);
#endif
    return FLEETSWAP_OK;
}

static fleetswap_status deactivate(fleetswap_instance instance, const struct fleetswap_sink *error) {
    (void)instance, (void)error;
    return FLEETSWAP_OK;
}

static fleetswap_status save_state(fleetswap_instance instance, uint32_t version, const struct fleetswap_sink *out) {
    (void)instance, (void)version;
    char text[64];
    int len = snprintf(text, sizeof text, "%llu %llu", counter.id, (unsigned long long)atomic_load(&counter.calls));
    struct fleetswap_bytes bytes = {(const uint8_t *)text, (size_t)len};
    return out->write(out->context, bytes);
}

static fleetswap_status restore_state(fleetswap_instance instance, uint32_t version, struct fleetswap_bytes state,
                                      const struct fleetswap_sink *error) {
    (void)instance, (void)version, (void)error;
#ifdef RESTORE_FAILS
    return refused(error);
#endif
    char text[64] = {0}, *end;
    memcpy(text, state.data, state.len < sizeof text ? state.len : sizeof text - 1);
    counter.id = strtoull(text, &end, 10);
    atomic_store(&counter.calls, strtoull(end, NULL, 10));
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
    (void)refused;
    return &table;
}
