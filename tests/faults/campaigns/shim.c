/* Stands between a program and its system calls, by LD_PRELOAD, and lets one of them fail, or ends the process after one.

All processes that come from a program share the control block, a file that the variable ANYFORK_SHIM names. It is armed
for one process, or for the children of one, and for the n-th call from then on. Python's names for the calls are in
shim.py, and the layout of the block, too. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { OWN, CHILDREN };                                /* whom the block is armed for */
enum { SHORT = 1000, KILL, STOP };                     /* beside numbers of errors */
enum { OPENS = 1, FORKS = 2, WAITS = 4, SENDS = 8, RECEIVES = 16, MEMORY = 32 }; /* what may become of a call */

struct control {
    volatile uint32_t armed, whom, pid, at, action;
    volatile uint32_t count, struck, stopped;
    char place[104];
};

static struct control *control;

static void *next(const char *name) { return dlsym(RTLD_NEXT, name); }

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("ANYFORK_SHIM");
    if (!path)
        return;
    int fd = syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return;
    void *block = mmap(0, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    syscall(SYS_close, fd);
    if (block != MAP_FAILED)
        control = block;
}

static int concerned(void)
{
    if (!control || !control->armed)
        return 0;
    return (uint32_t)syscall(control->whom == OWN ? SYS_getpid : SYS_getppid) == control->pid;
}

/* Less than this the kernel writes whole or not at all: to a pipe by definition, to a Unix socket because it is one buffer. */
#define ATOMIC 4096

static int may_fail(int action, int kinds, int fd, int flags, size_t size)
{
    switch (action) {
    case EMFILE: return kinds & OPENS;
    case ENOMEM: return kinds & (OPENS | FORKS | MEMORY | SENDS | RECEIVES);
    case EINTR: return kinds & (WAITS | SENDS | RECEIVES);
    case EPIPE: return kinds & SENDS;
    case EAGAIN:
        if (kinds & FORKS)
            return 1;
        return kinds & (SENDS | RECEIVES) && (flags & MSG_DONTWAIT || fcntl(fd, F_GETFL) & O_NONBLOCK);
    case SHORT: {
        int type = SOCK_STREAM;
        socklen_t length = sizeof type;
        if (kinds & SENDS)
            getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length);
        return kinds & SENDS && type == SOCK_STREAM && size > ATOMIC;
    }
    }
    return 0;
}

/* Count a call. Return the error that it has to fail with, SHORT, or 0. */
static int strikes_write(const char *name, int kinds, int fd, int flags, size_t size)
{
    if (!concerned() || control->action > SHORT)
        return 0;
    if (__atomic_add_fetch(&control->count, 1, __ATOMIC_SEQ_CST) != control->at)
        return 0;
    int saved = errno, action = control->action, does;
    control->armed = 0;
    does = may_fail(action, kinds, fd, flags, size);
    errno = saved;
    snprintf(control->place, sizeof control->place, "%s%s", name, does ? "" : " not");
    control->struck = 1;
    return does ? action : 0;
}

static int strikes(const char *name, int kinds, int fd, int flags) { return strikes_write(name, kinds, fd, flags, 0); }

/* Count a message that has been sent or received, and end or stop here after the n-th. */
static ssize_t message(const char *name, ssize_t result)
{
    if (result <= 0 || !concerned() || control->action < KILL)
        return result;
    if (__atomic_add_fetch(&control->count, 1, __ATOMIC_SEQ_CST) != control->at)
        return result;
    int saved = errno, pid = syscall(SYS_getpid);
    control->armed = 0;
    snprintf(control->place, sizeof control->place, "%s", name);
    control->struck = 1;
    if (control->action == STOP)
        control->stopped = pid;
    syscall(SYS_kill, pid, control->action == KILL ? SIGKILL : SIGSTOP);
    errno = saved;
    return result;
}

