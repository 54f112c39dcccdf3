/* The compiled part of a template: what costs a start most, without the interpreter's work around it.

   Optional: template/compiled.py decides whether it is used. Each function has a twin in Python that does the same.
   Compiled for one version of CPython with a GIL, and used only in processes with a single Python thread.

   Why a fork without os.fork() is safe here. After a fork, the interpreter makes its locks anew, because a thread that
   the new process does not have may hold them; drops the states of other threads and interpreters; forgets signals
   whose Python handlers have not run; and runs the hooks of os.register_at_fork(). Templates have one thread and one
   interpreter, which is checked before; no lock is held, since the fork is not inside of an import; all signals are
   blocked around the fork, and what came before them is handled before. The native thread id is renewed below, and the
   hooks that have anything to do are run. fork() itself runs the handlers of pthread_atfork(). */

#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* The same on all architectures. The headers of Linux 5.3 to 5.8 have only the first. */
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_close_range
#define SYS_close_range 436
#endif

#ifndef MADV_COLLAPSE /* the headers before Linux 6.1 */
#define MADV_COLLAPSE 25
#endif

#ifdef Py_GIL_DISABLED
#error "free-threaded builds use os.fork"
#endif
#if PY_VERSION_HEX < 0x030b0000 || PY_VERSION_HEX >= 0x03100000
#error "the sources of this version of CPython have not been read"
#endif

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the frames below are laid out for little-endian machines"
#endif

#define INTERFACE 7 /* changes with what template/compiled.py calls */

enum { BEFORE, IN_PARENT, IN_CHILD, KINDS };

static struct {
    PyObject *all[KINDS];     /* the interpreter's own lists of hooks */
    Py_ssize_t sizes[KINDS];  /* their lengths when the hooks to run were chosen */
    PyObject *chosen[KINDS];  /* tuples: the hooks to run */
    PyObject *os_fork;
    PyObject *thread; /* the main thread, if a fork renews its native id, or None */
} hooks;

static PyObject *name_native_id; /* a string */

/* The generator of the module random, whose hook costs a new process 50 page faults: seed() in other words. */
static struct {
    PyObject *generator; /* NULL if there is none, or if it is not laid out as below */
} seeded;

typedef struct {
    PyObject_HEAD
    int position; /* in the words: WORDS means that the next draw makes new ones */
    uint32_t words[624];
} Random;

enum { WORDS = 624 };

static void
reseed(void)
{
    Random *random = (Random *)seeded.generator;
    if (random == NULL)
        return;
    char *at = (char *)random->words;
    size_t left = sizeof(random->words);
    while (left > 0) {
        ssize_t got = getrandom(at, left, 0);
        if (got < 0 && errno != EINTR)
            Py_FatalError("getrandom() failed"); /* it has worked when the template was settled */
        if (got > 0) {
            at += got;
            left -= (size_t)got;
        }
    }
    random->position = WORDS;
}

PyDoc_STRVAR(reseeds_doc,
"reseeds(generator, state)\n--\n\n"
"Note the generator of random, whose state is given for comparison; return whether forks reseed it without its hook.");

static PyObject *
reseeds(PyObject *module, PyObject *args)
{
    PyObject *generator, *state;
    char probe;
    Py_CLEAR(seeded.generator);
    if (!PyArg_ParseTuple(args, "OO!:reseeds", &generator, &PyTuple_Type, &state))
        return NULL;
    Random *random = (Random *)generator;
    if (Py_TYPE(generator)->tp_basicsize < (Py_ssize_t)sizeof(Random) || PyTuple_GET_SIZE(state) != WORDS + 1 ||
        getrandom(&probe, 1, 0) != 1)
        Py_RETURN_FALSE;
    for (int i = 0; i <= WORDS; i++) {
        unsigned long word = PyLong_AsUnsignedLong(PyTuple_GET_ITEM(state, i));
        if (PyErr_Occurred())
            return NULL;
        if (word != (i < WORDS ? random->words[i] : (unsigned long)random->position))
            Py_RETURN_FALSE;
    }
    seeded.generator = Py_NewRef(generator);
    Py_RETURN_TRUE;
}

static int
hooks_changed(void)
{
    for (int kind = 0; kind < KINDS; kind++) {
        if (hooks.all[kind] == NULL || PyList_GET_SIZE(hooks.all[kind]) != hooks.sizes[kind])
            return 1;
    }
    return 0;
}

/* Do in a new process what hooks of the standard library do there that are not run. */
static void
renew(void)
{
    reseed();
    if (hooks.thread == NULL || hooks.thread == Py_None)
        return;
    PyObject *number = PyLong_FromLong(syscall(SYS_gettid));
    if (number == NULL || PyObject_SetAttr(hooks.thread, name_native_id, number) < 0)
        PyErr_WriteUnraisable(hooks.thread);
    Py_XDECREF(number);
}

/* Run hooks as the interpreter does: an error goes to sys.unraisablehook, and the next hook is run. */
static void
run_hooks(int kind)
{
    if (kind == IN_CHILD)
        renew();
    PyObject *chosen = hooks.chosen[kind];
    Py_ssize_t count = chosen == NULL ? 0 : PyTuple_GET_SIZE(chosen);
    if (count == 0)
        return;
    Py_INCREF(chosen); /* a hook may settle the template anew */
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *hook = PyTuple_GET_ITEM(chosen, kind == BEFORE ? count - 1 - i : i);
        PyObject *result = PyObject_CallNoArgs(hook);
        if (result == NULL)
            PyErr_WriteUnraisable(hook);
        else
            Py_DECREF(result);
    }
    Py_DECREF(chosen);
}

/* Block all signals, but not SIGCHLD: while it is blocked, it does not matter that its default is to be ignored, and
   each end of a process would interrupt the next wait. */
static void
block_signals(sigset_t *before)
{
    sigset_t all;
    sigfillset(&all);
    sigdelset(&all, SIGCHLD);
    sigprocmask(SIG_SETMASK, &all, before);
}

PyDoc_STRVAR(choose_hooks_doc,
"choose_hooks(all, chosen, os_fork, thread)\n--\n\n"
"Set the hooks that fork() runs: three tuples, of those in the interpreter's three lists. Set the thread whose native\n"
"id it renews, or None.");

static PyObject *
choose_hooks(PyObject *module, PyObject *args)
{
    PyObject *all[KINDS], *chosen[KINDS], *os_fork, *thread;
    if (!PyArg_ParseTuple(args, "(O!O!O!)(O!O!O!)OO:choose_hooks",
                          &PyList_Type, &all[0], &PyList_Type, &all[1], &PyList_Type, &all[2],
                          &PyTuple_Type, &chosen[0], &PyTuple_Type, &chosen[1], &PyTuple_Type, &chosen[2], &os_fork,
                          &thread))
        return NULL;
    for (int kind = 0; kind < KINDS; kind++) {
        Py_XSETREF(hooks.all[kind], Py_NewRef(all[kind]));
        Py_XSETREF(hooks.chosen[kind], Py_NewRef(chosen[kind]));
        hooks.sizes[kind] = PyList_GET_SIZE(all[kind]);
    }
    Py_XSETREF(hooks.os_fork, Py_NewRef(os_fork));
    Py_XSETREF(hooks.thread, Py_NewRef(thread));
    Py_RETURN_NONE;
}

PyDoc_STRVAR(fork_doc,
"fork()\n--\n\n"
"Fork this process as os.fork() does, with the chosen hooks only; with all of them if others were registered since.");

