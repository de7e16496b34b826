/* Counts what a process does to files below a folder, and stops it or fails at a given place.
 *
 * Preloaded into the campaign's server; a forked child calls fault_arm. Operations: opening for
 * writing, writing, flushing, closing, renaming, removing, syncing, making and removing folders.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static char folder[4096];
static long number, writes, at = -1;
static int failure; /* 0: kill; else this errno, from there on as long as it lasts */
static long lasts;
static int writes_only;

void fault_arm(const char *path, long where, int how, long times, int writing) {
    strncpy(folder, path, sizeof folder - 1);
    number = writes = 0;
    at = where;
    failure = how;
    lasts = times;
    writes_only = writing;
}

long fault_count(void) { return number; }
long fault_writes(void) { return writes; }

static int below(const char *path) {
    return folder[0] && path && strncmp(path, folder, strlen(folder)) == 0;
}

static int below_fd(int fd) {
    if (!folder[0] || fd < 0) return 0;
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return below(path);
}

/* 1 if the operation is to fail. */
static int step(int writing) {
    writes += writing;
    if (writes_only && !writing) return 0;
    long mine = number++;
    if (at < 0 || mine < at) return 0;
    if (!failure) kill(getpid(), SIGKILL);
    if (mine >= at + lasts) return 0;
    errno = failure;
    return 1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int open(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    if ((flags & O_ACCMODE) != O_RDONLY && below(path) && step(1)) return -1;
    return REAL(open)(path, flags, mode);
}
int open64(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    if ((flags & O_ACCMODE) != O_RDONLY && below(path) && step(1)) return -1;
    return REAL(open64)(path, flags, mode);
}
FILE *fopen(const char *path, const char *mode) {
    if (mode[0] != 'r' && below(path) && step(1)) return NULL;
    return REAL(fopen)(path, mode);
}
FILE *fopen64(const char *path, const char *mode) {
    if (mode[0] != 'r' && below(path) && step(1)) return NULL;
    return REAL(fopen64)(path, mode);
}
ssize_t write(int fd, const void *data, size_t size) {
    if (fd > 2 && below_fd(fd) && step(1)) return -1;
    return REAL(write)(fd, data, size);
}
size_t fwrite(const void *data, size_t size, size_t count, FILE *file) {
    if (file != stdout && file != stderr && below_fd(fileno(file)) && step(1)) return 0;
    return REAL(fwrite)(data, size, count, file);
}
int fflush(FILE *file) {
    if (file && file != stdout && file != stderr && below_fd(fileno(file)) && step(1)) return EOF;
    return REAL(fflush)(file);
}
int fclose(FILE *file) {
    int fails = file && below_fd(fileno(file)) && step(1);
    int wrong = errno, result = REAL(fclose)(file);
    errno = fails ? wrong : errno;
    return fails ? EOF : result;
}
int fsync(int fd) {
    if (below_fd(fd) && step(1)) return -1;
    return REAL(fsync)(fd);
}
int rename(const char *from, const char *to) {
    if (below(to) && step(0)) return -1;
    return REAL(rename)(from, to);
}
int unlink(const char *path) {
    if (below(path) && step(0)) return -1;
    return REAL(unlink)(path);
}
int mkdir(const char *path, mode_t mode) {
    if (below(path) && step(1)) return -1;
    return REAL(mkdir)(path, mode);
}
int rmdir(const char *path) {
    if (below(path) && step(0)) return -1;
    return REAL(rmdir)(path);
}
