/*
 * A plugin that talks, and falls over when it is told to.
 *
 *     VERSION          its version, as a string literal
 *     SPEAKS_AT_LOAD   a constructor writes a line
 *     FALLS_IN_HEALTH  it crashes at its first health check
 */
#include <stdio.h>
#include <stdlib.h>

#include "fleetswap_plugin.h"

FLEETSWAP_NOTE("talker", VERSION);

#define FUNCTION(NAME)                                                                                         \
    "{\"name\":\"" NAME "\",\"input\":null,\"output\":null,\"idempotent\":false,\"probe_safe\":false,"          \
    "\"raw\":true}"

static const char DESCRIPTOR[] =
    "{\"format\":1,\"name\":\"talker\",\"version\":\"" VERSION "\",\"concurrency\":16,\"functions\":["
    FUNCTION("say") "," FUNCTION("flood") "," FUNCTION("fall") "," FUNCTION("echo")
    "],\"state\":{\"writes\":[],\"reads\":[]},\"background\":false,\"needs\":[],\"config\":{}}";

/* Bytes of a line of the flood, its end included. */
#define LINE 4000

static const struct fleetswap_host *host;
static int instance;

#ifdef SPEAKS_AT_LOAD
__attribute__((constructor)) static void speak(void) {
    fprintf(stderr, "loading %s\n", VERSION);
}
#endif

__attribute__((noinline)) int fall_over(volatile int *where) {
    *where = 1;
    return 1;
}

static fleetswap_status describe(const struct fleetswap_sink *out) {
    return fleetswap_write(out, DESCRIPTOR);
}

static fleetswap_status create(const struct fleetswap_host *given, struct fleetswap_bytes config,
                               fleetswap_instance *made, const struct fleetswap_sink *error) {
    (void)config, (void)error;
    host = given;
    *made = &instance;
    return FLEETSWAP_OK;
}

static fleetswap_status health(fleetswap_instance it, const struct fleetswap_sink *detail) {
    (void)it, (void)detail;
#ifdef FALLS_IN_HEALTH
    fall_over((volatile int *)16);
#endif
    return FLEETSWAP_OK;
}

/* Writes so many lines, each as long as a line may be. */
static void flood(long lines) {
    char line[LINE];
    memset(line, 'x', sizeof line);
    line[LINE - 1] = '\n';
    for (; lines > 0; lines--)
        fwrite(line, sizeof line, 1, stdout);
    fflush(stdout);
}

static fleetswap_status call(fleetswap_instance it, struct fleetswap_bytes function,
                             struct fleetswap_bytes input, uint64_t deadline_ns,
                             const struct fleetswap_sink *out) {
    (void)it, (void)deadline_ns;
    if (fleetswap_is(function, "say")) {
        host->log(host->context, FLEETSWAP_LOG_INFO, input);
    } else if (fleetswap_is(function, "flood")) {
        char digits[16] = {0};
        memcpy(digits, input.data, input.len < 15 ? input.len : 15);
        flood(atol(digits));
    } else if (fleetswap_is(function, "fall")) {
        return fall_over((volatile int *)16);
    } else if (!fleetswap_is(function, "echo")) {
        return FLEETSWAP_UNKNOWN_FUNCTION;
    }
    return fleetswap_write(out, "\"" VERSION "\"");
}

static fleetswap_status turn(fleetswap_instance it, const struct fleetswap_sink *error) {
    (void)it, (void)error;
    return FLEETSWAP_OK;
}

static fleetswap_status save_state(fleetswap_instance it, uint32_t version, const struct fleetswap_sink *out) {
    (void)it, (void)version, (void)out;
    return FLEETSWAP_UNSUPPORTED;
}

static fleetswap_status restore_state(fleetswap_instance it, uint32_t version, struct fleetswap_bytes state,
                                      const struct fleetswap_sink *error) {
    (void)it, (void)version, (void)state, (void)error;
    return FLEETSWAP_UNSUPPORTED;
}

static void destroy(fleetswap_instance it) {
    (void)it;
}

static const struct fleetswap_table TABLE = {
    FLEETSWAP_ABI_MAJOR, FLEETSWAP_ABI_MINOR, sizeof TABLE, describe, create, health,
    call, turn, turn, save_state, restore_state, destroy,
};

FLEETSWAP_EXPORT const struct fleetswap_table *fleetswap_plugin_v1(void) {
    return &TABLE;
}