static PyObject *
fast_fork(PyObject *module, PyObject *unused)
{
    sigset_t mask;
    pid_t pid;
    int error;

    if (hooks.os_fork == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "fork() was called before choose_hooks()");
        return NULL;
    }
    if (hooks_changed())
        return PyObject_CallNoArgs(hooks.os_fork);
    if (PySys_Audit("os.fork", NULL) < 0)
        return NULL;
    run_hooks(BEFORE);
    block_signals(&mask);
    if (PyErr_CheckSignals() < 0) { /* the child would handle them, too */
        PyObject *type, *value, *traceback;
        PyErr_Fetch(&type, &value, &traceback); /* hooks run without it */
        sigprocmask(SIG_SETMASK, &mask, NULL);
        run_hooks(IN_PARENT);
        PyErr_Restore(type, value, traceback);
        return NULL;
    }
    pid = fork();
    error = errno;
    if (pid == 0)
        PyThreadState_Get()->native_thread_id = (unsigned long)syscall(SYS_gettid);
    sigprocmask(SIG_SETMASK, &mask, NULL);
    run_hooks(pid == 0 ? IN_CHILD : IN_PARENT);
    if (pid < 0) {
        errno = error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    return PyLong_FromLong(pid);
}

/* --- The processes of a template ------------------------------------------------------------------------------- */

/* A mapping from pidfds to (pid, status socket, pipe for reports, flags, time of birth), as template.children_by_pidfd
   uses it, in memory without reference counts. */

typedef struct {
    double born; /* seconds, monotonic */
    int pid, pidfd, status, reports, flags;
} Child;

typedef struct {
    PyObject_HEAD
    Child *children;
    Py_ssize_t count, room;
} Table;

static Py_ssize_t
find_child(Table *self, long pidfd)
{
    for (Py_ssize_t i = 0; i < self->count; i++) {
        if (self->children[i].pidfd == pidfd)
            return i;
    }
    return -1;
}

/* Make room for one more process. Return -1, without an exception, if there is no memory. */
static int
reserve_child(Table *self)
{
    if (self->count == self->room) {
        Py_ssize_t room = self->room ? 2 * self->room : 64;
        Child *children = PyMem_RawRealloc(self->children, (size_t)room * sizeof(Child));
        if (children == NULL)
            return -1;
        self->children = children;
        self->room = room;
    }
    return 0;
}

static void
remove_child(Table *self, Py_ssize_t i)
{
    self->children[i] = self->children[--self->count];
}

static PyObject *
child_as_tuple(const Child *child)
{
    return Py_BuildValue("iiiid", child->pid, child->status, child->reports, child->flags, child->born);
}

static void
table_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyMem_RawFree(((Table *)self)->children);
    type->tp_free(self);
    Py_DECREF(type);
}

static Py_ssize_t
table_length(PyObject *self)
{
    return ((Table *)self)->count;
}

static int
table_assign(PyObject *object, PyObject *key, PyObject *value)
{
    Table *self = (Table *)object;
    Child child;
    long pidfd = PyLong_AsLong(key);
    if (pidfd == -1 && PyErr_Occurred())
        return -1;
    Py_ssize_t i = find_child(self, pidfd);
    if (value == NULL) {
        if (i < 0) {
            PyErr_SetObject(PyExc_KeyError, key);
            return -1;
        }
        remove_child(self, i);
        return 0;
    }
    if (!PyTuple_Check(value)) {
        PyErr_Format(PyExc_TypeError, "a process must be a tuple, not %.100s", Py_TYPE(value)->tp_name);
        return -1;
    }
    if (!PyArg_ParseTuple(value, "iiiid", &child.pid, &child.status, &child.reports, &child.flags, &child.born))
        return -1;
    child.pidfd = (int)pidfd;
    if (i < 0) {
        if (reserve_child(self) < 0) {
            PyErr_NoMemory();
            return -1;
        }
        i = self->count++;
    }
    self->children[i] = child;
    return 0;
}

static PyObject *
table_pop(PyObject *object, PyObject *args)
{
    Table *self = (Table *)object;
    PyObject *otherwise;
    int pidfd;
    if (!PyArg_ParseTuple(args, "iO:pop", &pidfd, &otherwise))
        return NULL;
    Py_ssize_t i = find_child(self, pidfd);
    if (i < 0)
        return Py_NewRef(otherwise);
    PyObject *child = child_as_tuple(&self->children[i]);
    if (child != NULL)
        remove_child(self, i);
    return child;
}

static PyObject *
table_list(Table *self, int with_keys)
{
    PyObject *list = PyList_New(0);
    for (Py_ssize_t i = 0; list != NULL && i < self->count; i++) {
        PyObject *item = child_as_tuple(&self->children[i]);
        if (item != NULL && with_keys)
            item = Py_BuildValue("iN", self->children[i].pidfd, item);
        if (item == NULL || PyList_Append(list, item) < 0)
            Py_CLEAR(list);
        Py_XDECREF(item);
    }
    return list;
}

static PyObject *
table_values(PyObject *self, PyObject *unused)
{
    return table_list((Table *)self, 0);
}

static PyObject *
table_items(PyObject *self, PyObject *unused)
{
    return table_list((Table *)self, 1);
}

static PyMethodDef table_methods[] = {
    {"pop", table_pop, METH_VARARGS, "Remove and return the process of a pidfd, or return the second argument."},
    {"values", table_values, METH_NOARGS, "Return a list of the processes."},
    {"items", table_items, METH_NOARGS, "Return a list of pidfds with their processes."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot table_slots[] = {
    {Py_tp_doc, "The processes of a template by pidfd: pid, status socket, pipe for reports, flags, time of birth."},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_dealloc, table_dealloc},
    {Py_tp_methods, table_methods},
    {Py_mp_length, table_length},
    {Py_mp_ass_subscript, table_assign},
    {0, NULL},
};

static PyType_Spec table_spec = {
    .name = "_anyfork_child.template._fast.ChildTable",
    .basicsize = sizeof(Table),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = table_slots,
};

static PyTypeObject *table_type;

/* --- The loop ---------------------------------------------------------------------------------------------------- */

/* Twin of template.fork_loop. It does only what every start needs, and returns whatever is unusual to Python, always
   before it has changed anything: Python does it again, and deals with it. All signals are blocked but while it waits,
   so that no Python code runs between a fork and its bookkeeping. */

enum { FRAME, LIFELINE, ENDED, WAIT, FORKED, BORN_HERE, FAILED, CHILDLESS }; /* what serve() returns */

/* Of wire/frames.py. */
enum { VERSION = 1, FORK = 2, START = 8, ENTERED = 33, BORN = 48, DIED = 49 };
enum { DETACHED = 1, FOLLOWED = 2, SPARE = 8 };
enum { FORK_DESCRIPTORS = 3, DESCRIPTORS_A_MESSAGE = 253 };

typedef struct {
    uint8_t version, kind;
    uint16_t count;
    uint32_t length;
    int64_t value;
} Header;

typedef struct __attribute__((packed)) {
    Header header;
    int32_t status;
    double user, system;
    int64_t rest[14];
} Died;

_Static_assert(sizeof(Header) == 16, "the header of a frame");
_Static_assert(sizeof(Died) == 148, "a frame DIED");

enum { EVENTS = 32, TURNS = 64, PATIENCE = 10 /* ms */, REST = 2 /* ms */ };

typedef struct {
    PyObject *template; /* a Template object */
    PyObject *sock;     /* the channel of a new process */
    Table *table;
    int control, lifeline, reports, epoll, first, high;
    int usual;  /* whether a new process may run its function at once */
    int renews; /* whether it must reset something before */
    int titled; /* whether it shows its function */
    const char *title; /* what precedes the function there */
    Py_ssize_t title_size, title_start, title_room, title_shown; /* bytes; the address in memory */
    int waited; /* a new process, for its first frame, for so long that it is a spare, or becomes a template */
    long forks; /* done here */
    long several; /* after so many, serve() returns when no process is left; never if negative */
    sigset_t mask; /* while it waits */
} Loop;

typedef struct {
    Header header;
    ssize_t size; /* bytes of the header that have come */
    int flags;    /* of recvmsg() */
    int count;    /* descriptors that have come */
    int fds[DESCRIPTORS_A_MESSAGE];
} Message;

static const Header no_header;

/* Receive a header and the descriptors that come with it; return -1 with errno. */
static int
receive(int control, Message *message)
{
    static union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(DESCRIPTORS_A_MESSAGE * sizeof(int))];
    } ancillary;
    struct iovec part = {&message->header, sizeof(Header)};
    struct msghdr described = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = ancillary.bytes, .msg_controllen = sizeof(ancillary.bytes)};
    do {
        message->size = recvmsg(control, &described, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    } while (message->size < 0 && errno == EINTR);
    if (message->size < 0)
        return -1;
    message->flags = described.msg_flags;
    message->count = 0;
    struct cmsghdr *rights = CMSG_FIRSTHDR(&described);
    if (rights != NULL && rights->cmsg_level == SOL_SOCKET && rights->cmsg_type == SCM_RIGHTS) {
        size_t size = rights->cmsg_len - CMSG_LEN(0);
        message->count = (int)(size / sizeof(int));
        memcpy(message->fds, CMSG_DATA(rights), (size_t)message->count * sizeof(int));
    }
    return 0;
}

