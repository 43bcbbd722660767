/*
 * A plugin that does what a test tells it to, good or bad.
 *
 * Built by the tests with -D ON_LOAD=..., ON_CREATE=..., ON_ACTIVATE=..., ON_HEALTH=..., ON_DESTROY=...
 * (statements), NAME, VERSION, CONCURRENCY, MAJOR, INSTANCE, and NO_ENTRY or NO_TABLE.
 */
#define _GNU_SOURCE
#include "fleetswap_plugin.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef NAME
#define NAME "specimen"
#endif
#ifndef VERSION
#define VERSION "1.0.0"
#endif
#ifndef CONCURRENCY
#define CONCURRENCY "4"
#endif
#ifndef MAJOR
#define MAJOR FLEETSWAP_ABI_MAJOR
#endif
#ifndef ON_LOAD
#define ON_LOAD
#endif
#ifndef ON_CREATE
#define ON_CREATE
#endif
#ifndef ON_ACTIVATE
#define ON_ACTIVATE
#endif
#ifndef ON_HEALTH
#define ON_HEALTH
#endif
#ifndef ON_DESTROY
#define ON_DESTROY
#endif
#ifndef INSTANCE
#define INSTANCE &counter
#endif

typedef fleetswap_status function(struct fleetswap_bytes input, const struct fleetswap_sink *out);

static const struct fleetswap_host *host;
static uint8_t *state;
static size_t state_len;
static _Atomic int counter, inside, peak, checks;

static fleetswap_status put(const struct fleetswap_sink *out, const void *data, size_t len) {
    struct fleetswap_bytes bytes = {data, len};
    return out->write(out->context, bytes);
}

static fleetswap_status say(const struct fleetswap_sink *out, const char *text) {
    return put(out, text, strlen(text));
}

/* Writes so many bytes, whatever the sink says, and returns the status. */
static fleetswap_status words(const struct fleetswap_sink *out, long len, fleetswap_status status) {
    for (; len > 0; len--) put(out, "x", 1);
    return status;
}

static long number(struct fleetswap_bytes input) {
    char text[32] = {0};
    memcpy(text, input.data, input.len < 31 ? input.len : 31);
    return atol(text);
}

static void nap(long ms) {
    struct timespec time = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&time, 0);
}

static void *sleep_for_ever(void *unused) {
    while (!unused) nap(1000000);
    return 0;
}

static void *do_nothing(void *unused) {
    return unused;
}

static void *count_one(void *unused) {
    counter++;
    return unused;
}

static long eat(long mib) {
    for (long n = 0; n < mib; n++) {
        char *piece = malloc(1 << 20);
        if (!piece) return n;
        memset(piece, 1, 1 << 20);
    }
    return mib;
}

static int hold_threads(long wanted) {
    pthread_attr_t small;
    pthread_t thread;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 64 * 1024);
    for (long n = 0; n < wanted; n++)
        if (pthread_create(&thread, &small, sleep_for_ever, 0)) return 0;
    return 1;
}

static void spin(void) {
    for (volatile int on = 1; on;) {
    }
}

/* Says something to the host that a plugin has no business to say. */
static void claim(const char *frame, size_t len) {
    (void)!write(3, frame, len);
    spin();
}

static int overflow(volatile char *above) {
    volatile char here[4096];
    here[0] = above[0];
    return overflow(here) + here[0];
}

/* The functions. */

static fleetswap_status echo(struct fleetswap_bytes input, const struct fleetswap_sink *out) {
    return put(out, input.data, input.len);
}

static fleetswap_status count(struct fleetswap_bytes input, const struct fleetswap_sink *out) {
    (void)input;
    char text[32];
    snprintf(text, sizeof text, "%d", ++counter);
    return say(out, text);
}

/* Sleeps for so many milliseconds; `peaked` says how many slept at once. */
static fleetswap_status slow(struct fleetswap_bytes input, const struct fleetswap_sink *out) {
    int now = ++inside;
    for (int seen = peak; now > seen && !__atomic_compare_exchange_n(&peak, &seen, now, 0, 5, 5);) {
    }
    nap(number(input));
    inside--;
    return say(out, "slept");
}

static fleetswap_status peaked(struct fleetswap_bytes input, const struct fleetswap_sink *out) {
    (void)input;
    char text[32];
    snprintf(text, sizeof text, "%d", peak);
    return say(out, text);
}

static fleetswap_status output(struct fleetswap_bytes input, const struct fleetswap_sink *out) {
    char piece[1000];
    memset(piece, 'x', sizeof piece);
    for (long left = number(input); left > 0; left -= 1000) {
        fleetswap_status status = put(out, piece, left < 1000 ? left : 1000);
        if (status) return status;
    }
    return FLEETSWAP_OK;
}

