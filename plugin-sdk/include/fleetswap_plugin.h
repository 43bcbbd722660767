/*
 * fleetswap_plugin.h: the C table between a plugin and its host.
 *
 * A plugin is a shared library for Linux that exports one symbol,
 *
 *     const struct fleetswap_table *fleetswap_plugin_v1(void);
 *
 * and carries one ELF note, written by FLEETSWAP_NOTE("name", "1.2.3"). Build it with
 *
 *     cc -shared -fPIC -I plugin-sdk/include -o libname.so name.c
 *
 * THE LIFE OF AN INSTANCE
 *
 *     create --> CREATED --activate--> ACTIVE --deactivate--> DEACTIVATED --> destroy
 *                   |                    ^                        |
 *                   +--> destroy         +-------activate---------+
 *
 * The host keeps to this matrix. `describe` and `create` may be called at any time.
 *
 *     function                       | CREATED | ACTIVE | DEACTIVATED | beside others | thread
 *     -------------------------------+---------+--------+-------------+---------------+--------
 *     health                         | yes     | yes    | no          | yes           | health
 *     call (probe_safe functions)    | yes     | yes    | no          | yes           | pool
 *     call (all other functions)     | no      | yes    | no          | yes           | pool
 *     activate                       | yes     | no     | yes         | no            | control
 *     deactivate                     | no      | yes    | no          | no            | control
 *     save_state                     | no      | yes    | yes         | no            | control
 *     restore_state                  | yes     | no     | no          | no            | control
 *     destroy                        | yes     | no     | yes         | no            | control
 *
 * beside others: calls run beside each other, up to `concurrency` of the descriptor (1 if you don't know better);
 *     health runs beside everything except destroy. "no" means that no call is running: so state is saved
 *     while nothing is in flight.
 * thread: `control` is the one thread that also called `create`; `health` has a thread of its own; `pool` is any
 *     of `concurrency` threads, of which a host runs FLEETSWAP_POOL_MAX (128) at most.
 *
 * RULES
 *
 * - `create` is passive: it starts no thread and opens nothing that another release might hold. Background work
 *   lives between `activate` and `deactivate`; at most one release of a plugin is active on a host.
 * - Nothing unwinds or jumps out of a function of the table.
 * - What the host passes in is borrowed until the function returns; only `fleetswap_host` lives until `destroy`.
 * - Output goes through the sink. Neither side frees what the other has allocated.
 * - There is no file, socket or process to be had: the plugin runs in a sandbox, with an empty environment.
 *
 * THE DESCRIPTOR, which `describe` writes: JSON, the same bytes at every call, at most FLEETSWAP_DESCRIPTOR_MAX.
 *
 *     {"format": 1, "name": "checksum", "version": "1.0.0",   as in the note
 *      "concurrency": 4,                                      1 to 256; a host runs at most 128 at once
 *      "functions": [{"name": "crc32",                        [a-z][a-z0-9_]*
 *                     "input": {...}, "output": {...},        JSON Schema 2020-12; null if raw
 *                     "idempotent": true,                     twice is as good as once
 *                     "probe_safe": true,                     changes nothing; may be called in CREATED
 *                     "raw": false}],                         true: bytes in, bytes out
 *      "state": {"writes": [], "reads": []},                  versions; both empty: no state
 *      "background": false,                                   works without being called
 *      "needs": [],                                           capabilities; none exist yet
 *      "config": null}                                        JSON Schema of the config; null: none, or any bytes
 */
#ifndef FLEETSWAP_PLUGIN_H
#define FLEETSWAP_PLUGIN_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Major version of the table. A host refuses every other one. */
#define FLEETSWAP_ABI_MAJOR 1
/* Minor version of the table. A host accepts any, and uses only the functions inside `size`. */
#define FLEETSWAP_ABI_MINOR 0

/* Longest name of a plugin or a function, in bytes. */
#define FLEETSWAP_NAME_MAX 64
#define FLEETSWAP_FUNCTION_NAME_MAX 64
/* Longest version text, in bytes. */
#define FLEETSWAP_VERSION_MAX 64
/* Highest `concurrency` of a descriptor, and how many calls a host runs in one plugin at a time at most. */
#define FLEETSWAP_CONCURRENCY_MAX 256
#define FLEETSWAP_POOL_MAX 128
/* Largest input or output of one call, in bytes. */
#define FLEETSWAP_BODY_MAX (1024 * 1024)
/* Largest saved state, in bytes. */
#define FLEETSWAP_STATE_MAX (64 * 1024 * 1024)
/* Longest words, in bytes: what goes into an `error` sink, and the detail of `health`. */
#define FLEETSWAP_WORDS_MAX (64 * 1024)
/* Largest descriptor, in bytes. */
#define FLEETSWAP_DESCRIPTOR_MAX (256 * 1024)

/* What a function of the table returns. */
typedef int32_t fleetswap_status;

/* Done; the sink holds the output. */
#define FLEETSWAP_OK 0
/* The plugin's own error; the sink holds {"code": "UPPER_SNAKE", "message": "..."}. */
#define FLEETSWAP_ERROR 1
/* No function of this name. */
#define FLEETSWAP_UNKNOWN_FUNCTION 2
/* The input does not fit the schema; the sink holds {"field": "a.b[0]", "message": "..."}. The field "." is the
 * input as a whole. */
#define FLEETSWAP_BAD_INPUT 3
/* The plugin's code panicked; the sink holds a text. Of use to languages that have such a thing. */
#define FLEETSWAP_PANIC 4
/* Not legal in the present phase. */
#define FLEETSWAP_ILLEGAL 5
/* The plugin can't do this, for example save a state version that it does not write. */
#define FLEETSWAP_UNSUPPORTED 6
/* The sink refused more bytes. */
#define FLEETSWAP_TOO_LARGE 7