static PyObject *
event(Loop *loop, int what, PyObject *details) /* steals the details */
{
    return details == NULL ? NULL : Py_BuildValue("iilN", what, loop->high, loop->forks, details);
}

/* Return a frame as recvmsg() of Python would. */
static PyObject *
frame_event(Loop *loop, const Message *message)
{
    PyObject *fds = PyTuple_New(message->count);
    for (int i = 0; fds != NULL && i < message->count; i++) {
        PyObject *number = PyLong_FromLong(message->fds[i]);
        if (number == NULL)
            Py_CLEAR(fds);
        else
            PyTuple_SET_ITEM(fds, i, number);
    }
    if (fds == NULL)
        return NULL;
    return event(loop, FRAME, Py_BuildValue("y#Ni", (const char *)&message->header, (Py_ssize_t)message->size, fds,
                                            message->flags));
}

static double
seconds(struct timeval time)
{
    return (double)time.tv_sec + (double)time.tv_usec * 1e-6;
}

static void
fill_usage(Died *died, const struct rusage *usage)
{
    const int64_t rest[14] = {
        usage->ru_maxrss, usage->ru_ixrss,   usage->ru_idrss,   usage->ru_isrss,  usage->ru_minflt,
        usage->ru_majflt, usage->ru_nswap,   usage->ru_inblock, usage->ru_oublock, usage->ru_msgsnd,
        usage->ru_msgrcv, usage->ru_nsignals, usage->ru_nvcsw,  usage->ru_nivcsw};
    died->user = seconds(usage->ru_utime);
    died->system = seconds(usage->ru_stime);
    memcpy(died->rest, rest, sizeof(rest));
}

static PyObject *
ended_event(Loop *loop, const Child *child, const Died *died)
{
    PyObject *usage = PyTuple_New(2 + 14);
    if (usage == NULL)
        return NULL;
    PyTuple_SET_ITEM(usage, 0, PyFloat_FromDouble(died->user));
    PyTuple_SET_ITEM(usage, 1, PyFloat_FromDouble(died->system));
    for (int i = 0; i < 14; i++)
        PyTuple_SET_ITEM(usage, 2 + i, PyLong_FromLongLong(died->rest[i]));
    if (PyErr_Occurred()) {
        Py_DECREF(usage);
        return NULL;
    }
    return event(loop, ENDED, Py_BuildValue("iiiiN", child->pid, child->status, child->reports, died->status, usage));
}

/* Reap a process and report its end. Return an event for Python if it did not end with 0, or the report failed. */
static PyObject *
reap(Loop *loop, Py_ssize_t i)
{
    Child child = loop->table->children[i];
    struct rusage usage;
    Died died = {.header = {VERSION, DIED, 0, sizeof(Died) - sizeof(Header), child.pid}};
    int status;
    pid_t pid;
    do {
        pid = wait4(child.pid, &status, 0, &usage);
    } while (pid < 0 && errno == EINTR);
    if (pid < 0) /* code in this template has waited for it */
        return event(loop, WAIT, Py_NewRef(Py_None));
    /* The owner holds a copy of the pidfd, so epoll would go on reporting it after close. */
    epoll_ctl(loop->epoll, EPOLL_CTL_DEL, child.pidfd, NULL);
    close(child.pidfd);
    remove_child(loop->table, i);
    died.status = status;
    fill_usage(&died, &usage);
    if (status != 0 || send(child.status, &died, sizeof(died), MSG_NOSIGNAL) < 0)
        return ended_event(loop, &child, &died);
    close(child.status);
    close(child.reports);
    return NULL;
}

/* Report a birth on the status socket, with the pidfd. */
static int
send_born(const Child *child)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } ancillary = {0};
    Header header = {VERSION, BORN, 1, 0, child->pid};
    struct iovec part = {&header, sizeof(header)};
    struct msghdr described = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = ancillary.bytes, .msg_controllen = sizeof(ancillary.bytes)};
    ancillary.align.cmsg_len = CMSG_LEN(sizeof(int));
    ancillary.align.cmsg_level = SOL_SOCKET;
    ancillary.align.cmsg_type = SCM_RIGHTS;
    memcpy(CMSG_DATA(&ancillary.align), &child->pidfd, sizeof(int));
    return sendmsg(child->status, &described, MSG_NOSIGNAL | MSG_DONTWAIT) == sizeof(header) ? 0 : -1;
}