#define REAL(type, name, ...) static type (*real)(__VA_ARGS__); if (!real) real = next(name)
#define FAIL(name, kinds, fd, flags) do { int e = strikes(name, kinds, fd, flags); if (e) { errno = e; return -1; } } while (0)

ssize_t read(int fd, void *data, size_t size)
{
    REAL(ssize_t, "read", int, void *, size_t);
    FAIL("read", RECEIVES, fd, 0);
    return real(fd, data, size);
}

ssize_t write(int fd, const void *data, size_t size)
{
    REAL(ssize_t, "write", int, const void *, size_t);
    int failed = strikes_write("write", SENDS, fd, 0, size);
    if (failed == SHORT)
        return real(fd, data, size > 1 ? size / 2 : size);
    if (failed) {
        errno = failed;
        return -1;
    }
    return real(fd, data, size);
}

ssize_t send(int fd, const void *data, size_t size, int flags)
{
    REAL(ssize_t, "send", int, const void *, size_t, int);
    int failed = strikes_write("send", SENDS, fd, flags, size);
    if (failed == SHORT)
        return real(fd, data, size > 1 ? size / 2 : size, flags);
    if (failed) {
        errno = failed;
        return -1;
    }
    return message("send", real(fd, data, size, flags));
}

ssize_t sendmsg(int fd, const struct msghdr *given, int flags)
{
    REAL(ssize_t, "sendmsg", int, const struct msghdr *, int);
    size_t size = 0;
    for (size_t i = 0; i < given->msg_iovlen; i++)
        size += given->msg_iov[i].iov_len;
    int failed = strikes_write("sendmsg", SENDS, fd, flags, size);
    if (failed == SHORT && given->msg_iovlen > 0) {
        struct msghdr less = *given;
        struct iovec part = given->msg_iov[0];
        part.iov_len = part.iov_len > 1 ? part.iov_len / 2 : part.iov_len;
        less.msg_iov = &part;
        less.msg_iovlen = 1;
        return real(fd, &less, flags);
    }
    if (failed && failed != SHORT) {
        errno = failed;
        return -1;
    }
    return message("sendmsg", real(fd, given, flags));
}

ssize_t recv(int fd, void *data, size_t size, int flags)
{
    REAL(ssize_t, "recv", int, void *, size_t, int);
    FAIL("recv", RECEIVES, fd, flags);
    return message("recv", real(fd, data, size, flags));
}

ssize_t recvfrom(int fd, void *data, size_t size, int flags, struct sockaddr *address, socklen_t *length)
{
    REAL(ssize_t, "recvfrom", int, void *, size_t, int, struct sockaddr *, socklen_t *);
    FAIL("recvfrom", RECEIVES, fd, flags);
    return message("recvfrom", real(fd, data, size, flags, address, length));
}

ssize_t recvmsg(int fd, struct msghdr *taken, int flags)
{
    REAL(ssize_t, "recvmsg", int, struct msghdr *, int);
    FAIL("recvmsg", RECEIVES, fd, flags);
    return message("recvmsg", real(fd, taken, flags));
}

static int is_dup(int command) { return command == F_DUPFD || command == F_DUPFD_CLOEXEC; }

int fcntl64(int fd, int command, ...)
{
    REAL(int, "fcntl64", int, int, ...);
    va_list rest;
    va_start(rest, command);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    if (is_dup(command))
        FAIL("fcntl(F_DUPFD)", OPENS, fd, 0);
    return real(fd, command, argument);
}

int open64(const char *path, int flags, ...)
{
    REAL(int, "open64", const char *, int, ...);
    va_list rest;
    va_start(rest, flags);
    mode_t mode = va_arg(rest, mode_t);
    va_end(rest);
    FAIL("open", OPENS, -1, 0);
    return real(path, flags, mode);
}

int dup(int fd)
{
    REAL(int, "dup", int);
    FAIL("dup", OPENS, fd, 0);
    return real(fd);
}

