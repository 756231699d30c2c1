/* A file layer for LD_PRELOAD that can fail: it counts the calls that change files below a folder, and at one of them
 * ends the process or begins to refuse. Calls that libc makes by itself (stdio, mmap) are not seen. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { COUNT, KILL, TEAR, POWER, FULL, READ_ONLY, MAX_UNSYNCED = 256 };
static char root[PATH_MAX];
static long seen, limit;
static int fault;
static struct { int fd; ino_t inode; off_t size; } unsynced[MAX_UNSYNCED]; /* as large as they were when last synced */

/* Watch a folder from now on; the fault comes at the given call, from 1. An empty folder ends it. */
void crash_arm(const char *folder, int kind, long call) {
    snprintf(root, sizeof root, "%s", folder);
    seen = 0, limit = call, fault = kind;
}

long crash_seen(void) { return seen; }

static int is_watched(int directory, const char *path) {
    char link[64], whole[2 * PATH_MAX] = "";
    if (!*root) return 0;
    if (!path || path[0] != '/') {
        if (directory == AT_FDCWD) snprintf(link, sizeof link, "/proc/self/cwd");
        else snprintf(link, sizeof link, "/proc/self/fd/%d", directory);
        ssize_t length = readlink(link, whole, PATH_MAX - 1);
        if (length < 0) return 0;
        whole[length] = 0;
        if (path) snprintf(whole + length, PATH_MAX, "/%s", path);
    } else snprintf(whole, sizeof whole, "%s", path);
    return strncmp(whole, root, strlen(root)) == 0;
}

static int find(ino_t inode) {
    int at = 0;
    while (at < MAX_UNSYNCED && unsynced[at].inode != inode) at++;
    return at;
}

/* Remember a file that is written, or forget it when it is synced. */
static void note(int fd, int is_synced) {
    struct stat is;
    if (fault != POWER || fstat(fd, &is) || !S_ISREG(is.st_mode)) return;
    int at = find(is.st_ino);
    if (is_synced && at < MAX_UNSYNCED) {
        close(unsynced[at].fd);
        unsynced[at].inode = 0;
    } else if (!is_synced && at == MAX_UNSYNCED && (at = find(0)) < MAX_UNSYNCED) {
        unsynced[at].fd = dup(fd), unsynced[at].inode = is.st_ino, unsynced[at].size = is.st_size;
    }
}

/* Lose what was appended to files after they were synced. */
static void lose_power(void) {
    *root = 0;
    for (int at = 0; at < MAX_UNSYNCED; at++)
        if (unsynced[at].inode && ftruncate(unsynced[at].fd, unsynced[at].size)) _exit(1);
    _exit(137);
}

/* Count a call; return the errno that refuses it, 0 to let it pass, or -1 to tear it. */
static int meet(int directory, const char *path, int needs_room) {
    int before = errno, answer = 0;
    if (is_watched(directory, path) && ++seen >= limit) {
        if (fault == KILL) _exit(137);
        if (fault == POWER) lose_power();
        if (fault == TEAR && seen == limit) answer = -1;
        if (fault == FULL && needs_room) answer = ENOSPC;
        if (fault == READ_ONLY) answer = EROFS;
    }
    errno = before;
    return answer;
}

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
/* A torn call has happened, and the process is gone before it returns. */
#define CALL(result, answer, call) \
    if (answer > 0) { errno = answer; return -1; } \
    result done = call; \
    if (answer < 0) _exit(137); \
    return done

#define WRITES(name, args, values, half, descriptor) \
    ssize_t name args { \
        REAL(name); \
        int answer = meet(descriptor, NULL, 1); \
        if (answer < 0) { half; _exit(137); } \
        if (is_watched(descriptor, NULL)) note(descriptor, 0); \
        CALL(ssize_t, answer, real values); \
    }
