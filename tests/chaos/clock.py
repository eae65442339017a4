"""A clock that jumps: a small library, loaded before all others, that adds seconds to the time of day.

Of every process of a command, Ray's services among them, from the moment on at which a file is there. Clocks that only
count (`time.monotonic`) go on as they are, as they do when a machine's clock is set. Waits until a time of day, which
C++ libraries make of a wait for some seconds, are handed to the system by its own clock: it knows nothing of the jump,
and would end them at once for ever (an hour back), or a day late.
"""

import os
import shutil
import subprocess
from pathlib import Path

from tests.chaos.works import Command

_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <linux/futex.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static long jump(void) {
    const char *file = getenv("QACLIMS_CHAOS_CLOCK"), *by = getenv("QACLIMS_CHAOS_JUMP_S");
    return file && by && access(file, F_OK) == 0 ? atol(by) : 0;
}
int clock_gettime(clockid_t id, struct timespec *at) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int found = real(id, at);
    if (found == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) at->tv_sec += jump();
    return found;
}
int gettimeofday(struct timeval *at, void *zone) {
    struct timespec now;
    int found = clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return found;
}
time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}
static struct timespec unjumped(const struct timespec *until) {
    struct timespec own = *until;
    own.tv_sec -= jump();
    return own;
}
int pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex, const struct timespec *until) {
    static int (*real)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "pthread_cond_timedwait");
    struct timespec own = unjumped(until);
    int is_monotonic = cond->__data.__wrefs & 2;  /* glibc's mark of pthread_condattr_setclock */
    return real(cond, mutex, is_monotonic ? until : &own);
}
int sem_timedwait(sem_t *sem, const struct timespec *until) {
    static int (*real)(sem_t *, const struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "sem_timedwait");
    struct timespec own = unjumped(until);
    return real(sem, &own);
}
long syscall(long number, ...) {
    static long (*real)(long, ...);
    if (!real) real = dlsym(RTLD_NEXT, "syscall");
    long got[6];
    va_list given;
    va_start(given, number);
    for (int at = 0; at < 6; at++) got[at] = va_arg(given, long);
    va_end(given);
    struct timespec own;
    if (number == SYS_futex && (got[1] & FUTEX_CLOCK_REALTIME) && got[3]) {
        own = unjumped((const struct timespec *)got[3]);
        got[3] = (long)&own;
    }
    return real(number, got[0], got[1], got[2], got[3], got[4], got[5]);
}
"""
_FILE = "QACLIMS_CHAOS_CLOCK"
JUMPS = {"a clock that jumps an hour back": -3600, "a clock that jumps a day ahead": 86400}
"""Name of the strike -> seconds."""


def can_jump() -> bool:
    """Whether a C compiler is there to build the library with."""
    return shutil.which("cc") is not None


def clock_environment(strike: str, place: Path) -> dict[str, str]:
    """Return the environment of a command whose clock will jump; the library is built in a folder.

    Args:
        strike: one of `JUMPS`; for any other nothing is returned.
        place: the folder.
    """
    if strike not in JUMPS:
        return {}
    library = place / "clock.so"
    command = ["cc", "-shared", "-fPIC", "-O1", "-x", "c", "-", "-o", str(library), "-ldl"]
    subprocess.run(command, input=_SOURCE, text=True, check=True, capture_output=True)
    own = {_FILE: str(place / "jumped"), "QACLIMS_CHAOS_JUMP_S": str(JUMPS[strike])}
    return {**own, "LD_PRELOAD": " ".join([str(library), os.environ.get("LD_PRELOAD", "")]).strip()}


def let_jump(command: Command) -> None:
    """Let the clock of a command jump, and of all that it has started."""
    Path(command.environment[_FILE]).touch()
