/* The specimen's ways to crash. Part of specimen.c. */
/* Each in a function of its own, so that a backtrace can name it. */
#define OWN __attribute__((noinline, noclone))
static volatile long zero, one = 1;

OWN int touch_nothing(void) {
    *(volatile int *)16 = 1;
    return 1;
}

OWN long divide(void) {
    return one / zero;
}

OWN int call_nothing(void) {
    int (*volatile nothing)(void) = 0;
    return nothing() + 1;
}

OWN int give_up(void) {
    abort();
}

OWN int raise_it(int signal) {
    return raise(signal) + 1;
}

static void *crash_there(void *overflows) {
    if (overflows) overflow((char[]){0});
    touch_nothing();
    return 0;
}

OWN int crash_in_thread(void *overflows) {
    pthread_t thread;
    return pthread_create(&thread, 0, crash_there, overflows) + pthread_join(thread, 0);
}

/* Two threads at once; whichever is first, both are dead. */
OWN int crash_twice(void) {
    pthread_t threads[8];
    for (int n = 0; n < 8; n++) pthread_create(&threads[n], 0, crash_there, 0);
    for (int n = 0; n < 8; n++) pthread_join(threads[n], 0);
    return 1;
}

static void own_handler(int signal) {
    _exit(signal == SIGSEGV ? 42 : 43);
}

OWN int handle_it_myself(void) {
    signal(SIGSEGV, own_handler);
    return touch_nothing();
}

/* The stack pointer leads nowhere, so that the stack can't be walked. */
OWN int lose_the_stack(void) {
#ifdef __x86_64__
    __asm__ volatile("mov $4096, %rsp; ud2");
#endif
    return 1;
}

/* Says what a crash would say, and lives on or ends in order. */
OWN int lie(const char *end) {
    static const char record[] = "\2crash 11 1 0x7 1 liar\n\2frames lie+0x1\n";
    (void)!write(2, record, sizeof record - 1);
    if (*end) exit(0);
    return 1;
}

/* A little more than what is read in a second, so that the rest is in the pipe when the worker dies. */
OWN int flood_and_fall(void) {
    char line[4096];
    memset(line, 'x', sizeof line);
    line[sizeof line - 1] = '\n';
    for (int n = 0; n < 1024 + 4; n++) (void)!write(1, line, sizeof line);
    return touch_nothing() + 1;
}

/* Bytes of the stack that a signal handler has here. */
OWN long room(void) {
    stack_t stack = {0};
    sigaltstack(0, &stack);
    return stack.ss_flags & SS_DISABLE ? 0 : stack.ss_size;
}

OWN fleetswap_status crash(struct fleetswap_bytes input, const struct fleetswap_sink *out) {
    char what[32] = {0};
    memcpy(what, input.data, input.len < 31 ? input.len : 31);
#define CRASH(name, how) if (!strcmp(what, name) && how) return say(out, "alive");
    CRASH("segv", touch_nothing())
    CRASH("fpe", divide())
    CRASH("null call", call_nothing())
    CRASH("abort", give_up())
    CRASH("ill", (__builtin_trap(), 1))
    CRASH("bus", raise_it(SIGBUS))
    CRASH("trap", raise_it(SIGTRAP))
    CRASH("sys", raise_it(SIGSYS))
    CRASH("overflow", overflow((char[]){0}))
    CRASH("thread", crash_in_thread(0))
    CRASH("thread overflow", crash_in_thread(what))
    CRASH("twice", crash_twice())
    CRASH("own handler", handle_it_myself())
    CRASH("lost stack", lose_the_stack())
    CRASH("lie", lie(""))
    CRASH("lie and exit", lie("x"))
    CRASH("flood", flood_and_fall())
    CRASH("room", snprintf(what, sizeof what, "%ld", room()) < 0)
    return say(out, what);
}