/* Levels of the log. */
#define FLEETSWAP_LOG_ERROR 1
#define FLEETSWAP_LOG_WARN 2
#define FLEETSWAP_LOG_INFO 3
#define FLEETSWAP_LOG_DEBUG 4

/* Borrowed bytes, valid until the function that received them returns. `data` may be null when `len` is 0. */
struct fleetswap_bytes {
    const uint8_t *data;
    size_t len;
};

/* Where a plugin writes its output; valid until the function that received it returns, on that thread only. */
struct fleetswap_sink {
    void *context;
    /* Appends. Whatever is not FLEETSWAP_OK is to be returned by the plugin; only where it was writing the words of
     * an error may it return that one, with its words cut. */
    fleetswap_status (*write)(void *context, struct fleetswap_bytes bytes);
};

/* What the host offers; valid from `create` until `destroy` returns, from any thread. */
struct fleetswap_host {
    /* Size of this struct in bytes, as the host knows it. */
    uint32_t size;
    /* Always 0. */
    uint32_t reserved;
    void *context;
    /* Writes one line to the plugin's log: UTF-8, cut at 4 KiB. */
    void (*log)(void *context, uint32_t level, struct fleetswap_bytes line);
};

/* An instance: whatever the plugin likes, but not null. */
typedef void *fleetswap_instance;

/* The plugin's functions. See the matrix above. Every one of them must be there. */
struct fleetswap_table {
    /* FLEETSWAP_ABI_MAJOR, FLEETSWAP_ABI_MINOR and sizeof(struct fleetswap_table). */
    uint16_t abi_major;
    uint16_t abi_minor;
    uint32_t size;
    /* Writes the descriptor. */
    fleetswap_status (*describe)(const struct fleetswap_sink *out);
    /* Makes an instance of a config, which may be empty. With FLEETSWAP_OK, the instance must not be null. */
    fleetswap_status (*create)(const struct fleetswap_host *host, struct fleetswap_bytes config,
                               fleetswap_instance *instance, const struct fleetswap_sink *error);
    /* FLEETSWAP_OK is green; else FLEETSWAP_ERROR, with its JSON in `detail`. Like all words it has a bound,
     * FLEETSWAP_WORDS_MAX: a green one whose words pass it is red. */
    fleetswap_status (*health)(fleetswap_instance instance, const struct fleetswap_sink *detail);
    /* Runs one function. `deadline_ns`: nanoseconds that the caller still waits. */
    fleetswap_status (*call)(fleetswap_instance instance, struct fleetswap_bytes function,
                             struct fleetswap_bytes input, uint64_t deadline_ns,
                             const struct fleetswap_sink *out);
    /* Starts background work. */
    fleetswap_status (*activate)(fleetswap_instance instance, const struct fleetswap_sink *error);
    /* Ends background work; when it returns, no thread of the plugin touches the outside. */
    fleetswap_status (*deactivate)(fleetswap_instance instance, const struct fleetswap_sink *error);
    /* Writes the state in this version, which is one that the descriptor lists as written. */
    fleetswap_status (*save_state)(fleetswap_instance instance, uint32_t target_version,
                                   const struct fleetswap_sink *out);
    /* Takes over a state of a version that the descriptor lists as read. */
    fleetswap_status (*restore_state)(fleetswap_instance instance, uint32_t version,
                                      struct fleetswap_bytes state, const struct fleetswap_sink *error);
    /* Frees the instance. */
    void (*destroy)(fleetswap_instance instance);
};

/* The note: ABI, name and version as string literals, readable without running anything. Once per library, at the
 * top level of a file. */
#define FLEETSWAP_NOTE_OWNER "Fleetswap"
#define FLEETSWAP_NOTE_TYPE 1
#define FLEETSWAP_NOTE_TEXT(NAME, VERSION) "1.0\0" NAME "\0" VERSION
#define FLEETSWAP_NOTE(NAME, VERSION)                                                                          \
    static const struct {                                                                                      \
        uint32_t owner_size, text_size, type;                                                                  \
        char owner[(sizeof FLEETSWAP_NOTE_OWNER + 3) / 4 * 4];                                                 \
        char text[(sizeof FLEETSWAP_NOTE_TEXT(NAME, VERSION) + 3) / 4 * 4];                                    \
    } fleetswap_note __attribute__((section(".note.fleetswap"), used, aligned(4))) = {                         \
        sizeof FLEETSWAP_NOTE_OWNER, sizeof FLEETSWAP_NOTE_TEXT(NAME, VERSION), FLEETSWAP_NOTE_TYPE,           \
        FLEETSWAP_NOTE_OWNER, FLEETSWAP_NOTE_TEXT(NAME, VERSION)}

/* Marks the one symbol to export, also under -fvisibility=hidden. */
#define FLEETSWAP_EXPORT __attribute__((visibility("default")))
FLEETSWAP_EXPORT const struct fleetswap_table *fleetswap_plugin_v1(void);

/* Writes a text to a sink. */
static inline fleetswap_status fleetswap_write(const struct fleetswap_sink *out, const char *text) {
    struct fleetswap_bytes bytes = {(const uint8_t *)text, strlen(text)};
    return out->write(out->context, bytes);
}

/* Whether borrowed bytes are this text. */
static inline int fleetswap_is(struct fleetswap_bytes bytes, const char *text) {
    return bytes.len == strlen(text) && memcmp(bytes.data, text, bytes.len) == 0;
}

#ifdef __cplusplus
}
#endif

#endif
