/*
 * One plugin that does one kind of harm at one moment of its life; what and when is written into the built library.
 *
 * The library is compiled once, and twice more with Rust beside it, for the kinds that panic. A cell of the matrix is a copy of it with two texts replaced by others of the same
 * length: the version, wherever it stands, and the cell, "MOMENT/KIND", behind ZOOCELL:.
 *
 * It is tame wherever it isn't a worker of an agent: whoever publishes it describes it first, and it behaves. What the
 * sandbox refused is said on standard output, a line for each attempt: `zoo: fork EPERM`; what was not refused says
 * DONE in the place of the error.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <locale.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fleetswap_plugin.h"

#define VERSION "1.1000.0"

FLEETSWAP_NOTE("zoo", VERSION);

static volatile const char CELL[64] = "ZOOCELL:never/nothing";
#define CELL_TEXT ((const char *)CELL + 8)

#define FUNCTION(NAME, RAW, SCHEMA)                                                                            \
    "{\"name\":\"" NAME "\",\"input\":" SCHEMA ",\"output\":" SCHEMA ",\"idempotent\":true"                    \
    ",\"probe_safe\":true,\"raw\":" RAW "}"

static const char DESCRIPTOR[] =
    "{\"format\":1,\"name\":\"zoo\",\"version\":\"" VERSION "\",\"concurrency\":1,\"functions\":["
    FUNCTION("echo", "true", "null") "," FUNCTION("ready", "false", "{}")
    "],\"state\":{\"writes\":[1],\"reads\":[1]},\"background\":false,\"needs\":[],\"config\":null}";

static int is_worker; /* of an agent */
static _Atomic int done; /* the harm is done once, so that threads don't multiply with calls */
static int instance_of;

static void nap(long milliseconds) {
    struct timespec time = {milliseconds / 1000, milliseconds % 1000 * 1000000};
    nanosleep(&time, NULL);
}

static void sleep_for_ever(void) {
    for (;;)
        nap(1000000);
}

static void *sleeps(void *unused) {
    sleep_for_ever();
    return unused;
}

static void *spins(void *unused) {
    for (volatile int on = 1; on;) {
    }
    return unused;
}

/* Not for ever: the machine that runs the test has other cells to try. */
#define SPIN_SECONDS 1

static void *spins_a_while(void *unused) {
    for (time_t end = time(NULL) + SPIN_SECONDS; time(NULL) <= end;) {
    }
    sleep_for_ever();
    return unused;
}

static void start(void *(*body)(void *)) {
    pthread_t thread;
    pthread_create(&thread, NULL, body, NULL);
}

/* One line, in one write, so that lines of several threads don't mix. */
static void report(const char *what, long result) {
    char line[128];
    const char *error = errno == EPERM ? "EPERM" : errno == EACCES ? "EACCES" : errno == ENOSYS ? "ENOSYS" : "OTHER";
    int length = snprintf(line, sizeof line, "zoo: %s %s\n", what, result >= 0 ? "DONE" : error);
    if (write(1, line, length) < 0)
        abort();
}

/* Kinds that end the process or stay for ever. */

static void abort_now(void) { abort(); }
static void segfault(void) { *(volatile int *)8 = 1; }
static void illegal(void) { __builtin_trap(); }
static void exit_zero(void) { exit(0); }
static void exit_at_once(void) { _exit(3); }
static void endless_loop(void) { spins(NULL); }

__attribute__((noinline)) static int deeper(volatile char *above) {
    volatile char here[4096];
    here[0] = above[0];
    return here[0] ? 0 : deeper(here) + here[0];
}

static void overflow(void) {
    volatile char here[1] = {0};
    deeper(here);
}

/* The lock of the dynamic loader, which backtraces and thread ends want as well: it is never given back. */
static volatile int is_held;

static int hold(struct dl_phdr_info *info, size_t size, void *data) {
    (void)info, (void)size, (void)data;
    is_held = 1;
    sleep_for_ever();
    return 1;
}

static void *holds(void *unused) {
    dl_iterate_phdr(hold, NULL);
    return unused;
}

static void hold_lock(void) {
    start(holds);
    while (!is_held)
        nap(1);
    holds(NULL);
}

/* Kinds that take what the host has to share. */