/* Writes what follows the first word and returns the first word as its status. */
static fleetswap_status answer(struct fleetswap_bytes input, const struct fleetswap_sink *out) {
    const uint8_t *space = memchr(input.data, ' ', input.len);
    if (space) put(out, space + 1, input.data + input.len - space - 1);
    return number(input);
}

/* getpid() as 32-bit programs call it. */
static void old_system_call(void) {
#ifdef __x86_64__
    long result = 20;
    __asm__ volatile("int $0x80" : "+a"(result) : : "memory");
#else
    abort();
#endif
}

static fleetswap_status die(struct fleetswap_bytes input, const struct fleetswap_sink *out) {
    switch (input.data[0]) {
    case 'a': abort();
    case 's': *(volatile int *)0 = 1; break;
    case 'i': __builtin_trap();
    case 'e': exit(0);
    case '_': _exit(3);
    case 'l': spin(); break;
    case 'o': overflow((char[]){0}); break;
    case 'c': for (int fd = 0; fd < 1024; fd++) close(fd); break;
    case 'f': (void)!write(3, "\0\0\0\3\x08\xe7\x07", 7); break; /* a reply to request 999 */
    case 'n': (void)!write(3, "\0\0\0\2\xff\xff", 6); break;     /* no message */
    case 'h': (void)!write(3, "\xff\xff\xff\xff", 4); break;     /* a huge frame */
    case 'p': (void)!write(3, "\0\0\0\4\x08\x03\x20\x01", 8); break; /* an empty part of this reply */
    case '3': old_system_call(); break;
    }
    return say(out, "alive");
}

static fleetswap_status allocate(struct fleetswap_bytes input, const struct fleetswap_sink *out) {
    return say(out, eat(number(input)) == number(input) ? "ate" : "refused");
}

static fleetswap_status threads(struct fleetswap_bytes input, const struct fleetswap_sink *out) {
    return say(out, hold_threads(number(input)) ? "started" : "refused");
}

/* What an honest plugin does. */
static fleetswap_status work(struct fleetswap_bytes input, const struct fleetswap_sink *out) {
    (void)input;
    pthread_t ids[8];
    int before = counter;
    for (int n = 0; n < 8; n++)
        if (pthread_create(&ids[n], 0, count_one, 0)) return say(out, "no thread");
    for (int n = 0; n < 8; n++) pthread_join(ids[n], 0);
    if (counter != before + 8) return say(out, "lost a thread");
    struct epoll_event event = {.events = EPOLLIN};
    int poll = epoll_create1(EPOLL_CLOEXEC), wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (poll < 0 || wake < 0 || epoll_ctl(poll, EPOLL_CTL_ADD, wake, &event)) return say(out, "no epoll");
    if (eventfd_write(wake, 1) || epoll_wait(poll, &event, 1, 1000) != 1) return say(out, "no event");
    close(poll);
    close(wake);
    if (select(0, 0, 0, 0, &(struct timeval){0, 1000})) return say(out, "no nap");
    struct timespec now;
    unsigned char random[16];
    if (clock_gettime(CLOCK_REALTIME, &now) || time(0) < 1) return say(out, "no clock");
    if (getrandom(random, 16, 0) != 16) return say(out, "no chance");
    void *memory = malloc(64 << 20);
    if (!memory) return say(out, "no memory");
    memset(memory, 1, 64 << 20);
    free(memory);
    return say(out, "fine");
}

static fleetswap_status logs(struct fleetswap_bytes input, const struct fleetswap_sink *out) {
    host->log(host->context, FLEETSWAP_LOG_WARN, input);
    fprintf(stderr, "on stderr\n");
    printf("on stdout\n");
    fflush(stdout);
    return say(out, "said");
}

static fleetswap_status flood(struct fleetswap_bytes input, const struct fleetswap_sink *out) {
    for (long n = number(input); n > 0; n--) host->log(host->context, FLEETSWAP_LOG_INFO, input);
    return say(out, "flooded");
}

/* getpid() as x32 programs call it. */
#define X32_GETPID (0x40000000 | SYS_getpid)