WRITES(write, (int fd, const void *data, size_t size), (fd, data, size), real(fd, data, size / 2), fd)
WRITES(pwrite, (int fd, const void *data, size_t size, off_t at), (fd, data, size, at), real(fd, data, size / 2, at), fd)
WRITES(pwrite64, (int fd, const void *data, size_t size, off64_t at), (fd, data, size, at),
       real(fd, data, size / 2, at), fd)
WRITES(writev, (int fd, const struct iovec *parts, int count), (fd, parts, count), real(fd, parts, 1), fd)
WRITES(copy_file_range, (int in, off64_t *from, int fd, off64_t *to, size_t size, unsigned flags),
       (in, from, fd, to, size, flags), real(in, from, fd, to, size / 2, flags), fd)
WRITES(sendfile, (int fd, int in, off_t *from, size_t size), (fd, in, from, size), real(fd, in, from, size / 2), fd)
WRITES(sendfile64, (int fd, int in, off64_t *from, size_t size), (fd, in, from, size),
       real(fd, in, from, size / 2), fd)

#define CHANGES(name, args, values, directory, path, room) \
    int name args { \
        REAL(name); \
        int answer = meet(directory, path, room); \
        CALL(int, answer, real values); \
    }
#define SYNCS(name) \
    int name(int fd) { \
        REAL(name); \
        int answer = meet(fd, NULL, 1); \
        if (!answer) note(fd, 1); \
        CALL(int, answer, real(fd)); \
    }
SYNCS(fsync)
SYNCS(fdatasync)
CHANGES(ftruncate, (int fd, off_t size), (fd, size), fd, NULL, 0)
CHANGES(ftruncate64, (int fd, off64_t size), (fd, size), fd, NULL, 0)
CHANGES(truncate, (const char *path, off_t size), (path, size), AT_FDCWD, path, 0)
CHANGES(truncate64, (const char *path, off64_t size), (path, size), AT_FDCWD, path, 0)
CHANGES(rename, (const char *from, const char *to), (from, to), AT_FDCWD, to, 0)
CHANGES(renameat, (int d, const char *from, int e, const char *to), (d, from, e, to), e, to, 0)
CHANGES(renameat2, (int d, const char *from, int e, const char *to, unsigned flags), (d, from, e, to, flags), e, to, 0)
CHANGES(link, (const char *from, const char *to), (from, to), AT_FDCWD, to, 1)
CHANGES(linkat, (int d, const char *from, int e, const char *to, int flags), (d, from, e, to, flags), e, to, 1)
CHANGES(symlink, (const char *from, const char *to), (from, to), AT_FDCWD, to, 1)
CHANGES(unlink, (const char *path), (path), AT_FDCWD, path, 0)
CHANGES(unlinkat, (int d, const char *path, int flags), (d, path, flags), d, path, 0)
CHANGES(mkdir, (const char *path, mode_t mode), (path, mode), AT_FDCWD, path, 1)
CHANGES(mkdirat, (int d, const char *path, mode_t mode), (d, path, mode), d, path, 1)
CHANGES(rmdir, (const char *path), (path), AT_FDCWD, path, 0)

#define OPENS(name, args, last, directory) \
    int name args { \
        REAL(name); \
        mode_t mode = 0; \
        if (flags & (O_CREAT | O_TMPFILE)) { \
            va_list rest; \
            va_start(rest, flags); \
            mode = va_arg(rest, mode_t); \
            va_end(rest); \
        } \
        int changes = flags & (O_CREAT | O_TRUNC); \
        if (changes && (flags & O_CREAT) && !(flags & O_TRUNC) && faccessat(directory, path, F_OK, 0) == 0) \
            changes = 0; \
        int answer = changes ? meet(directory, path, 1) : 0; \
        CALL(int, answer, real last); \
    }
OPENS(open, (const char *path, int flags, ...), (path, flags, mode), AT_FDCWD)
OPENS(open64, (const char *path, int flags, ...), (path, flags, mode), AT_FDCWD)
OPENS(openat, (int d, const char *path, int flags, ...), (d, path, flags, mode), d)
OPENS(openat64, (int d, const char *path, int flags, ...), (d, path, flags, mode), d)