static void allocate(void) {
    for (;;) {
        char *piece = malloc(1 << 20);
        if (piece)
            memset(piece, 1, 1 << 20);
    }
}

static void *leaks(void *unused) {
    for (;; nap(1)) {
        char *piece = malloc(1 << 20);
        if (piece)
            memset(piece, 1, 1 << 20);
    }
    return unused;
}

static void leak(void) { start(leaks); }

static void spin_all(void) {
    cpu_set_t set;
    int cores = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    for (; cores > 0; cores--)
        start(spins_a_while);
}

#define THREADS 100000

static void threads(void) {
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 64 * 1024);
    for (int count = 0; count < THREADS;) {
        pthread_t thread;
        if (pthread_create(&thread, &small, sleeps, NULL) == 0)
            count++;
        else
            nap(1);
    }
    sleep_for_ever();
}

static void *writes_lines(void *unused) {
    static const char line[] = "zoo: flood, flood, flood, flood, flood, flood, flood, flood, flood\n";
    for (;;)
        if (write(1, line, sizeof line - 1) < 0)
            return unused;
}

static void flood(void) { start(writes_lines); }

static void outlive(void) { start(sleeps); }

/* Kinds that reach out. Each attempt is bounded, so that not even a broken sandbox lets it hurt this machine. */

#define CHILDREN_MAX 8
#define CHILD_SECONDS 20

static void fork_bomb(void) {
    for (int count = 0; count < CHILDREN_MAX; count++) {
        errno = 0;
        long pid = count % 2 ? fork() : syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
        if (pid == 0) {
            nap(CHILD_SECONDS * 1000);
            _exit(0);
        }
        report("fork", pid);
    }
}

static void exec(void) {
    char *none[] = {NULL};
    report("execve", execve("/bin/true", none, none));
    report("execveat", syscall(SYS_execveat, 4, "", none, none, AT_EMPTY_PATH));
}

static void kill_parent(void) {
    pid_t parent = getppid();
    if (parent <= 1)
        return;
    report("kill", kill(parent, SIGKILL));
    report("tgkill", syscall(SYS_tgkill, parent, parent, SIGKILL));
    siginfo_t info = {.si_code = SI_QUEUE};
    report("sigqueue", syscall(SYS_rt_sigqueueinfo, parent, SIGKILL, &info));
    report("pidfd", syscall(SYS_pidfd_open, parent, 0));
}

static void trace(void) {
    pid_t parent = getppid();
    report("seize", ptrace(PTRACE_SEIZE, parent, NULL, NULL));
    report("traceme", ptrace(PTRACE_TRACEME, 0, NULL, NULL));
    char byte;
    struct iovec ours = {&byte, 1}, theirs = {&instance_of, 1};
    report("readv", process_vm_readv(parent, &ours, 1, &theirs, 1, 0));
    char path[32];
    snprintf(path, sizeof path, "/proc/%d/mem", parent);
    report("mem", open(path, O_RDONLY));
}

static void passwd(void) {
    report("passwd", open("/etc/passwd", O_RDONLY));
    report("shadow", open("/etc/shadow", O_RDONLY));
    report("write", open("/etc/passwd", O_WRONLY));
    report("create", open("/tmp/zoo-was-here", O_CREAT | O_WRONLY, 0600));
}

#define FAMILIES 46

static void sockets(void) {
    static const int types[] = {SOCK_STREAM, SOCK_DGRAM, SOCK_RAW, SOCK_SEQPACKET};
    int pair[2];
    for (int family = 0; family < FAMILIES; family++)
        for (int type = 0; type < 4; type++) {
            long made = socket(family, types[type], 0);
            /* One line for all that were refused in the same way. */
            if (made >= 0 || errno != EPERM || (family == FAMILIES - 1 && type == 3))
                report("socket", made);
        }
    report("socketpair", socketpair(AF_UNIX, SOCK_DGRAM, 0, pair));
    /* One sort of pair may be had (tokio needs it); from its ends no way leads to anybody else. */
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0)
        return;
    const struct sockaddr_un other = {AF_UNIX, "/run/zoo"};
    struct msghdr message = {0};
    report("connect", connect(pair[0], (const struct sockaddr *)&other, sizeof other));
    report("bind", bind(pair[0], (const struct sockaddr *)&other, sizeof other));
    report("sendto", sendto(pair[0], "", 1, 0, (const struct sockaddr *)&other, sizeof other));
    report("sendmsg", sendmsg(pair[0], &message, 0));
    report("recvmsg", recvmsg(pair[0], &message, MSG_DONTWAIT));
}