static long map(int flags) {
    return mmap(0, 4096, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? -1 : 0;
}

/* Tries what is forbidden and says how it went, as an error number. A path is opened for reading. */
static long try_it(const char *what) {
#define CASE(name) if (!strcmp(what, #name))
    char *none[] = {0};
    if (what[0] == '/') return open(what, O_RDONLY);
    struct rlimit limit = {1 << 20, 1 << 20};
    uint64_t clone3_args[11] = {0};
    CASE(passwd) return open("/etc/passwd", O_RDONLY);
    CASE(passwd_path) return open("/etc/passwd", O_PATH);
    CASE(own_exe) return open("/proc/self/exe", O_RDONLY);
    CASE(own_memory) return open("/proc/self/mem", O_RDWR);
    CASE(folder) return open("/", O_RDONLY | O_DIRECTORY);
    CASE(create) return open("/tmp/specimen", O_CREAT | O_WRONLY, 0600);
    CASE(tmpfile) return open("/tmp", O_TMPFILE | O_RDWR, 0600);
    CASE(stat) return syscall(SYS_newfstatat, AT_FDCWD, "/etc/passwd", &(struct stat){0}, 0);
    CASE(stat_flag) return syscall(SYS_newfstatat, AT_FDCWD, "/etc/passwd", &(struct stat){0}, AT_EMPTY_PATH);
    CASE(x32) return syscall(X32_GETPID);
    CASE(unlink) return unlink("/tmp/specimen");
    CASE(socket_unix) return socket(AF_UNIX, SOCK_STREAM, 0);
    CASE(socket_inet) return socket(AF_INET, SOCK_STREAM, 0);
    CASE(socket_netlink) return socket(AF_NETLINK, SOCK_RAW, 0);
    CASE(pair) return socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, (int[2]){0});
    CASE(pair_datagram) return socketpair(AF_UNIX, SOCK_DGRAM, 0, (int[2]){0});
    CASE(pair_packet) return socketpair(AF_UNIX, SOCK_SEQPACKET, 0, (int[2]){0});
    CASE(pair_other) return socketpair(AF_TIPC, SOCK_STREAM, 0, (int[2]){0});
    CASE(pass_a_descriptor) return sendmsg(3, &(struct msghdr){0}, 0);
    CASE(hurry) return setpriority(PRIO_PROCESS, 0, 0);
    CASE(execve) return execve("/bin/true", none, none);
    CASE(fexecve) return syscall(SYS_execveat, 4, "", none, none, AT_EMPTY_PATH);
    CASE(fork) return fork();
    CASE(clone) return syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    CASE(clone_newns) return syscall(SYS_clone, CLONE_VM | CLONE_SIGHAND | CLONE_THREAD | CLONE_NEWNET, 0, 0, 0, 0);
    CASE(clone3) return syscall(SYS_clone3, clone3_args, sizeof clone3_args);
    CASE(unshare) return unshare(CLONE_NEWUSER);
    CASE(kill_parent) return kill(getppid(), 0);
    CASE(tgkill_parent) return syscall(SYS_tgkill, getppid(), getppid(), 0);
    CASE(ptrace) return ptrace(PTRACE_TRACEME, 0, 0, 0);
    CASE(mmap_wx) return mmap(0, 4096, PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? -1 : 0;
    CASE(mmap_private) return map(MAP_PRIVATE);
    CASE(mmap_shared) return map(MAP_SHARED);
    CASE(mmap_shared_validate) return map(MAP_SHARED_VALIDATE);
    CASE(mmap_huge) return map(MAP_PRIVATE | MAP_HUGETLB);
    CASE(mprotect_wx) {
        void *page = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        return mprotect(page, 4096, PROT_READ | PROT_WRITE | PROT_EXEC);
    }
    CASE(mprotect_code) {
        void *page = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        return mprotect(page, 4096, PROT_READ | PROT_EXEC);
    }
    CASE(memfd) return syscall(SYS_memfd_create, "x", 0);
    CASE(io_uring) return syscall(SYS_io_uring_setup, 1, 0);
    CASE(bpf) return syscall(SYS_bpf, 0, 0, 0);
    CASE(seccomp) return syscall(SYS_seccomp, 0, 0, 0);
    CASE(pdeathsig) return prctl(PR_SET_PDEATHSIG, 0);
    CASE(dumpable) return prctl(PR_SET_DUMPABLE, 0);
    CASE(setrlimit) return setrlimit(RLIMIT_AS, &limit);
    CASE(setown) return fcntl(3, F_SETOWN, getppid());
    CASE(setuid) return setuid(0);
    CASE(chroot) return chroot("/");
    CASE(mount) return syscall(SYS_mount, 0, "/", 0, 0, 0);
    CASE(name_thread) return prctl(PR_SET_NAME, "named");
    errno = 0;
    return -1;
}

static fleetswap_status attempt(struct fleetswap_bytes input, const struct fleetswap_sink *out) {
    char what[64] = {0}, text[64];
    memcpy(what, input.data, input.len < 63 ? input.len : 63);
    errno = 0;
    long result = try_it(what);
    snprintf(text, sizeof text, "%s", result == -1 ? strerrorname_np(errno) : "OK");
    return say(out, text);
}

/* Open descriptors, size of the environment. */
static fleetswap_status surroundings(struct fleetswap_bytes input, const struct fleetswap_sink *out) {
    (void)input;
    char text[512] = "fds";
    for (int fd = 0; fd < 4096; fd++)
        if (fcntl(fd, F_GETFD) >= 0) sprintf(text + strlen(text), " %d", fd);
    size_t variables = 0;
    while (environ && environ[variables]) variables++;
    sprintf(text + strlen(text), ", environment %zu", variables);
    return say(out, text);
}

/* Makes a state of so many bytes. */
static fleetswap_status grow(struct fleetswap_bytes input, const struct fleetswap_sink *out) {
    state_len = number(input);
    free(state);
    state = malloc(state_len);
    for (size_t n = 0; n < state_len; n++) state[n] = n * 2654435761u >> 24;
    return say(out, "grown");
}

#include "crashes.h"

/* The functions that the descriptor lists: name and whether it is probe_safe. */
#define REST(F) \
    F(count, false) F(slow, false) F(peaked, true) F(output, false) F(answer, false) F(die, false) \
    F(allocate, false) F(threads, false) F(work, true) F(logs, false) F(flood, false) F(attempt, true) \
    F(surroundings, true) F(grow, false) F(crash, false)

#define ENTRY(name, safe) \
    "{\"name\":\"" #name "\",\"input\":null,\"output\":null,\"idempotent\":" #safe ",\"probe_safe\":" #safe ",\"raw\":true}"
#define NEXT(name, safe) "," ENTRY(name, safe)

static fleetswap_status describe(const struct fleetswap_sink *out) {
#ifdef DESCRIPTOR
    return say(out, DESCRIPTOR);
#else
    return say(out, "{\"format\":1,\"name\":\"" NAME "\",\"version\":\"" VERSION "\",\"concurrency\":" CONCURRENCY
                    ",\"functions\":[" ENTRY(echo, true) REST(NEXT)
                    "],\"state\":{\"writes\":[1],\"reads\":[1]},\"background\":false,\"needs\":[],\"config\":null}");
#endif
}

static fleetswap_status create(const struct fleetswap_host *given, struct fleetswap_bytes config,
                               fleetswap_instance *instance, const struct fleetswap_sink *error) {
    ON_CREATE;
    host = given;
    *instance = INSTANCE;
    if (config.len && config.data[0] == '!') {
        say(error, "{\"code\":\"BAD_CONFIG\",\"message\":\"it begins with !\"}");
        return FLEETSWAP_ERROR;
    }
    return FLEETSWAP_OK;
}

static fleetswap_status health(fleetswap_instance instance, const struct fleetswap_sink *detail) {
    (void)instance;
    ON_HEALTH;
    return say(detail, "well");
}

static fleetswap_status call(fleetswap_instance instance, struct fleetswap_bytes name, struct fleetswap_bytes input,
                             uint64_t deadline_ns, const struct fleetswap_sink *out) {
    if (instance != &counter || !deadline_ns) return FLEETSWAP_ILLEGAL;
#define CALL(function, safe) \
    if (name.len == strlen(#function) && !memcmp(name.data, #function, name.len)) return function(input, out);
    CALL(echo, true)
    REST(CALL)
    return FLEETSWAP_UNKNOWN_FUNCTION;
}

static fleetswap_status turn(fleetswap_instance instance, const struct fleetswap_sink *error) {
    (void)instance;
    (void)error;
    return FLEETSWAP_OK;
}

static fleetswap_status activate(fleetswap_instance instance, const struct fleetswap_sink *error) {
    ON_ACTIVATE;
    return turn(instance, error);
}

static fleetswap_status save_state(fleetswap_instance instance, uint32_t version, const struct fleetswap_sink *out) {
    (void)instance;
    return version == 1 ? put(out, state, state_len) : FLEETSWAP_UNSUPPORTED;
}

static fleetswap_status restore_state(fleetswap_instance instance, uint32_t version, struct fleetswap_bytes bytes,
                                      const struct fleetswap_sink *error) {
    (void)instance;
    (void)error;
    if (version != 1) return FLEETSWAP_UNSUPPORTED;
    state = malloc(bytes.len);
    state_len = bytes.len;
    memcpy(state, bytes.data, bytes.len);
    return FLEETSWAP_OK;
}

static void destroy(fleetswap_instance instance) {
    (void)instance;
    ON_DESTROY;
}

static const struct fleetswap_table table = {
    MAJOR, FLEETSWAP_ABI_MINOR, sizeof table, describe, create, health,
    call, activate, turn, save_state, restore_state, destroy,
};

#ifndef NO_ENTRY
const struct fleetswap_table *fleetswap_plugin_v1(void) {
#ifdef NO_TABLE
    return 0;
#else
    return &table;
#endif
}
#endif

__attribute__((constructor)) static void on_load(void) {
    (void)!write(1, "constructor ran\n", 16);
    ON_LOAD;
}
