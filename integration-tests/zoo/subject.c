/*
 * The test subject: one plugin that misbehaves as it is told by macros at compile time.
 *
 *     VERSION             its version, as a string literal
 *     CONSTRUCTOR_SPEAKS  a constructor writes a line before anybody has called anything
 *     HEALTH_BLOCKS       health never returns
 *     HEALTH_IS_RED       health says no
 *     ACTIVATE_BLOCKS     activate never returns
 *     CRASHES_ACTIVE      it aborts at the first health check after activate
 *     HOLDS_DESCRIPTORS   its create opens 32 descriptors, and fails where a host's limits don't let it
 *     NEEDS_FILES         its descriptor asks for what no agent can give
 *     STATEFUL            it has state, so that a swap pauses callers
 */
#include <stdlib.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "fleetswap_plugin.h"

FLEETSWAP_NOTE("subject", VERSION);

#ifdef NEEDS_FILES
#define NEEDS "[\"files\"]"
#else
#define NEEDS "[]"
#endif
#ifdef STATEFUL
#define STATE "{\"writes\":[1],\"reads\":[1]}"
#else
#define STATE "{\"writes\":[],\"reads\":[]}"
#endif

#define FUNCTION(NAME, IDEMPOTENT, PROBE_SAFE)                                                                 \
    "{\"name\":\"" NAME "\",\"input\":null,\"output\":null,\"idempotent\":" IDEMPOTENT                         \
    ",\"probe_safe\":" PROBE_SAFE ",\"raw\":true}"

static const char DESCRIPTOR[] =
    "{\"format\":1,\"name\":\"subject\",\"version\":\"" VERSION "\",\"concurrency\":16,\"functions\":["
    FUNCTION("echo", "true", "true") "," FUNCTION("slow", "false", "false") "," FUNCTION("fail", "false", "false") ","
    FUNCTION("crash", "false", "false") "," FUNCTION("config", "true", "true")
    "],\"state\":" STATE ",\"background\":false,\"needs\":" NEEDS ",\"config\":{}}";

static int active;
static struct {
    uint8_t bytes[256];
    size_t len;
} taken;

#ifdef CONSTRUCTOR_SPEAKS
__attribute__((constructor)) static void speak(void) {
    static const char line[] = "constructor of subject " VERSION " ran\n";
    if (write(1, line, sizeof line - 1) < 0)
        abort();
}
#endif

static void rest(long milliseconds) {
    struct timespec time = {milliseconds / 1000, milliseconds % 1000 * 1000000};
    while (nanosleep(&time, &time) != 0) {
    }
}

static void block(void) {
    for (;;)
        rest(1000);
}

static fleetswap_status describe(const struct fleetswap_sink *out) {
    return fleetswap_write(out, DESCRIPTOR);
}

static fleetswap_status create(const struct fleetswap_host *host, struct fleetswap_bytes config,
                               fleetswap_instance *instance, const struct fleetswap_sink *error) {
    (void)host, (void)error;
#ifdef HOLDS_DESCRIPTORS
    for (int count = 0; count < 32; count++)
        if (dup(1) < 0) {
            fleetswap_write(error, "{\"code\":\"NO_DESCRIPTORS\",\"message\":\"it can't open as many as it holds\"}");
            return FLEETSWAP_ERROR;
        }
#endif
    taken.len = config.len < sizeof taken.bytes ? config.len : sizeof taken.bytes;
    memcpy(taken.bytes, config.data, taken.len);
    *instance = &active;
    return FLEETSWAP_OK;
}

static fleetswap_status health(fleetswap_instance instance, const struct fleetswap_sink *detail) {
    (void)instance, (void)detail;
#ifdef HEALTH_BLOCKS
    block();
#endif
#ifdef HEALTH_IS_RED
    fleetswap_write(detail, "{\"code\":\"UNWELL\",\"message\":\"it says so itself\"}");
    return FLEETSWAP_ERROR;
#endif
#ifdef CRASHES_ACTIVE
    if (active)
        abort();
#endif
    return FLEETSWAP_OK;
}

/* Replies with the version; `slow` waits so many milliseconds as its input says. */
static fleetswap_status call(fleetswap_instance instance, struct fleetswap_bytes function,
                             struct fleetswap_bytes input, uint64_t deadline_ns,
                             const struct fleetswap_sink *out) {
    (void)instance, (void)deadline_ns;
    if (fleetswap_is(function, "slow")) {
        char digits[16] = {0};
        memcpy(digits, input.data, input.len < 15 ? input.len : 15);
        rest(atol(digits));
    } else if (fleetswap_is(function, "fail")) {
        fleetswap_write(out, "{\"code\":\"NOT_TODAY\",\"message\":\"it was told to fail\"}");
        return FLEETSWAP_ERROR;
    } else if (fleetswap_is(function, "config")) {
        struct fleetswap_bytes config = {taken.bytes, taken.len};
        return out->write(out->context, config);
    } else if (fleetswap_is(function, "crash")) {
        abort();
    } else if (!fleetswap_is(function, "echo")) {
        return FLEETSWAP_UNKNOWN_FUNCTION;
    }
    return fleetswap_write(out, "\"" VERSION "\"");
}

static fleetswap_status activate(fleetswap_instance instance, const struct fleetswap_sink *error) {
    (void)instance, (void)error;
#ifdef ACTIVATE_BLOCKS
    block();
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
    return fleetswap_write(out, "state");
}

static fleetswap_status restore_state(fleetswap_instance instance, uint32_t version, struct fleetswap_bytes state,
                                      const struct fleetswap_sink *error) {
    (void)instance, (void)version, (void)state, (void)error;
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
    (void)block;
    return &table;
}