/* Watch a process just forked, and report its birth. Return -1, with nothing left behind, if Python has to do it. */
static int
add_child(Loop *loop, int pid, int status, int reports, int flags)
{
    struct timespec now;
    Child child = {.pid = pid, .status = status, .reports = reports, .flags = flags};
    struct epoll_event wanted = {.events = EPOLLIN};

    if (reserve_child(loop->table) < 0)
        return -1;
    child.pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (child.pidfd < 0)
        return -1;
    wanted.data.fd = child.pidfd;
    if (epoll_ctl(loop->epoll, EPOLL_CTL_ADD, child.pidfd, &wanted) < 0) {
        close(child.pidfd);
        return -1;
    }
    if (send_born(&child) < 0) {
        epoll_ctl(loop->epoll, EPOLL_CTL_DEL, child.pidfd, NULL);
        close(child.pidfd);
        return -1;
    }
    clock_gettime(CLOCK_MONOTONIC, &now);
    child.born = (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
    loop->table->children[loop->table->count++] = child;
    if (child.pidfd > loop->high)
        loop->high = child.pidfd;
    return 0;
}

/* Make a new process a template: twin of template.fork_loop.become, but for the attributes of the Template. */
static void
become(Loop *loop, const int *fds, int reports, int flags)
{
    dup3(fds[0], loop->control, O_CLOEXEC);
    dup3(fds[2], loop->lifeline, O_CLOEXEC);
    dup3(reports, loop->reports, O_CLOEXEC);
    if (syscall(SYS_close_range, loop->first, loop->high, 0) < 0) {
        for (int fd = loop->first; fd <= loop->high; fd++)
            close(fd);
    }
    PyThreadState_Get()->native_thread_id = (unsigned long)syscall(SYS_gettid);
    if (flags == FOLLOWED) {
        struct f_owner_ex owner = {F_OWNER_PID, getpid()};
        fcntl(loop->lifeline, F_SETOWN_EX, &owner);
        fcntl(loop->reports, F_SETOWN_EX, &owner);
    }
    else
        fcntl(loop->reports, F_SETOWN, getpid());
}

/* --- The birth, the run and the end of a usual process ---------------------------------------------------------- */

/* Twin of template.entry and birth.exit, for a function that is called by name or by value without descriptors. All
   that fails is left to them. The function runs above one frame of C, however many templates are its ancestors. */

enum {
    BE_BORN, LOADS, CHECKED, FIND_FUNCTION, FUNCTION_NAME, REFUSE, ENTER, END_COPY, SIGNAL, SIG_DEFAULT, INTERRUPT,
    TAKE_RESULT, FAIL, WIND_UP, FLUSH, EXIT, COUNT_THREADS, COUNT_HANDLERS, TEXT_STREAM, BYTE_STREAM, RAW_STREAM,
    NUMBER_TERM, NUMBER_INT, NUMBER_CHILD, IGNORED, PARTS
};

static const char *const part_names[PARTS] = {
    "be_born", "loads", "CHECKED", "find_function", "function_name", "refuse", "enter", "end_copy", "signal", "SIG_DFL",
    "default_int_handler", "take_result", "fail_call", "wind_up", "flush", "_exit", "count_threads", "count_handlers",
    "TextIOWrapper", "BufferedWriter", "FileIO", "SIGTERM", "SIGINT",
    "SIGCHLD", "ignored"};

static PyObject *parts[PARTS];
static PyObject *name_threading, *name_atexits, *name_multiprocessing; /* strings */

/* A standard stream when the template was settled, just after a flush: as long as its objects have the same bytes,
   nothing was written to it, and it need not be flushed, which costs 15 page faults. */
typedef struct {
    PyObject *text, *bytes; /* borrowed: a program that runs here must be able to finalize them, which flushes them */
    char *copy; /* of both, without their headers */
    size_t text_size, bytes_size;
} Stream;

static Stream streams[2];
static const char *const stream_names[2] = {"stdout", "stderr"};

static size_t
size_of(PyObject *object)
{
    return (size_t)Py_TYPE(object)->tp_basicsize - sizeof(PyObject);
}

static const char *
content_of(PyObject *object)
{
    return (const char *)object + sizeof(PyObject);
}

/* Note a stream; if it is not one of the usual kind, it is always flushed. */
static void
remember_stream(Stream *stream, PyObject *text)
{
    PyMem_RawFree(stream->copy);
    stream->copy = NULL;
    if (text == NULL || (PyObject *)Py_TYPE(text) != parts[TEXT_STREAM])
        return;
    PyObject *bytes = PyObject_GetAttrString(text, "buffer");
    PyObject *type = bytes == NULL ? NULL : (PyObject *)Py_TYPE(bytes);
    Py_XDECREF(bytes); /* the text stream keeps it */
    if (type == NULL || (type != parts[BYTE_STREAM] && type != parts[RAW_STREAM])) {
        PyErr_Clear();
        return;
    }
    stream->text = text;
    stream->bytes = bytes;
    stream->text_size = size_of(text);
    stream->bytes_size = size_of(bytes);
    stream->copy = PyMem_RawMalloc(stream->text_size + stream->bytes_size);
    if (stream->copy != NULL) {
        memcpy(stream->copy, content_of(text), stream->text_size);
        memcpy(stream->copy + stream->text_size, content_of(bytes), stream->bytes_size);
    }
}

/* The text stream holds the address of the byte stream, so one that has the same bytes still keeps it alive. */
static int
is_clean(int number)
{
    const Stream *stream = &streams[number];
    return stream->copy != NULL && PySys_GetObject(stream_names[number]) == stream->text &&
           (PyObject *)Py_TYPE(stream->text) == parts[TEXT_STREAM] &&
           memcmp(stream->copy, content_of(stream->text), stream->text_size) == 0 &&
           memcmp(stream->copy + stream->text_size, content_of(stream->bytes), stream->bytes_size) == 0;
}

/* The exit handlers when the template was settled: a process runs none of them, but those that were registered later. */
static long inherited_handlers;

static long
count_handlers(void)
{
    PyObject *number = PyObject_CallNoArgs(parts[COUNT_HANDLERS]);
    long count = number == NULL ? -1 : PyLong_AsLong(number);
    Py_XDECREF(number);
    return count;
}

PyDoc_STRVAR(prepare_births_doc,
"prepare_births(parts)\n--\n\n"
"Note the functions of Python that births use, by name, and the standard streams, which have just been flushed.");

static PyObject *
prepare_births(PyObject *module, PyObject *given)
{
    for (int i = 0; i < PARTS; i++) {
        PyObject *part = PyDict_Check(given) ? PyDict_GetItemString(given, part_names[i]) : NULL;
        if (part == NULL) {
            PyErr_SetString(PyExc_KeyError, part_names[i]);
            return NULL;
        }
        Py_XSETREF(parts[i], Py_NewRef(part));
    }
    for (int i = 0; i < 2; i++)
        remember_stream(&streams[i], PySys_GetObject(stream_names[i]));
#if PY_VERSION_HEX < 0x030e0000 /* later, the number shrinks by atexit.unregister() */
    inherited_handlers = count_handlers();
#endif
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}

static _Noreturn void
end_process(long code)
{
    if (!PyCFunction_Check(parts[EXIT])) { /* a tool has replaced os._exit() */
        PyObject *result = PyObject_CallFunction(parts[EXIT], "l", code);
        Py_XDECREF(result);
    }
    _exit((int)code);
}

/* End the process after an error that its twin in Python could not deal with. */
static _Noreturn void
give_up(void)
{
    if (PyErr_Occurred())
        PyErr_Print();
    end_process(1);
}

/* Return the exception that is set, and clear it. */
static PyObject *
take_error(void)
{
#if PY_VERSION_HEX >= 0x030c0000
    return PyErr_GetRaisedException();
#else
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback != NULL)
        PyException_SetTraceback(value, traceback);
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    return value;
#endif
}

static _Noreturn void
refuse(Loop *loop, int flags, int pid)
{
    PyObject *error = take_error();
    PyObject *result = PyObject_CallFunction(parts[REFUSE], "OiiO", loop->template, flags, pid, error);
    Py_XDECREF(result);
    give_up();
}

/* Return whether the interpreter has nothing to do at its end but to flush its output. */
static int
is_quiet(void)
{
    PyObject *modules = PyImport_GetModuleDict();
    if (PyDict_GetItemWithError(modules, name_multiprocessing) != NULL)
        return 0;
    PyObject *threading = PyDict_GetItemWithError(modules, name_threading);
    if (threading != NULL) {
        if (!PyModule_Check(threading))
            return 0;
        PyObject *atexits = PyDict_GetItemWithError(PyModule_GetDict(threading), name_atexits);
        if (atexits == NULL || !PyList_Check(atexits) || PyList_GET_SIZE(atexits) > 0)
            return 0;
        PyObject *count = PyObject_CallNoArgs(parts[COUNT_THREADS]);
        if (count == NULL || PyLong_AsLong(count) != 0)
            return 0;
        Py_DECREF(count);
    }
    return !PyErr_Occurred() && count_handlers() == inherited_handlers;
}

/* Call the function, do the work of an interpreter at its end, and end the process. Twin of birth.exit.run. Return with
   an exception if that is to leave all frames of this process. */
static void
run_function(Loop *loop, PyObject *function, PyObject *arguments) /* steals both */
{
    long code = 0;
    PyObject *result = PyObject_Call(function, arguments, NULL);
    if (result != NULL && result != Py_None)
        Py_XSETREF(result, PyObject_CallFunctionObjArgs(parts[TAKE_RESULT], result, function, arguments, NULL));
    if (result == NULL) {
        PyObject *error = take_error();
        PyObject *number = PyObject_CallFunction(parts[FAIL], "Oi", error, loop->reports);
        Py_XDECREF(error);
        if (number == NULL) {
            Py_DECREF(arguments);
            Py_DECREF(function);
            return;
        }
        code = PyLong_AsLong(number);
        Py_DECREF(number);
    }
    Py_XDECREF(result);
    Py_DECREF(arguments); /* files among them are flushed and closed with the last reference */
    Py_DECREF(function);
    int quiet = is_quiet();
    PyErr_Clear();
    if (!quiet)
        result = PyObject_CallFunction(parts[WIND_UP], "l", code);
    else if (!is_clean(0) || !is_clean(1))
        result = PyObject_CallNoArgs(parts[FLUSH]);
    if (PyErr_Occurred())
        give_up();
    end_process(code);
}

/* Find a function in the modules, without running any code. Return NULL, with or without an exception, if it is not
   there. */
