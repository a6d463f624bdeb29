/* Lets the n-th call of a kind fail in a process that loads this before libc (LD_PRELOAD).
 *
 * Counted over all threads are calls on what lies below one directory alone, so that n = 1, 2, 3, ...
 * until a process is untouched tries every one of them.
 *
 *   EVERWHEN_FAULT_DIR    the directory, an absolute path
 *   EVERWHEN_FAULT        KIND:FAULT:N, or KIND:FAULT:N+ for the n-th and all later ones
 *   EVERWHEN_FAULT_MARK   a file that is made when a call was made to fail
 *
 * KIND: open, read, write, sync, rename, truncate, allocate, unlink, link or mkdir. FAULT: a number
 * of errno.h; `short` for half of the bytes, really read or written; `torn` for half of the
 * bytes and ENOSPC from the next write to the same file, as on a disk that is full.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

enum { PASS = 0, SHORT = -1, TORN = -2 };
enum { FILES = 1 << 16 };

static const char *directory, *mark;
static char kind[16];
static int fault;
static long first;
static int and_later;
static atomic_long calls;
static atomic_int torn = -1;
static atomic_char is_below[FILES];

__attribute__((constructor)) static void start(void) {
    char how[16], plus = 0;
    const char *asked = getenv("EVERWHEN_FAULT");
    directory = getenv("EVERWHEN_FAULT_DIR");
    mark = getenv("EVERWHEN_FAULT_MARK");
    if (!asked || !directory || !mark) return;
    if (sscanf(asked, "%15[a-z]:%15[a-z0-9]:%ld%c", kind, how, &first, &plus) < 3) {
        static const char why[] = "EVERWHEN_FAULT is not KIND:FAULT:N\n";
        syscall(SYS_write, 2, why, sizeof why - 1);
        _exit(2);
    }
    fault = !strcmp(how, "short") ? SHORT : !strcmp(how, "torn") ? TORN : atoi(how);
    and_later = plus == '+';
}

static int below(const char *path) {
    size_t length = directory ? strlen(directory) : 0;
    return length && path && !strncmp(path, directory, length);
}

static int ours(int fd) { return fd >= 0 && fd < FILES && is_below[fd]; }

/* Answers what becomes of a call of a kind: PASS, or a fault. */
static int judge(const char *called) {
    if (!fault || strcmp(called, kind)) return PASS;
    long n = atomic_fetch_add(&calls, 1) + 1;
    if (n != first && !(and_later && n > first)) return PASS;
    int fd = (int)syscall(SYS_openat, AT_FDCWD, mark, O_CREAT | O_WRONLY, 0600);
    if (fd >= 0) syscall(SYS_close, fd);
    return fault;
}

static int fails(const char *called, int is_ours) {
    int verdict = is_ours ? judge(called) : PASS;
    if (verdict > PASS) errno = verdict;
    return verdict > PASS;
}