static void uring(void) {
    char parameters[256] = {0};
    report("setup", syscall(SYS_io_uring_setup, 1, parameters));
    report("enter", syscall(SYS_io_uring_enter, 3, 1, 0, 0, NULL, 0));
    report("register", syscall(SYS_io_uring_register, 3, 0, NULL, 0));
}

static void mask_and_locale(void) {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    for (int number = 1; number < 32; number++)
        signal(number, SIG_IGN);
    setlocale(LC_ALL, "tr_TR.UTF-8");
    uselocale(newlocale(LC_ALL_MASK, "C.UTF-8", NULL));
    tzset();
}

/* Kinds that abuse the way to the host: descriptor 3 carries frames, each behind its length in four bytes. */

static void close_all(void) {
    for (int fd = 0; fd < 1024; fd++)
        close(fd);
}

static void write_all(void) {
    static const char text[] = "the zoo was here\n";
    for (int fd = 0; fd < 64; fd++)
        if (write(fd, text, sizeof text - 1) < 0)
            errno = 0;
}

/* A reply without a body to the request of this number, which must be below 2^21. */
static void forge(unsigned number) {
    const unsigned char frame[] = {0, 0, 0, 4, 0x08, (number & 127) | 128, (number >> 7 & 127) | 128, number >> 14};
    if (write(3, frame, sizeof frame) < 0)
        abort();
}

static void other_request(void) { forge(999999); }

/* The first request of all is `create`. */
static void twice(void) { forge(1); }

static void gibibyte(void) {
    static const unsigned char head[] = {0x40, 0, 0, 0};
    static char zeros[1 << 16];
    if (write(3, head, sizeof head) < 0)
        abort();
    for (size_t left = 1 << 30; left; left -= sizeof zeros)
        if (write(3, zeros, sizeof zeros) < 0)
            return;
}

/* Kinds of another language, linked to this file: a panic that unwinds over the border, or ends the process. */
#ifdef PANICS
void zoo_panic(void);
#else
static void zoo_panic(void) { abort(); }
#endif

static const struct kind {
    const char *name;
    void (*act)(void);
} KINDS[] = {
    {"abort", abort_now},     {"segfault", segfault},       {"illegal", illegal},
    {"exit", exit_zero},      {"_exit", exit_at_once},      {"loop", endless_loop},
    {"sleep", sleep_for_ever}, {"overflow", overflow},      {"allocate", allocate},
    {"leak", leak},           {"spin_all", spin_all},       {"threads", threads},
    {"fork_bomb", fork_bomb}, {"exec", exec},               {"kill_parent", kill_parent},
    {"ptrace", trace},        {"close_all", close_all},     {"write_all", write_all},
    {"flood", flood},         {"mask_and_locale", mask_and_locale}, {"hold_lock", hold_lock},
    {"passwd", passwd},       {"sockets", sockets},         {"io_uring", uring},
    {"other_request", other_request}, {"twice", twice},     {"gibibyte", gibibyte},
    {"outlive", outlive},     {"panic", zoo_panic},         {"panic_abort", zoo_panic},
};

static int is_moment(const char *moment) {
    size_t length = strlen(moment);
    return is_worker && strncmp(CELL_TEXT, moment, length) == 0 && CELL_TEXT[length] == '/';
}

static int is_kind(const char *kind) {
    const char *slash = strchr(CELL_TEXT, '/');
    return slash && strcmp(slash + 1, kind) == 0;
}

/* Does the harm, if this is its moment. */
static void at(const char *moment) {
    if (!is_moment(moment) || done++)
        return;
    /* So early that hardly anybody has called meanwhile: it rests first, as long as it may. */
    if (is_moment("constructor") || is_moment("create") || is_moment("health"))
        nap(1000);
    for (size_t index = 0; index < sizeof KINDS / sizeof *KINDS; index++)
        if (is_kind(KINDS[index].name))
            KINDS[index].act();
}