static PyObject *
look_up(const char *name, Py_ssize_t size)
{
    const char *colon = memchr(name, ':', (size_t)size);
    if (colon == NULL)
        return NULL;
    PyObject *function = NULL;
    PyObject *module_name = PyUnicode_DecodeUTF8(name, colon - name, NULL);
    PyObject *path = module_name == NULL ? NULL : PyUnicode_DecodeUTF8(colon + 1, name + size - colon - 1, NULL);
    PyObject *module = path == NULL ? NULL : PyDict_GetItemWithError(PyImport_GetModuleDict(), module_name);
    if (module != NULL && PyModule_CheckExact(module)) /* no other code runs, which might drop the module */
        function = PyDict_GetItemWithError(PyModule_GetDict(module), path);
    Py_XINCREF(function);
    Py_XDECREF(module_name);
    Py_XDECREF(path);
    return function;
}

/* Find a function by its name. Twin of values.decode.load_call. */
static PyObject *
find_function(const char *name, Py_ssize_t size, PyObject *values)
{
    PyObject *function = look_up(name, size);
    if (function != NULL || PyErr_Occurred())
        return function;
    return PyObject_CallFunction(parts[FIND_FUNCTION], "s#O", name, size, values);
}

/* Decode the values of a call into a tuple. */
static PyObject *
load_values(const char *data, Py_ssize_t size)
{
    if (size == 0)
        return PyTuple_New(0);
    PyObject *pickled = PyBytes_FromStringAndSize(data, size);
    if (pickled == NULL)
        return NULL;
    PyObject *values = PyObject_CallOneArg(parts[LOADS], pickled);
    Py_DECREF(pickled);
    if (values == NULL)
        return NULL;
    PyObject *tuple = PySequence_Tuple(values);
    Py_DECREF(values);
    if (tuple != NULL && PyTuple_GET_SIZE(tuple) > 0 && PyTuple_GET_ITEM(tuple, 0) == parts[CHECKED])
        Py_SETREF(tuple, PyTuple_GetSlice(tuple, 1, PyTuple_GET_SIZE(tuple) - 1));
    return tuple;
}

enum { NEAR = 64 << 20 /* bytes: less than the kernel leaves free below the stack of the main thread */ };

/* Show the function in the title, if possible: twin of birth.title. That is the memory of the program's arguments, which
   may be written as long as they are where the kernel has put them: above the stack of the main thread, in one mapping. */
static __attribute__((noinline)) void
show_title(const Loop *loop, const char *name, Py_ssize_t size)
{
    char text[4096];
    Py_ssize_t limit = loop->title_room - 1 < (Py_ssize_t)sizeof(text) ? loop->title_room - 1 : (Py_ssize_t)sizeof(text);
    if (limit <= 0 || (uintptr_t)loop->title_start - (uintptr_t)__builtin_frame_address(0) >= NEAR)
        return;
    Py_ssize_t prefix = loop->title_size < limit ? loop->title_size : limit;
    Py_ssize_t rest = size < limit - prefix ? size : limit - prefix;
    Py_ssize_t shown = loop->title_shown < limit ? loop->title_shown : limit;
    memcpy(text, loop->title, (size_t)prefix);
    memcpy(text + prefix, name, (size_t)rest);
    if (prefix + rest < shown)
        memset(text + prefix + rest, 0, (size_t)(shown - prefix - rest));
    else
        shown = prefix + rest;
    memcpy((char *)loop->title_start, text, (size_t)shown);
}

static int
set_signal(PyObject *number, PyObject *action)
{
    PyObject *before = PyObject_CallFunctionObjArgs(parts[SIGNAL], number, action, NULL);
    Py_XDECREF(before);
    return before == NULL ? -1 : 0;
}

/* Twin of template.entry.ignore_no_more. */
static int
ignore_no_more(void)
{
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(parts[IGNORED]); i++) {
        PyObject *number = PyTuple_GET_ITEM(parts[IGNORED], i);
        int ignored = PyOS_getsig((int)PyLong_AsLong(number)) == SIG_IGN; /* no hook of the fork has set a handler */
        if (PyErr_Occurred() || (ignored && set_signal(number, parts[SIG_DEFAULT]) < 0))
            return -1;
    }
    return 0;
}

/* Report that the function is entered; twin of template.entry.enter. Return -1 with an exception. */
static int
enter(Loop *loop, int flags, PyObject *function, const char *name, Py_ssize_t size)
{
    PyObject *own_name = NULL, *result;
    if (loop->titled && size == 0) {
        PyObject *found = PyObject_CallOneArg(parts[FUNCTION_NAME], function);
        own_name = found == NULL ? NULL : PyUnicode_AsEncodedString(found, "utf-8", "replace");
        Py_XDECREF(found);
        if (own_name == NULL)
            return -1;
        name = PyBytes_AS_STRING(own_name);
        size = PyBytes_GET_SIZE(own_name);
    }
    if (loop->titled)
        show_title(loop, name, size);
    if (set_signal(parts[NUMBER_INT], parts[SIG_DEFAULT]) < 0) { /* from the report on, none of the owner's gets lost */
        Py_XDECREF(own_name);
        return -1;
    }
    Header header = {VERSION, ENTERED, 0, 0, getpid()};
    ssize_t sent = send(loop->control, &header, sizeof(header), MSG_NOSIGNAL);
    if (sent != sizeof(header)) { /* the owner does not listen: it may have revoked the start */
        result = PyObject_CallFunction(parts[ENTER], "OiOy#", loop->template, flags, function, name, size);
        Py_XDECREF(own_name);
        Py_XDECREF(result);
        return result == NULL ? -1 : 0;
    }
    Py_XDECREF(own_name);
    if (set_signal(parts[NUMBER_TERM], parts[SIG_DEFAULT]) < 0 || set_signal(parts[NUMBER_INT], parts[INTERRUPT]) < 0)
        return -1;
    if (loop->waited) /* the owner waits for the report: on a CPU that both share, it comes before the function */
        sched_yield();
    return 0;
}

/* Return the arguments of the function: the channel, and the values from ``first`` on. */
static PyObject *
arguments_from(PyObject *sock, PyObject *values, Py_ssize_t first)
{
    Py_ssize_t count = PyTuple_GET_SIZE(values) - first;
    PyObject *arguments = PyTuple_New(1 + count);
    if (arguments == NULL)
        return NULL;
    PyTuple_SET_ITEM(arguments, 0, Py_NewRef(sock));
    for (Py_ssize_t i = 0; i < count; i++)
        PyTuple_SET_ITEM(arguments, 1 + i, Py_NewRef(PyTuple_GET_ITEM(values, first + i)));
    return arguments;
}

static void
run_start(Loop *loop, int flags, const char *body, Py_ssize_t length, Py_ssize_t name_size)
{
    pid_t pid = getpid();
    PyObject *function = NULL;
    if (ignore_no_more() < 0)
        give_up();
    PyObject *values = load_values(body + name_size, length - name_size);
    if (values != NULL && name_size > 0)
        function = find_function(body, name_size, values);
    else if (values != NULL)
        function = PySequence_GetItem(values, 0);
    if (function == NULL)
        refuse(loop, flags, pid);
    if (getpid() != pid) { /* a copy that the decoding of a value has made */
        PyObject *result = PyObject_CallFunction(parts[END_COPY], "i", 0);
        Py_XDECREF(result);
        give_up();
    }
    if (enter(loop, flags, function, body, name_size) < 0)
        give_up();
    PyObject *arguments = arguments_from(loop->sock, values, name_size == 0);
    Py_DECREF(values);
    if (arguments == NULL)
        give_up();
    run_function(loop, function, arguments);
}

static struct {
    Header header;
    char body[4096 - sizeof(Header)];
} frame; /* not on the stack, which is as deep as without the compiled part */

/* Do without effect what precedes a function, so that its page faults come while this process has nothing to do. Return
   -1 with the exception of a signal handler. */
