/* Calls of a process on files below one folder, counted; from the n-th on, one or all fail as on a full or a failing disk.

   Loaded with LD_PRELOAD. `faults_arm(folder, number, error, forever)` starts to count, `faults_count()` says how many calls there were,
   `faults_hit()` how many failed. Reading is left alone: what a disk cannot read is found by checksums. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static char root[PATH_MAX];
static size_t root_length;
static atomic_long count, hits, number;
static int error_number, is_forever;

void faults_arm(const char *folder, long first, int error, int forever) {
    error_number = error;
    is_forever = forever;
    atomic_store(&count, 0);
    atomic_store(&hits, 0);
    atomic_store(&number, first);
    root_length = strlen(folder);
    memcpy(root, folder, root_length + 1);
}
long faults_count(void) { return atomic_load(&count); }
long faults_hit(void) { return atomic_load(&hits); }

static int fails_path(const char *path) {
    if (!root_length || !path || strncmp(path, root, root_length))
        return 0;
    long at = atomic_fetch_add(&count, 1) + 1;
    if (at < atomic_load(&number) || (at > atomic_load(&number) && !is_forever))
        return 0;
    atomic_fetch_add(&hits, 1);
    errno = error_number;
    return 1;
}

static int fails_file(int file) {
    if (!root_length)
        return 0;
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size <= 0)
        return 0;
    path[size] = 0;
    return fails_path(path);
}

#define NEXT(name) \
    static __typeof__(name) *next; \
    if (!next) next = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

ssize_t write(int file, const void *bytes, size_t size) { NEXT(write); return fails_file(file) ? -1 : next(file, bytes, size); }
ssize_t writev(int file, const struct iovec *parts, int size) { NEXT(writev); return fails_file(file) ? -1 : next(file, parts, size); }
ssize_t pwrite(int file, const void *bytes, size_t size, off_t at) { NEXT(pwrite); return fails_file(file) ? -1 : next(file, bytes, size, at); }
ssize_t pwrite64(int file, const void *bytes, size_t size, off64_t at) { NEXT(pwrite64); return fails_file(file) ? -1 : next(file, bytes, size, at); }
int fsync(int file) { NEXT(fsync); return fails_file(file) ? -1 : next(file); }
int fdatasync(int file) { NEXT(fdatasync); return fails_file(file) ? -1 : next(file); }
int ftruncate(int file, off_t size) { NEXT(ftruncate); return fails_file(file) ? -1 : next(file, size); }
int ftruncate64(int file, off64_t size) { NEXT(ftruncate64); return fails_file(file) ? -1 : next(file, size); }
int mkdir(const char *path, mode_t mode) { NEXT(mkdir); return fails_path(path) ? -1 : next(path, mode); }
int rename(const char *from, const char *to) { NEXT(rename); return fails_path(to) ? -1 : next(from, to); }
int link(const char *from, const char *to) { NEXT(link); return fails_path(to) ? -1 : next(from, to); }
int linkat(int a, const char *from, int b, const char *to, int flags) { NEXT(linkat); return fails_path(to) ? -1 : next(a, from, b, to, flags); }

#define OPENS(name) \
    int name(const char *path, int flags, ...) { \
        NEXT(name); \
        va_list rest; \
        va_start(rest, flags); \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest); \
        return flags & O_CREAT && fails_path(path) ? -1 : next(path, flags, mode); \
    }
OPENS(open)
OPENS(open64)