#define NEXT(name, result, ...) \
    static result (*next)(__VA_ARGS__); \
    if (!next) next = (result (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

#define OPENS(NAME) \
    int NAME(const char *path, int flags, ...) { \
        va_list rest; va_start(rest, flags); mode_t mode = va_arg(rest, mode_t); va_end(rest); \
        NEXT(#NAME, int, const char *, int, ...); \
        if (fails("open", below(path))) return -1; \
        int fd = next(path, flags, mode); \
        if (fd >= 0 && fd < FILES) is_below[fd] = (char)below(path); \
        return fd; \
    }
OPENS(open)
OPENS(open64)

#define OPENS_AT(NAME) \
    int NAME(int at, const char *path, int flags, ...) { \
        va_list rest; va_start(rest, flags); mode_t mode = va_arg(rest, mode_t); va_end(rest); \
        NEXT(#NAME, int, int, const char *, int, ...); \
        int is_ours = below(path) || (path[0] != '/' && ours(at)); \
        if (fails("open", is_ours)) return -1; \
        int fd = next(at, path, flags, mode); \
        if (fd >= 0 && fd < FILES) is_below[fd] = (char)is_ours; \
        return fd; \
    }
OPENS_AT(openat)
OPENS_AT(openat64)

int close(int fd) {
    NEXT("close", int, int);
    if (fd >= 0 && fd < FILES) is_below[fd] = 0;
    if (torn == fd) torn = -1;
    return next(fd);
}

/* Cuts a count of bytes in half, or answers -1 with errno set. */
static ssize_t cut(const char *called, int fd, size_t count) {
    if (!ours(fd)) return (ssize_t)count;
    if (torn == fd && !strcmp(called, "write")) { errno = ENOSPC; return -1; }
    int verdict = judge(called);
    if (verdict > PASS) { errno = verdict; return -1; }
    if (verdict == PASS || count < 2) return (ssize_t)count;
    if (verdict == TORN) torn = fd;
    return (ssize_t)(count / 2);
}

#define MOVES(NAME, CALLED, BUFFER) \
    ssize_t NAME(int fd, BUFFER bytes, size_t count) { \
        NEXT(#NAME, ssize_t, int, BUFFER, size_t); \
        ssize_t left = cut(CALLED, fd, count); \
        return left < 0 ? -1 : next(fd, bytes, (size_t)left); \
    }
MOVES(read, "read", void *)
MOVES(write, "write", const void *)

#define MOVES_AT(NAME, CALLED, BUFFER) \
    ssize_t NAME(int fd, BUFFER bytes, size_t count, off64_t at) { \
        NEXT(#NAME, ssize_t, int, BUFFER, size_t, off64_t); \
        ssize_t left = cut(CALLED, fd, count); \
        return left < 0 ? -1 : next(fd, bytes, (size_t)left, at); \
    }
MOVES_AT(pread, "read", void *)
MOVES_AT(pread64, "read", void *)
MOVES_AT(pwrite, "write", const void *)
MOVES_AT(pwrite64, "write", const void *)

#define SYNCS(NAME) \
    int NAME(int fd) { \
        NEXT(#NAME, int, int); \
        return fails("sync", ours(fd)) ? -1 : next(fd); \
    }
SYNCS(fsync)
SYNCS(fdatasync)

#define TRUNCATES(NAME) \
    int NAME(int fd, off64_t length) { \
        NEXT(#NAME, int, int, off64_t); \
        return fails("truncate", ours(fd)) ? -1 : next(fd, length); \
    }
TRUNCATES(ftruncate)
TRUNCATES(ftruncate64)

#define ALLOCATES(NAME) \
    int NAME(int fd, int how, off64_t at, off64_t length) { \
        NEXT(#NAME, int, int, int, off64_t, off64_t); \
        return fails("allocate", ours(fd)) ? -1 : next(fd, how, at, length); \
    }
ALLOCATES(fallocate)
ALLOCATES(fallocate64)

int rename(const char *from, const char *to) {
    NEXT("rename", int, const char *, const char *);
    return fails("rename", below(from)) ? -1 : next(from, to);
}

int unlink(const char *path) {
    NEXT("unlink", int, const char *);
    return fails("unlink", below(path)) ? -1 : next(path);
}

int unlinkat(int at, const char *path, int flags) {
    NEXT("unlinkat", int, int, const char *, int);
    return fails("unlink", below(path) || ours(at)) ? -1 : next(at, path, flags);
}

int link(const char *from, const char *to) {
    NEXT("link", int, const char *, const char *);
    return fails("link", below(from)) ? -1 : next(from, to);
}

int linkat(int of, const char *from, int at, const char *to, int flags) {
    NEXT("linkat", int, int, const char *, int, const char *, int);
    return fails("link", below(from)) ? -1 : next(of, from, at, to, flags);
}

int mkdir(const char *path, mode_t mode) {
    NEXT("mkdir", int, const char *, mode_t);
    return fails("mkdir", below(path)) ? -1 : next(path, mode);
}
