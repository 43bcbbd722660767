/*
 * What the bare hop is measured with: `same` answers its input, at once. VERSION is its version, as a string literal.
 */
#include "fleetswap_plugin.h"

FLEETSWAP_NOTE("echo", VERSION);

static const char DESCRIPTOR[] =
    "{\"format\":1,\"name\":\"echo\",\"version\":\"" VERSION "\",\"concurrency\":64,\"functions\":["
    "{\"name\":\"same\",\"input\":null,\"output\":null,\"idempotent\":true,\"probe_safe\":true,\"raw\":true}"
    "],\"state\":{\"writes\":[],\"reads\":[]},\"background\":false,\"needs\":[],\"config\":null}";

static int instances;

static fleetswap_status describe(const struct fleetswap_sink *out) {
    return fleetswap_write(out, DESCRIPTOR);
}

static fleetswap_status create(const struct fleetswap_host *host, struct fleetswap_bytes config,
                               fleetswap_instance *instance, const struct fleetswap_sink *error) {
    (void)host, (void)config, (void)error;
    *instance = &instances;
    return FLEETSWAP_OK;
}

static fleetswap_status well(fleetswap_instance instance, const struct fleetswap_sink *words) {
    (void)instance, (void)words;
    return FLEETSWAP_OK;
}

static fleetswap_status call(fleetswap_instance instance, struct fleetswap_bytes function,
                             struct fleetswap_bytes input, uint64_t deadline_ns,
                             const struct fleetswap_sink *out) {
    (void)instance, (void)deadline_ns;
    return fleetswap_is(function, "same") ? out->write(out->context, input) : FLEETSWAP_UNKNOWN_FUNCTION;
}

static fleetswap_status save_state(fleetswap_instance instance, uint32_t version, const struct fleetswap_sink *out) {
    (void)instance, (void)version, (void)out;
    return FLEETSWAP_UNSUPPORTED;
}

static fleetswap_status restore_state(fleetswap_instance instance, uint32_t version, struct fleetswap_bytes state,
                                      const struct fleetswap_sink *error) {
    (void)instance, (void)version, (void)state, (void)error;
    return FLEETSWAP_UNSUPPORTED;
}

static void destroy(fleetswap_instance instance) {
    (void)instance;
}

FLEETSWAP_EXPORT const struct fleetswap_table *fleetswap_plugin_v1(void) {
    static const struct fleetswap_table table = {
        FLEETSWAP_ABI_MAJOR, FLEETSWAP_ABI_MINOR, sizeof table,  describe,     create,        well,  call,
        well,                well,                save_state,    restore_state, destroy,
    };
    return &table;
}
