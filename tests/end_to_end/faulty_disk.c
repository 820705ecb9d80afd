/* Makes chosen disk calls on a ledger's files fail; see test_ledger_faults.py. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

enum { WRITE = 1, SYNC = 2 };
static int call_armed, error_armed, countdown, stays, hits;

void faulty_arm(int call, int error, int after, int sticky) {
    call_armed = call; error_armed = error; countdown = after; stays = sticky; hits = 0;
}
int faulty_hits(void) { return hits; }

static int fails(int call, int fd) {
    char link[64], path[4096];
    if (call != call_armed) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size < 0) return 0;
    path[size] = 0;
    if (!strstr(path, "ledger.db")) return 0;
    if (countdown > 1) { countdown--; return 0; }
    if (countdown < 1 && !stays) return 0;
    countdown = 0; hits++; errno = error_armed;
    return 1;
}

#define REAL(type, name, ...) ((type (*)(__VA_ARGS__)) dlsym(RTLD_NEXT, name))
ssize_t write(int fd, const void *data, size_t n) {
    if (fails(WRITE, fd)) return -1;
    return REAL(ssize_t, "write", int, const void *, size_t)(fd, data, n);
}
ssize_t pwrite(int fd, const void *data, size_t n, off_t at) {
    if (fails(WRITE, fd)) return -1;
    return REAL(ssize_t, "pwrite", int, const void *, size_t, off_t)(fd, data, n, at);
}
ssize_t pwrite64(int fd, const void *data, size_t n, off64_t at) {
    if (fails(WRITE, fd)) return -1;
    return REAL(ssize_t, "pwrite64", int, const void *, size_t, off64_t)(fd, data, n, at);
}
int fsync(int fd) {
    if (fails(SYNC, fd)) return -1;
    return REAL(int, "fsync", int)(fd);
}
int fdatasync(int fd) {
    if (fails(SYNC, fd)) return -1;
    return REAL(int, "fdatasync", int)(fd);
}