/* Writes far more than any sink takes, and doesn't listen to it. */
static fleetswap_status pour(const struct fleetswap_sink *sink) {
    static uint8_t zeros[1 << 20];
    struct fleetswap_bytes piece = {zeros, sizeof zeros};
    for (int count = 0; count < 1024; count++)
        sink->write(sink->context, piece);
    return FLEETSWAP_OK;
}

static int pours(const char *moment) { return is_moment(moment) && is_kind("pour"); }

/* The dynamic loader hands every constructor the arguments of the process. A worker's are its name, a mark, its
 * agent, the plugin and the version, which is empty where a publisher only describes it. */
__attribute__((constructor)) static void on_load(int count, char **arguments) {
    is_worker = count > 4 && strcmp(arguments[0], "fleetswap-worker") == 0 && arguments[4][0] != 0;
    at("constructor");
}

static fleetswap_status describe(const struct fleetswap_sink *out) {
    if (is_moment("constructor") && is_kind("lie_version")) {
        char lie[sizeof DESCRIPTOR];
        memcpy(lie, DESCRIPTOR, sizeof lie);
        strstr(lie, "\"version\":\"")[11] = '9';
        return fleetswap_write(out, lie);
    }
    if (is_moment("constructor") && is_kind("lie_descriptor")) {
        char lie[sizeof DESCRIPTOR];
        memcpy(lie, DESCRIPTOR, sizeof lie);
        memcpy(strstr(lie, "ready"), "relay", 5);
        return fleetswap_write(out, lie);
    }
    return fleetswap_write(out, DESCRIPTOR);
}

static fleetswap_status create(const struct fleetswap_host *host, struct fleetswap_bytes config,
                               fleetswap_instance *instance, const struct fleetswap_sink *error) {
    (void)host, (void)config;
    *instance = &instance_of;
    at("create");
    return pours("create") ? pour(error) : FLEETSWAP_OK;
}

static fleetswap_status health(fleetswap_instance instance, const struct fleetswap_sink *detail) {
    (void)instance;
    at("health");
    return pours("health") ? pour(detail) : FLEETSWAP_OK;
}

/* `echo` gives its input back, with the version that did so. */
static fleetswap_status call(fleetswap_instance instance, struct fleetswap_bytes function,
                             struct fleetswap_bytes input, uint64_t deadline_ns,
                             const struct fleetswap_sink *out) {
    (void)instance, (void)deadline_ns;
    if (fleetswap_is(function, "ready"))
        return fleetswap_write(out, "true");
    at("call");
    if (pours("call"))
        return pour(out);
    fleetswap_write(out, "{\"version\":\"" VERSION "\",\"input\":");
    out->write(out->context, input);
    return fleetswap_write(out, "}");
}

static fleetswap_status activate(fleetswap_instance instance, const struct fleetswap_sink *error) {
    (void)instance;
    at("activate");
    return pours("activate") ? pour(error) : FLEETSWAP_OK;
}

static fleetswap_status deactivate(fleetswap_instance instance, const struct fleetswap_sink *error) {
    (void)instance, (void)error;
    return FLEETSWAP_OK;
}

static fleetswap_status save_state(fleetswap_instance instance, uint32_t version, const struct fleetswap_sink *out) {
    (void)instance, (void)version;
    at("save_state");
    return pours("save_state") ? pour(out) : fleetswap_write(out, "state");
}

static fleetswap_status restore_state(fleetswap_instance instance, uint32_t version, struct fleetswap_bytes state,
                                      const struct fleetswap_sink *error) {
    (void)instance, (void)version, (void)state;
    at("restore_state");
    return pours("restore_state") ? pour(error) : FLEETSWAP_OK;
}

static void destroy(fleetswap_instance instance) {
    (void)instance;
    at("destroy");
}

FLEETSWAP_EXPORT const struct fleetswap_table *fleetswap_plugin_v1(void) {
    static struct fleetswap_table table = {
        FLEETSWAP_ABI_MAJOR, FLEETSWAP_ABI_MINOR, sizeof table,  describe,     create,        health,  call,
        activate,            deactivate,          save_state,    restore_state, destroy,
    };
    if (is_moment("constructor") && is_kind("lie_abi"))
        table.abi_major = 9;
    return &table;
}