static int
rehearse(void)
{
    static const char name[] = "builtins:id";
    *(volatile uint8_t *)&frame.header.version = 0;
    PyObject *values = load_values(NULL, 0);
    PyObject *function = look_up(name, (Py_ssize_t)sizeof(name) - 1);
    PyObject *arguments = values == NULL || function == NULL ? NULL : arguments_from(function, values, 0);
    Py_XDECREF(arguments);
    Py_XDECREF(function);
    Py_XDECREF(values);
    PyErr_Clear(); /* what fails now fails again, if it is needed */
    struct sigaction before; /* with the flags that a library may have set, which signal.signal clears */
    if (sigaction(SIGCHLD, NULL, &before) != 0 || before.sa_handler != SIG_DFL)
        return 0;
    int failed = set_signal(parts[NUMBER_CHILD], parts[SIG_DEFAULT]);
    sigaction(SIGCHLD, &before, NULL);
    return failed;
}

/* Run the function of a usual START if that has come. Return if not, with nothing read, or with an exception. */
static void
start_at_once(Loop *loop, int flags)
{
    ssize_t size = recv(loop->control, &frame, sizeof(frame), MSG_PEEK | MSG_DONTWAIT);
    const Header *header = &frame.header;
    if (size < (ssize_t)sizeof(Header) || header->version != VERSION || header->kind != START || header->count != 0 ||
        header->length == 0 || header->length > (size_t)size - sizeof(Header) || header->value < 0 ||
        header->value > header->length)
        return;
    size_t wanted = sizeof(Header) + header->length;
    if (recv(loop->control, &frame, wanted, MSG_DONTWAIT) != (ssize_t)wanted)
        give_up();
    run_start(loop, flags, frame.body, header->length, (Py_ssize_t)header->value);
}

/* Show the title of a template that has nothing to do. Twin of template.template.show_idle. */
static void
show_idle(Loop *loop)
{
    static const char name[] = "anyfork";
    Py_ssize_t size = (Py_ssize_t)sizeof(name) - 1;
    char text[16]; /* what the kernel keeps */
    if (!loop->titled || loop->title_room == 0 || loop->title_size + size > loop->title_shown)
        return; /* it keeps the title of its template, or Python shows this one */
    show_title(loop, name, size);
    snprintf(text, sizeof(text), "%d-%s", atoi(loop->title), name);
    prctl(PR_SET_NAME, text);
}

/* Wait for the first frame. Most owners send it at once, and some processes are faster; one that has to wait longer is
   a spare, or becomes a template. Return whether a frame, and nothing else, has come. */
static int
wait_for_start(Loop *loop)
{
    struct pollfd polled[] = {{.fd = loop->control, .events = POLLIN}, {.fd = loop->lifeline, .events = POLLIN}};
    int count = poll(polled, 2, PATIENCE);
    if (count == 0) {
        sigset_t mask;
        show_idle(loop);
        loop->waited = 1;
        int failed = rehearse();
        block_signals(&mask); /* one that comes between the check and the wait would be noticed too late */
        count = failed < 0 || PyErr_CheckSignals() < 0 ? -1 : ppoll(polled, 2, NULL, &mask);
        sigprocmask(SIG_SETMASK, &mask, NULL);
    }
    return count == 1 && (polled[0].revents & POLLIN);
}

/* Let a new process start, or go on as a template in Python. */
static PyObject *
be_born(Loop *loop, int flags)
{
    int usual = loop->usual && !(flags & DETACHED);
    int renewed = !usual || loop->renews;
    if (renewed) {
        PyObject *may_start = PyObject_CallFunction(parts[BE_BORN], "Oi", loop->template, flags);
        if (may_start == NULL)
            return NULL;
        usual = usual && PyObject_IsTrue(may_start);
        Py_DECREF(may_start);
    }
    if (usual && !renewed)
        renew();
    if (usual && wait_for_start(loop))
        start_at_once(loop, flags);
    if (PyErr_Occurred())
        return NULL;
    if (!renewed) {
        PyObject *done = PyObject_CallFunction(parts[BE_BORN], "Oi", loop->template, flags);
        if (done == NULL)
            return NULL;
        Py_DECREF(done);
    }
    return event(loop, BORN_HERE, Py_NewRef(Py_None));
}

/* Fork for a usual request. Return an event for Python in the new process, and in the template if something failed. */
static PyObject *
fork_for(Loop *loop, const Message *message)
{
    int flags = (int)message->header.value & (DETACHED | FOLLOWED);
    const int *fds = message->fds;
    int reports[2];
    pid_t pid;

    if (PySys_Audit("os.fork", NULL) < 0) { /* Python asks again, and refuses the request */
        PyErr_Clear();
        return frame_event(loop, message);
    }
    if (pipe2(reports, O_CLOEXEC) < 0)
        return frame_event(loop, message);
    if (fds[2] > loop->high)
        loop->high = fds[2];
    if (reports[1] > loop->high)
        loop->high = reports[1];
    pid = fork();
    if (pid < 0) {
        close(reports[0]);
        close(reports[1]);
        return frame_event(loop, message);
    }
    if (pid == 0) {
        become(loop, fds, reports[1], flags);
        sigprocmask(SIG_SETMASK, &loop->mask, NULL);
        return be_born(loop, flags);
    }
    loop->forks++;
    if (add_child(loop, pid, fds[1], reports[0], flags) < 0) {
        /* A signal must not end this template now: template.shutdown looks for that. */
        if (PyObject_SetAttrString(loop->template, "forking", Py_True) < 0)
            return NULL;
        return event(loop, FORKED, Py_BuildValue("i(iii)(ii)i", pid, fds[0], fds[1], fds[2], reports[0], reports[1],
                                                 flags));
    }
    close(fds[0]);
    close(fds[2]);
    close(reports[1]);
    return NULL;
}

/* A request for a spare waits until there has been nothing else to do for a moment: the process before it is just about
   to start or to end. Usual requests for forks overtake it, all other frames have to wait for it. The twin in Python
   does not put it off. */
static Message later;
static pid_t later_owner; /* the template that keeps it, 0 if there is none */

static PyObject *
fork_later(Loop *loop)
{
    later_owner = 0;
    return fork_for(loop, &later);
}

static PyObject *
put_off(Loop *loop, const Message *message)
{
    later.header = message->header;
    later.size = message->size;
    later.flags = message->flags;
    later.count = message->count;
    memcpy(later.fds, message->fds, FORK_DESCRIPTORS * sizeof(int));
    later_owner = getpid();
    if (later.fds[2] > loop->high)
        loop->high = later.fds[2];
    return NULL;
}

/* Return whether the next frame may be taken before the request that was put off. */
static int
overtakes(const Loop *loop)
{
    Header header = no_header;
    ssize_t size = recv(loop->control, &header, sizeof(header), MSG_PEEK | MSG_DONTWAIT);
    return size == sizeof(header) && header.version == VERSION && header.kind == FORK && header.length == 0 &&
           header.count == FORK_DESCRIPTORS && !(header.value & SPARE);
}

/* Take what the control socket has. Return an event for Python unless it is a usual request for a fork. */
static PyObject *
take_frame(Loop *loop)
{
    static Message message;
    const Header *header = &message.header;
    message.header = no_header;
    if (receive(loop->control, &message) < 0)
        return errno == EAGAIN ? NULL : event(loop, FAILED, PyLong_FromLong(errno));
    if (message.size == sizeof(Header) && header->version == VERSION && header->kind == FORK && header->length == 0 &&
        header->count == FORK_DESCRIPTORS && message.count == FORK_DESCRIPTORS && !(message.flags & MSG_CTRUNC) &&
        !hooks_changed())
        return header->value & SPARE ? put_off(loop, &message) : fork_for(loop, &message);
    return frame_event(loop, &message);
}