int socket(int domain, int type, int protocol)
{
    REAL(int, "socket", int, int, int);
    FAIL("socket", OPENS, -1, 0);
    return real(domain, type, protocol);
}

int socketpair(int domain, int type, int protocol, int ends[2])
{
    REAL(int, "socketpair", int, int, int, int *);
    FAIL("socketpair", OPENS, -1, 0);
    return real(domain, type, protocol, ends);
}

int pipe2(int ends[2], int flags)
{
    REAL(int, "pipe2", int *, int);
    FAIL("pipe2", OPENS, -1, 0);
    return real(ends, flags);
}

int eventfd(unsigned int value, int flags)
{
    REAL(int, "eventfd", unsigned int, int);
    FAIL("eventfd", OPENS, -1, 0);
    return real(value, flags);
}

int memfd_create(const char *name, unsigned int flags)
{
    REAL(int, "memfd_create", const char *, unsigned int);
    FAIL("memfd_create", OPENS, -1, 0);
    return real(name, flags);
}

int epoll_create1(int flags)
{
    REAL(int, "epoll_create1", int);
    FAIL("epoll_create1", OPENS, -1, 0);
    return real(flags);
}

int epoll_ctl(int fd, int what, int other, struct epoll_event *event)
{
    REAL(int, "epoll_ctl", int, int, int, struct epoll_event *);
    if (what == EPOLL_CTL_ADD)
        FAIL("epoll_ctl", MEMORY, fd, 0);
    return real(fd, what, other, event);
}

int epoll_wait(int fd, struct epoll_event *events, int count, int timeout)
{
    REAL(int, "epoll_wait", int, struct epoll_event *, int, int);
    FAIL("epoll_wait", WAITS, fd, 0);
    return real(fd, events, count, timeout);
}

int poll(struct pollfd *watched, nfds_t count, int timeout)
{
    REAL(int, "poll", struct pollfd *, nfds_t, int);
    FAIL("poll", WAITS | MEMORY, -1, 0);
    return real(watched, count, timeout);
}

int ftruncate64(int fd, off64_t size)
{
    REAL(int, "ftruncate64", int, off64_t);
    FAIL("ftruncate", WAITS, fd, 0);
    return real(fd, size);
}

int waitid(idtype_t kind, id_t id, siginfo_t *info, int options)
{
    REAL(int, "waitid", idtype_t, id_t, siginfo_t *, int);
    FAIL("waitid", WAITS, -1, 0);
    return real(kind, id, info, options);
}

pid_t wait4(pid_t pid, int *status, int options, struct rusage *usage)
{
    REAL(pid_t, "wait4", pid_t, int *, int, struct rusage *);
    FAIL("wait4", WAITS, -1, 0);
    return real(pid, status, options, usage);
}

pid_t waitpid(pid_t pid, int *status, int options)
{
    REAL(pid_t, "waitpid", pid_t, int *, int);
    FAIL("waitpid", WAITS, -1, 0);
    return real(pid, status, options);
}

pid_t fork(void)
{
    REAL(pid_t, "fork", void);
    FAIL("fork", FORKS, -1, 0);
    return real();
}

int posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions, const posix_spawnattr_t *attributes,
                char *const argv[], char *const envp[])
{
    REAL(int, "posix_spawn", pid_t *, const char *, const posix_spawn_file_actions_t *, const posix_spawnattr_t *,
         char *const[], char *const[]);
    int failed = strikes("posix_spawn", FORKS, -1, 0);
    return failed ? failed : real(pid, path, actions, attributes, argv, envp);
}

/* Calls for which the C library of old had no function; Python makes them by number. */
long syscall(long number, ...)
{
    REAL(long, "syscall", long, ...);
    va_list rest;
    long a[6];
    va_start(rest, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(rest, long);
    va_end(rest);
    if (number == SYS_pidfd_open)
        FAIL("pidfd_open", OPENS, -1, 0);
    return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
