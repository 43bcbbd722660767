/*
 * Example plugin in C: checksum 1.0.0, the CRC-32 of any bytes.
 *
 *     cc -shared -fPIC -I plugin-sdk/include -o libchecksum_1_0_0.so plugin-sdk/examples/checksum/checksum.c
 *
 * It keeps no state and starts no thread, so all its instances are one, and there is nothing to do when it is
 * activated, deactivated or destroyed.
 */
#include <stdio.h>

#include "fleetswap_plugin.h"

FLEETSWAP_NOTE("checksum", "1.0.0");

static fleetswap_status describe(const struct fleetswap_sink *out) {
    return fleetswap_write(
        out, "{\"format\":1,\"name\":\"checksum\",\"version\":\"1.0.0\",\"concurrency\":4,"
             "\"functions\":[{\"name\":\"crc32\",\"input\":null,\"output\":null,"
             "\"idempotent\":true,\"probe_safe\":true,\"raw\":true}],"
             "\"state\":{\"writes\":[],\"reads\":[]},\"background\":false,\"needs\":[],\"config\":null}");
}

static char the_instance;

static fleetswap_status create(const struct fleetswap_host *host, struct fleetswap_bytes config,
                               fleetswap_instance *instance, const struct fleetswap_sink *error) {
    (void)host;
    if (config.len > 0) {
        fleetswap_write(error, "{\"field\":\".\",\"message\":\"this plugin takes no config\"}");
        return FLEETSWAP_BAD_INPUT;
    }
    *instance = &the_instance;
    return FLEETSWAP_OK;
}

static fleetswap_status green(fleetswap_instance instance, const struct fleetswap_sink *detail) {
    (void)instance;
    (void)detail;
    return FLEETSWAP_OK;
}

/* CRC-32 as in Ethernet, gzip and PNG: reflected, polynomial 0x04C11DB7. */
static uint32_t crc32(struct fleetswap_bytes bytes) {
    uint32_t crc = 0xFFFFFFFF;
    for (size_t i = 0; i < bytes.len; i++) {
        crc ^= bytes.data[i];
        for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ (crc & 1 ? 0xEDB88320 : 0);
    }
    return ~crc;
}

/* Takes any bytes; answers in JSON, so that a probe can read the answer. */
static fleetswap_status call(fleetswap_instance instance, struct fleetswap_bytes function,
                             struct fleetswap_bytes input, uint64_t deadline_ns,
                             const struct fleetswap_sink *out) {
    char reply[32];
    (void)instance;
    (void)deadline_ns;
    if (!fleetswap_is(function, "crc32")) return FLEETSWAP_UNKNOWN_FUNCTION;
    snprintf(reply, sizeof reply, "{\"crc32\":\"%08x\"}", (unsigned)crc32(input));
    return fleetswap_write(out, reply);
}

static fleetswap_status save_state(fleetswap_instance instance, uint32_t target_version,
                                   const struct fleetswap_sink *out) {
    (void)instance;
    (void)target_version;
    (void)out;
    return FLEETSWAP_UNSUPPORTED;
}

static fleetswap_status restore_state(fleetswap_instance instance, uint32_t version,
                                      struct fleetswap_bytes state, const struct fleetswap_sink *error) {
    (void)instance;
    (void)version;
    (void)state;
    (void)error;
    return FLEETSWAP_UNSUPPORTED;
}

static void destroy(fleetswap_instance instance) { (void)instance; }

static const struct fleetswap_table table = {
    FLEETSWAP_ABI_MAJOR, FLEETSWAP_ABI_MINOR, sizeof table, describe,      create, green, call, green,
    green,               save_state,          restore_state, destroy,
};

const struct fleetswap_table *fleetswap_plugin_v1(void) { return &table; }
