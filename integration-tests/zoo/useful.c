/*
 * Test plugin in C: does what a useful plugin does, within the default limits. The same as zoo/useful in Rust: threads of
 * its own, one of them with an event loop, a table of words, clocks, and 64 MiB that it keeps while it is active.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/select.h>
#include <time.h>
#include <unistd.h>

#include "fleetswap_plugin.h"

FLEETSWAP_NOTE("useful-c", "1.0.0");

#define THREADS 4
#define KEPT_BYTES (64l << 20)
#define PAGE 4096
/* Longest nap of the event loop in milliseconds. */
#define TICK 2

static const char DESCRIPTOR[] =
    "{\"format\":1,\"name\":\"useful-c\",\"version\":\"1.0.0\",\"concurrency\":8,\"functions\":[{\"name\":\"work\","
    "\"input\":null,\"output\":null,\"idempotent\":true,\"probe_safe\":false,\"raw\":true}],"
    "\"state\":{\"writes\":[],\"reads\":[]},\"background\":true,\"needs\":[],\"config\":null}";

static atomic_long ticks;
static atomic_int stopping;
static int wake = -1;
static pthread_t loop;
static unsigned char *kept;

static fleetswap_status fail(const struct fleetswap_sink *out, const char *what) {
    char text[128];
    snprintf(text, sizeof text, "{\"code\":\"NO_%s\",\"message\":\"the system gives none\"}", what);
    fleetswap_write(out, text);
    return FLEETSWAP_ERROR;
}

/* The event loop: ends when it is woken. */
static void *tick(void *unused) {
    struct epoll_event event = {.events = EPOLLIN};
    int events = epoll_create1(EPOLL_CLOEXEC);
    if (events < 0 || epoll_ctl(events, EPOLL_CTL_ADD, wake, &event) != 0)
        abort();
    while (!stopping && epoll_wait(events, &event, 1, TICK) == 0)
        ticks++;
    close(events);
    return unused;
}

struct share {
    long first, last, sum;
};

static void *add(void *given) {
    struct share *share = given;
    for (long n = share->first; n <= share->last; n += THREADS)
        share->sum += n;
    return given;
}

/* 1 + 2 + ... + n, by threads; -1 if there are none. */
static long by_threads(long n) {
    pthread_t threads[THREADS];
    struct share shares[THREADS];
    long sum = 0;
    int count = 0;
    for (; count < THREADS; count++) {
        shares[count] = (struct share){count + 1, n, 0};
        if (pthread_create(&threads[count], NULL, add, &shares[count]) != 0)
            break;
    }
    for (int done = 0; done < count; done++) {
        pthread_join(threads[done], NULL);
        sum += shares[done].sum;
    }
    return count == THREADS ? sum : -1;
}

static long nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000l + now.tv_nsec;
}

static fleetswap_status work(struct fleetswap_bytes input, const struct fleetswap_sink *out) {
    char text[256] = {0};
    long started = nanoseconds(), remainders = 0, same = 0, seen[7] = {0};
    struct timeval nap = {0, 1000};
    memcpy(text, input.data, input.len < 31 ? input.len : 31);
    long n = atol(text), sum = by_threads(n);
    if (sum < 0)
        return fail(out, "THREAD");
    if (select(0, NULL, NULL, NULL, &nap) != 0)
        return fail(out, "NAP");
    for (long i = 1; i <= n; i++)
        remainders += !seen[i % 7]++;
    for (long at = 0; at < KEPT_BYTES; at += PAGE)
        same += kept[at] == 7 ? PAGE : 0;
    snprintf(text, sizeof text, "{\"by_threads\":%ld,\"remainders\":%ld,\"moved\":%s,\"kept\":%ld,\"ticks\":%ld}", sum,
             remainders, nanoseconds() - started >= 1000000 ? "true" : "false", same, (long)ticks);
    return fleetswap_write(out, text);
}

static fleetswap_status describe(const struct fleetswap_sink *out) {
    return fleetswap_write(out, DESCRIPTOR);
}

static fleetswap_status create(const struct fleetswap_host *host, struct fleetswap_bytes config,
                               fleetswap_instance *instance, const struct fleetswap_sink *error) {
    (void)host, (void)config, (void)error;
    *instance = &ticks;
    return FLEETSWAP_OK;
}

static fleetswap_status health(fleetswap_instance instance, const struct fleetswap_sink *detail) {
    (void)instance, (void)detail;
    return FLEETSWAP_OK;
}

static fleetswap_status call(fleetswap_instance instance, struct fleetswap_bytes function, struct fleetswap_bytes input,
                             uint64_t deadline_ns, const struct fleetswap_sink *out) {
    (void)instance, (void)deadline_ns;
    return fleetswap_is(function, "work") ? work(input, out) : FLEETSWAP_UNKNOWN_FUNCTION;
}

static fleetswap_status activate(fleetswap_instance instance, const struct fleetswap_sink *error) {
    (void)instance;
    kept = malloc(KEPT_BYTES);
    if (!kept)
        return fail(error, "MEMORY");
    memset(kept, 7, KEPT_BYTES);
    stopping = 0;
    wake = eventfd(0, EFD_CLOEXEC);
    if (wake < 0 || pthread_create(&loop, NULL, tick, NULL) != 0)
        return fail(error, "THREAD");
    return FLEETSWAP_OK;
}

static fleetswap_status deactivate(fleetswap_instance instance, const struct fleetswap_sink *error) {
    (void)instance, (void)error;
    stopping = 1;
    eventfd_write(wake, 1);
    pthread_join(loop, NULL);
    close(wake);
    free(kept);
    return FLEETSWAP_OK;
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
        FLEETSWAP_ABI_MAJOR, FLEETSWAP_ABI_MINOR, sizeof table, describe,      create,  health, call,
        activate,            deactivate,          save_state,   restore_state, destroy,
    };
    return &table;
}
