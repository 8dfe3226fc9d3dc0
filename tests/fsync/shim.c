/* Preloaded into a broker: lets a test fail or hold its fsyncs, hold its reads, and see the order of
 * names and syncs. RIVERRUN_SHIM_CONTROL names a file whose first byte is read at every such call:
 *   p  pass          f  fail every one with EIO
 *   b  block until it is another byte
 *   l  fail those of files that end in .log
 *   c  hold every pread of files that end in .log until it is another byte
 * RIVERRUN_SHIM_LOG names a file that gets a line for every file or directory created, name changed
 * and sync. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int (*real_open)(const char *, int, ...);
static int (*real_fdatasync)(int);
static int (*real_fsync)(int);
static int (*real_rename)(const char *, const char *);
static int (*real_mkdir)(const char *, mode_t);
static ssize_t (*real_pread)(int, void *, size_t, off64_t);

__attribute__((constructor)) static void start(void) {
    real_open = dlsym(RTLD_NEXT, "open64");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_rename = dlsym(RTLD_NEXT, "rename");
    real_mkdir = dlsym(RTLD_NEXT, "mkdir");
    real_pread = dlsym(RTLD_NEXT, "pread64");
}

static void say(const char *what, const char *path) {
    const char *log = getenv("RIVERRUN_SHIM_LOG");
    char line[8192];
    int length = snprintf(line, sizeof line, "%s %s\n", what, path);
    int fd = log ? real_open(log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600) : -1;
    if (fd < 0) return;
    if (write(fd, line, (size_t)length) < 0) abort();
    close(fd);
}

static char mode(void) {
    const char *control = getenv("RIVERRUN_SHIM_CONTROL");
    char byte = 'p';
    int fd = control ? real_open(control, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0) return byte;
    if (read(fd, &byte, 1) != 1) byte = 'p';
    close(fd);
    return byte;
}

static void path_of(int fd, char *path, size_t size) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, size - 1);
    path[length > 0 ? length : 0] = 0;
}

static int is_log(int fd) {
    char path[4096];
    path_of(fd, path, sizeof path);
    size_t length = strlen(path);
    return length > 4 && strcmp(path + length - 4, ".log") == 0;
}

ssize_t pread64(int fd, void *bytes, size_t count, off64_t offset) {
    while (mode() == 'c' && is_log(fd)) usleep(1000);
    return real_pread(fd, bytes, count, offset);
}

static int synced(const char *what, int fd, int (*real)(int)) {
    char path[4096];
    path_of(fd, path, sizeof path);
    for (;;) {
        char now = mode();
        if (now == 'f' || (now == 'l' && is_log(fd))) {
            errno = EIO;
            return -1;
        }
        if (now != 'b') break;
        usleep(1000);
    }
    int result = real(fd);
    say(what, path);
    return result;
}

int fdatasync(int fd) { return synced("fdatasync", fd, real_fdatasync); }
int fsync(int fd) { return synced("fsync", fd, real_fsync); }

int rename(const char *from, const char *to) {
    int result = real_rename(from, to);
    if (result == 0) say("name", to);
    return result;
}

int mkdir(const char *path, mode_t bits) {
    int result = real_mkdir(path, bits);
    if (result == 0) say("directory", path);
    return result;
}

int open64(const char *path, int flags, ...) {
    mode_t bits = 0;
    if (flags & O_CREAT) {
        va_list arguments;
        va_start(arguments, flags);
        bits = va_arg(arguments, mode_t);
        va_end(arguments);
    }
    struct stat known;
    int is_new = (flags & O_CREAT) && stat(path, &known) != 0;
    int fd = real_open(path, flags, bits);
    if (fd >= 0 && is_new) say("name", path);
    return fd;
}