/* Deal with some events. Return an event for Python, or NULL, which means an exception only if there is one. */
static PyObject *
turn(Loop *loop, const struct epoll_event *events, int count)
{
    PyObject *result = NULL;
    int control = 0;
    for (int i = 0; i < count; i++) {
        if (events[i].data.fd == loop->lifeline)
            return event(loop, LIFELINE, Py_NewRef(Py_None));
        control |= events[i].data.fd == loop->control;
    }
    for (int i = 0; i < count; i++) {
        Py_ssize_t child = find_child(loop->table, events[i].data.fd);
        if (child < 0 && events[i].data.fd != loop->control)
            return event(loop, WAIT, Py_NewRef(Py_None));
        if (child >= 0 && ((result = reap(loop, child)) != NULL || PyErr_Occurred()))
            return result; /* epoll reports the other events again */
    }
    if (loop->several >= 0 && loop->forks >= loop->several && loop->table->count == 0 && !later_owner)
        return event(loop, CHILDLESS, Py_NewRef(Py_None)); /* epoll reports the control socket again */
    if (control && later_owner && !overtakes(loop))
        return fork_later(loop); /* as above */
    return control ? take_frame(loop) : NULL;
}

static PyObject *
run_loop(Loop *loop)
{
    static struct epoll_event events[EVENTS];
    PyObject *result = NULL;

    for (unsigned turns = 0; result == NULL && !PyErr_Occurred(); turns++) {
        int count = epoll_pwait(loop->epoll, events, EVENTS, later_owner ? REST : -1, &loop->mask);
        if (count > 0)
            result = turn(loop, events, count);
        else if (count == 0)
            result = fork_later(loop);
        else if (count < 0 && errno != EINTR)
            return event(loop, FAILED, PyLong_FromLong(errno));
        if (count > 0 && turns % TURNS == 0) { /* signals come at last, even if there is always something to do */
            sigprocmask(SIG_SETMASK, &loop->mask, NULL);
            block_signals(NULL);
        }
        if (result == NULL && !PyErr_Occurred() && (count < 0 || turns % TURNS == 0) && PyErr_CheckSignals() < 0)
            return NULL;
    }
    return result;
}

PyDoc_STRVAR(serve_doc,
"serve(template, sock, table, (control, lifeline, reports, epoll, first, high), (usual, renews, titled), several, title)\n--\n\n"
"Fork for usual requests and reap until there is anything unusual; return it, in the template or in a new process.");

static PyObject *
serve(PyObject *module, PyObject *args)
{
    Loop loop = {.forks = 0};
    if (!PyArg_ParseTuple(args, "OOO!(iiiiii)(ppp)l(y#nnn):serve", &loop.template, &loop.sock, table_type, &loop.table,
                          &loop.control, &loop.lifeline, &loop.reports, &loop.epoll, &loop.first, &loop.high,
                          &loop.usual, &loop.renews, &loop.titled, &loop.several, &loop.title, &loop.title_size, &loop.title_start,
                          &loop.title_room, &loop.title_shown))
        return NULL;
    if (later_owner != getpid()) /* this process was forked while its template had put it off */
        later_owner = 0;
    block_signals(&loop.mask);
    PyObject *result = PyErr_CheckSignals() < 0 ? NULL : run_loop(&loop);
    sigprocmask(SIG_SETMASK, &loop.mask, NULL);
    return result;
}

PyDoc_STRVAR(runs_hooks_in_parent_doc,
"runs_hooks_in_parent()\n--\n\nReturn whether fork() runs hooks in the forking process.");

static PyObject *
runs_hooks_in_parent(PyObject *module, PyObject *unused)
{
    int any = 0;
    for (int kind = BEFORE; kind <= IN_PARENT; kind++)
        any |= hooks.chosen[kind] != NULL && PyTuple_GET_SIZE(hooks.chosen[kind]) > 0;
    return PyBool_FromLong(any);
}

PyDoc_STRVAR(runs_hooks_in_child_doc,
"runs_hooks_in_child()\n--\n\nReturn whether a new process runs hooks.");

static PyObject *
runs_hooks_in_child(PyObject *module, PyObject *unused)
{
    return PyBool_FromLong(hooks.chosen[IN_CHILD] != NULL && PyTuple_GET_SIZE(hooks.chosen[IN_CHILD]) > 0);
}

PyDoc_STRVAR(run_hooks_in_child_doc, "run_hooks_in_child()\n--\n\nRun the chosen hooks of a new process.");

static PyObject *
run_hooks_in_child(PyObject *module, PyObject *unused)
{
    run_hooks(IN_CHILD);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(collapse_doc,
"collapse(start, end)\n--\n\nMove a range of addresses to huge pages; return 0, or the number of the error.");

static PyObject *
collapse(PyObject *module, PyObject *args)
{
    unsigned long long start, end;
    if (!PyArg_ParseTuple(args, "KK:collapse", &start, &end))
        return NULL;
    int failed = madvise((void *)(uintptr_t)start, (size_t)(end - start), MADV_COLLAPSE);
    return PyLong_FromLong(failed ? errno : 0);
}

/* --- Arenas ------------------------------------------------------------------------------------------------------ */

/* The interpreter asks for the memory of small objects in arenas of 1 MB, and the kernel puts each into some gap. So a
   large heap consists of dozens of mappings, whose ends fill no huge page (see template.heap): of 1 GB, 90 MB
   stay in small pages, which cost a fork three times as much as the rest. In a template, arenas beyond the first few
   therefore lie side by side, in regions that begin and end with a huge page. Only addresses are reserved: memory is
   accounted when an arena is taken, and an arena that is freed is unmapped. Addresses that are reserved count where a
   limit is set for them (RLIMIT_AS), as processes may do: so they are few, and none if the template has a limit. */

enum { HUGE = 2 << 20, FEW = 8 << 20 /* bytes: below, there is nothing to gain */, FRACTION = 16, REGIONS = 256 };

typedef struct {
    char *start, *next, *end; /* arenas before next were taken */
} Region;

static struct {
    PyObjectArenaAllocator usual;
    Region regions[REGIONS]; /* the last one is in use */
    int count;
    Py_ssize_t held; /* bytes, without the arenas from before */
} arenas;

/* Reserve addresses for a fraction of the heap, and at least for one arena. */
static Region *
open_region(size_t least)
{
    struct rlimit limit;
    if (arenas.count == REGIONS) /* many arenas come and go: there is no telling what stays */
        return NULL;
    if (getrlimit(RLIMIT_AS, &limit) < 0 || limit.rlim_cur != RLIM_INFINITY)
        return NULL;
    size_t wanted = (size_t)arenas.held / FRACTION > least ? (size_t)arenas.held / FRACTION : least;
    size_t size = (wanted + HUGE - 1) / HUGE * HUGE;
    char *mapped = mmap(NULL, size + HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED)
        return NULL;
    char *end = (char *)((uintptr_t)(mapped + size + HUGE) / HUGE * HUGE), *start = end - size;
    munmap(mapped, (size_t)(start - mapped));
    if (end < mapped + size + HUGE)
        munmap(end, (size_t)(mapped + size + HUGE - end));
    Region *region = &arenas.regions[arenas.count++];
    *region = (Region){start, start, end};
    return region;
}

/* Return a region with space for an arena, or NULL. */
static Region *
find_region(size_t size)
{
    Region *last = arenas.count > 0 ? &arenas.regions[arenas.count - 1] : NULL;
    if (last != NULL && (size_t)(last->end - last->next) >= size)
        return last;
    if (last != NULL && last->next < last->end) {
        munmap(last->next, (size_t)(last->end - last->next));
        last->end = last->next;
    }
    return open_region(size);
}

/* Only the main interpreter uses regions: others may have a GIL of their own. */
static int
in_main_interpreter(void)
{
    PyThreadState *thread = _PyThreadState_UncheckedGet();
    return thread != NULL && PyThreadState_GetInterpreter(thread) == PyInterpreterState_Main();
}

/* Return an arena in a region, or NULL. */
static void *
take_from_region(size_t size)
{
    Region *region = arenas.held + (Py_ssize_t)size > FEW ? find_region(size) : NULL;
    if (region == NULL || mprotect(region->next, size, PROT_READ | PROT_WRITE) < 0)
        return NULL;
    region->next += size;
    return region->next - size;
}

static void *
allocate_arena(void *unused, size_t size)
{
    int counted = in_main_interpreter();
    void *arena = counted ? take_from_region(size) : NULL;
    if (arena == NULL)
        arena = arenas.usual.alloc(arenas.usual.ctx, size);
    if (counted && arena != NULL)
        arenas.held += (Py_ssize_t)size;
    return arena;
}

static void
free_arena(void *unused, void *arena, size_t size)
{
    if (in_main_interpreter()) {
        arenas.held -= (Py_ssize_t)size;
        for (int i = 0; i < arenas.count; i++) {
            const Region *region = &arenas.regions[i];
            if ((char *)arena >= region->start && (char *)arena < region->next) {
                munmap(arena, size);
                return;
            }
        }
    }
    arenas.usual.free(arenas.usual.ctx, arena, size);
}

PyDoc_STRVAR(align_arenas_doc,
"align_arenas()\n--\n\n"
"Have the interpreter put the memory of its objects side by side from now on, where huge pages can hold all of it.");

static PyObject *
align_arenas(PyObject *module, PyObject *unused)
{
    PyObjectArenaAllocator aligned = {NULL, allocate_arena, free_arena};
    if (arenas.usual.alloc == NULL) {
        PyObject_GetArenaAllocator(&arenas.usual);
        PyObject_SetArenaAllocator(&aligned);
    }
    Py_RETURN_NONE;
}

/* --- Immortal objects -------------------------------------------------------------------------------------------- */

/* Twin of template.heap, for the versions of CPython that have them. */
#if PY_VERSION_HEX >= 0x030c0000

typedef struct {
    PyObject **objects; /* borrowed: immortal already, but what they hold is not */
    size_t count, room;
} Holders;

#define SURPLUS (1 << 20) /* references that were counted before, and are dropped without a look at the count */

static void
set_immortal(PyObject *object)
{
#if PY_VERSION_HEX >= 0x030e0000
    object->ob_refcnt = (uint32_t)_Py_IMMORTAL_INITIAL_REFCNT + SURPLUS;
    object->ob_flags |= _Py_IMMORTAL_FLAGS; /* the interpreter's stack looks at these alone */
#else
    object->ob_refcnt = _Py_IMMORTAL_REFCNT;
#endif
}

static int
push_holder(Holders *holders, PyObject *object)
{
    if (holders->count == holders->room) {
        size_t room = holders->room ? 2 * holders->room : 1024;
        PyObject **objects = PyMem_RawRealloc(holders->objects, room * sizeof(*objects));
        if (objects == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        holders->objects = objects;
        holders->room = room;
    }
    holders->objects[holders->count++] = object;
    return 0;
}

static int
visit_held(PyObject *object, void *holders)
{
    if (object == NULL || _Py_IsImmortal(object))
        return 0;
    set_immortal(object);
    /* The garbage collector does not look at these, so they are not among the objects that it has found. */
    if (PyCode_Check(object) || (PyObject_IS_GC(object) && !PyObject_GC_IsTracked(object)))
        return push_holder(holders, object);
    return 0;
}

static int
visit_code(PyCodeObject *code, Holders *holders)
{
    PyObject *const held[] = {code->co_consts,         code->co_names,           code->co_exceptiontable,
                              code->co_localsplusnames, code->co_localspluskinds, code->co_filename,
                              code->co_name,           code->co_qualname,        code->co_linetable};
    for (size_t i = 0; i < Py_ARRAY_LENGTH(held); i++) {
        if (visit_held(held[i], holders) < 0)
            return -1;
    }
    return 0;
}

/* Make what an object holds immortal. */
static int
visit_holder(PyObject *object, Holders *holders)
{
    if (PyCode_Check(object))
        return visit_code((PyCodeObject *)object, holders);
    if (PyDict_Check(object)) { /* which shows the collector only keys that are no strings */
        PyObject *key, *value;
        Py_ssize_t at = 0;
        while (PyDict_Next(object, &at, &key, &value)) {
            if (visit_held(key, holders) < 0)
                return -1;
        }
    }
    traverseproc traverse = PyObject_IS_GC(object) ? Py_TYPE(object)->tp_traverse : NULL;
    return traverse == NULL ? 0 : traverse(object, visit_held, holders);
}

PyDoc_STRVAR(make_immortal_doc,
"make_immortal(objects)\n--\n\nMake the objects of a list, and all that they hold, immortal.");

static PyObject *
make_immortal(PyObject *module, PyObject *list)
{
    Holders holders = {0};
    if (!PyList_Check(list)) {
        PyErr_SetString(PyExc_TypeError, "the objects must be in a list");
        return NULL;
    }
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list) && !PyErr_Occurred(); i++) {
        PyObject *object = PyList_GET_ITEM(list, i);
        if (!_Py_IsImmortal(object))
            set_immortal(object);
        visit_holder(object, &holders);
        while (holders.count > 0 && !PyErr_Occurred())
            visit_holder(holders.objects[--holders.count], &holders);
    }
    PyMem_RawFree(holders.objects);
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}

#endif

static PyMethodDef functions[] = {
#if PY_VERSION_HEX >= 0x030c0000
    {"make_immortal", make_immortal, METH_O, make_immortal_doc},
#endif
    {"collapse", collapse, METH_VARARGS, collapse_doc},
    {"align_arenas", align_arenas, METH_NOARGS, align_arenas_doc},
    {"choose_hooks", choose_hooks, METH_VARARGS, choose_hooks_doc},
    {"reseeds", reseeds, METH_VARARGS, reseeds_doc},
    {"fork", fast_fork, METH_NOARGS, fork_doc},
    {"serve", serve, METH_VARARGS, serve_doc},
    {"runs_hooks_in_parent", runs_hooks_in_parent, METH_NOARGS, runs_hooks_in_parent_doc},
    {"prepare_births", prepare_births, METH_O, prepare_births_doc},
    {"runs_hooks_in_child", runs_hooks_in_child, METH_NOARGS, runs_hooks_in_child_doc},
    {"run_hooks_in_child", run_hooks_in_child, METH_NOARGS, run_hooks_in_child_doc},
    {NULL, NULL, 0, NULL},
};

static int
execute(PyObject *module)
{
    table_type = (PyTypeObject *)PyType_FromSpec(&table_spec);
    name_threading = PyUnicode_InternFromString("threading");
    name_atexits = PyUnicode_InternFromString("_threading_atexits");
    name_multiprocessing = PyUnicode_InternFromString("multiprocessing.util");
    name_native_id = PyUnicode_InternFromString("_native_id");
    if (name_native_id == NULL || name_threading == NULL || name_atexits == NULL || name_multiprocessing == NULL)
        return -1;
    if (table_type == NULL || PyModule_AddType(module, table_type) < 0)
        return -1;
    const struct {
        const char *name;
        int value;
    } constants[] = {{"INTERFACE", INTERFACE},     {"FRAME", FRAME},   {"LIFELINE", LIFELINE},
                     {"ENDED", ENDED},             {"WAIT", WAIT},     {"FORKED", FORKED},
                     {"BORN_HERE", BORN_HERE},     {"FAILED", FAILED},
                     {"CHILDLESS", CHILDLESS}};
    for (size_t i = 0; i < Py_ARRAY_LENGTH(constants); i++) {
        if (PyModule_AddIntConstant(module, constants[i].name, constants[i].value) < 0)
            return -1;
    }
    return 0;
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, execute},
#if PY_VERSION_HEX >= 0x030c0000
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_anyfork_child.template._fast",
    .m_doc = "The compiled part of a template.",
    .m_methods = functions,
    .m_slots = slots,
};

PyMODINIT_FUNC
PyInit__fast(void)
{
    return PyModuleDef_Init(&definition);
}
