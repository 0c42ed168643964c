"""The inner half of grading/programs.py: shut this process in, as told by argv[1], then become the program.

Its text is given to a fresh interpreter; it is never imported, and uses little of the standard library, because every
test starts it anew. Two processes: the warden stays outside, waits, kills what is left and reports on a pipe, in words:
`failed <why>`, or exit status, whether it was out of time (0 or 1), and seconds of processor time; the other process
becomes the program.

    mode      "root"   new mount, pid, net, ipc and uts namespaces, made with root's rights; then another user
              "user"   the same inside a user namespace, for ordinary users
              "bare"   Landlock where the kernel has it, and another user where we are root
    uid       the user that the program runs as, None to stay who we are;   wall: seconds until it is killed
    home      folder with `box`, the program's files, and, for a namespace, an empty folder `root`
    readable  what it may see of the file system, read-only;   limits: {RLIMIT_…: value};   argv, env
    folders   whether it may make folders: where all that it writes is on a tmpfs of its own

In every mode a filter of system calls (where the kernel has it, on x86-64 and ARM) then leaves it one process with
threads: none of its own, signals to nobody else, no sockets, no namespaces, no memory that its limit does not count.
"""

import ctypes
import marshal
import os
import resource
import select
import sys

NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
RDONLY, NOSUID, NODEV, NOEXEC, BIND, REC, PRIVATE = 1, 2, 4, 8, 0x1000, 0x4000, 0x40000
DETACH, PDEATHSIG, DUMPABLE, SECCOMP, CAPBSET_DROP, SUBREAPER, NO_NEW_PRIVS = 2, 1, 4, 22, 24, 36, 38
MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE, READ_ONLY = 442, -100, 0x8000, 1 | 2 | 4  # read-only, no setuid, no devices
LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT = 444, 445, 446
SIGKILL, EPERM, ENOSYS = 9, 1, 38

libc = ctypes.CDLL(None, use_errno=True)


def call(name, *args):
    """A libc function that returns 0 or more, or OSError."""
    args = [arg.encode() if isinstance(arg, str) else arg for arg in args]
    args = [ctypes.c_ulong(arg) if isinstance(arg, int) else arg for arg in args]
    result = getattr(libc, name)(*args)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")
    return result


def optional(action, *args):
    """Whether the kernel does it: containers forbid this or that."""
    try:
        action(*args)
    except OSError:
        return False
    return True


# --- namespaces ---


def bind(source, target, read_only=True):
    call("mount", source, target, None, BIND | REC, None)
    if read_only:  # with everything that is mounted below it
        attributes = (ctypes.c_uint64 * 4)(READ_ONLY, 0, 0, 0)
        call("syscall", MOUNT_SETATTR, AT_FDCWD, target, AT_RECURSIVE, ctypes.byref(attributes), 32)


def build_root(home, readable, disk):
    """A new root on a small tmpfs: `readable`, a few devices, /proc if it may be had, /tmp, and /box to work in."""
    root = f"{home}/root"
    call("mount", "tmpfs", root, "tmpfs", NOSUID | NODEV, f"size={disk},nr_inodes=20000,mode=755")
    for path in readable:
        target, kind = root + path, os.lstat(path).st_mode & 0o170000
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if os.path.lexists(target):
            continue  # inside another one
        if kind == 0o120000:
            os.symlink(os.readlink(path), target)
            continue
        os.mkdir(target) if kind == 0o040000 else open(target, "x").close()
        bind(path, target)
    for name in ("dev", "proc", "tmp", "box"):  # a readable path may lie below one of them
        os.makedirs(f"{root}/{name}", exist_ok=True)
    for name in ("null", "zero", "urandom"):
        open(f"{root}/dev/{name}", "x").close()
        bind(f"/dev/{name}", f"{root}/dev/{name}", read_only=False)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        os.symlink(f"/proc/self/fd/{number}", f"{root}/dev/{name}")
    # containers that hide parts of /proc forbid a new one; few programs need it. Read-only: root's settings are in it
    optional(call, "mount", "proc", f"{root}/proc", "proc", RDONLY | NOSUID | NODEV | NOEXEC, None)
    os.chmod(f"{root}/tmp", 0o1777)
    for name in os.listdir(f"{home}/box"):
        with open(f"{home}/box/{name}", "rb") as source, open(f"{root}/box/{name}", "wb") as target:
            target.write(source.read())
    os.chdir(root)
    call("pivot_root", ".", ".")
    call("umount2", ".", DETACH)


def enter(cfg):
    """Make the namespaces. The pid namespace takes effect with the next fork."""
    flags = NEWNS | NEWPID | NEWNET | NEWIPC | NEWUTS
    if cfg["mode"] == "user":
        become(cfg["uid"])
        call("prctl", DUMPABLE, 1, 0, 0, 0)  # or /proc/self stays root's
        uid, gid = os.getuid(), os.getgid()
        call("unshare", flags | NEWUSER)
        for name, line in {"setgroups": "deny", "uid_map": f"{uid} {uid} 1", "gid_map": f"{gid} {gid} 1"}.items():
            with open(f"/proc/self/{name}", "w") as file:
                file.write(line)
    else:
        call("unshare", flags)
    call("mount", None, "/", None, REC | PRIVATE, None)


# --- privileges ---


def become(uid):
    if uid is not None:
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)


def drop_capabilities():
    """For a root that has nobody else to become: none now, none after exec."""
    capability = 0
    while optional(call, "prctl", CAPBSET_DROP, capability, 0, 0, 0):
        capability += 1
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    call("capset", ctypes.byref(header), ctypes.byref((ctypes.c_uint32 * 6)()))  # the inheritable ones survive exec


READ, WRITE = 1 << 2, 1 << 1
EXECUTE_READ_LIST = 1 << 0 | READ | 1 << 3


def landlock(readable, box):
    """Close the file system but for `readable` and the box. For kernels since 5.13."""
    version = call("syscall", LANDLOCK_CREATE, None, 0, 1)
    known = (1 << (13 + (version >= 2) + (version >= 3))) - 1 | (1 << 15) * (version >= 5)
    rules = ctypes.c_uint64(known)
    ruleset = call("syscall", LANDLOCK_CREATE, ctypes.byref(rules), 8, 0)
    places = dict.fromkeys(readable, EXECUTE_READ_LIST) | dict.fromkeys(("/dev/zero", "/dev/urandom"), READ)
    for path, access in {**places, "/dev/null": READ | WRITE, "/proc/self/fd/0": READ, box: known & ~1}.items():
        handle = os.open(path, os.O_PATH)
        if not os.path.isdir(path):
            access &= ~(1 << 3)  # reading a list is for folders
        rule = (ctypes.c_char * 12).from_buffer_copy(access.to_bytes(8, "little") + handle.to_bytes(4, "little"))
        call("syscall", LANDLOCK_ADD, ruleset, 1, ctypes.byref(rule), 0)
        os.close(handle)
    call("syscall", LANDLOCK_RESTRICT, ruleset, 0)
    os.close(ruleset)


# --- system calls; their numbers on x86-64 and on ARM (None: not there) ---

FORBIDDEN = {
    "fork": (57, None), "vfork": (58, None), "unshare": (272, 97), "setns": (308, 268), "chroot": (161, 51),
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "mount_setattr": (442, 442),
    "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430), "fspick": (433, 433),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "pidfd_open": (434, 434), "pidfd_getfd": (438, 438), "pidfd_send_signal": (424, 424), "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240), "process_madvise": (440, 440),
    "socket": (41, 198), "io_uring_setup": (425, 425), "bpf": (321, 280), "perf_event_open": (298, 241),
    "userfaultfd": (323, 282), "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    # memory that stays without being mapped, and so is not counted
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194), "semget": (64, 190),
    "msgget": (68, 186), "mq_open": (240, 180),
    # what Landlock does not see
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, None),
    "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54), "truncate": (76, 45), "utime": (132, None),
    "utimes": (235, None), "futimesat": (261, None), "utimensat": (280, 88), "setxattr": (188, 5),
    "lsetxattr": (189, 6), "fsetxattr": (190, 7),
}  # fmt: skip
FOLDERS = {"mkdir": (83, None), "mkdirat": (258, 34)}  # forbidden where folders nested too deeply to delete would stay
OWN = {"kill": (62, 129), "tgkill": (234, 131), "prlimit64": (302, 261)}  # allowed where they name this process
CLONE, CLONE3, THREAD = (56, 220), (435, 435), 0x10000
MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}

LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # of the kernel's packet filter
NUMBER, MACHINE, FIRST = 0, 4, 16  # where it finds them: the call's number, the machine, the low half of argument 1
ALLOW, FAIL = 0x7FFF0000, 0x50000


def filter_calls(folders):
    """Refuse what a program that computes never asks for. Calls of another machine's kind are refused altogether."""
    column, machine = MACHINES[os.uname().machine]
    rules = [(LOAD, 0, 0, MACHINE), (EQUAL, 1, 0, machine), (RETURN, 0, 0, FAIL | EPERM), (LOAD, 0, 0, NUMBER)]
    rules += [(AT_LEAST, 0, 1, 0x40000000), (RETURN, 0, 0, FAIL | EPERM)]
    for number in (numbers[column] for numbers in (FORBIDDEN if folders else FORBIDDEN | FOLDERS).values()):
        rules += [(EQUAL, 0, 1, number), (RETURN, 0, 0, FAIL | EPERM)] if number is not None else []
    rules += [(EQUAL, 0, 1, CLONE3[column]), (RETURN, 0, 0, FAIL | ENOSYS)]  # libraries then use clone
    rules += [(EQUAL, 0, 4, CLONE[column]), (LOAD, 0, 0, FIRST), (ANY_BIT, 0, 1, THREAD), (RETURN, 0, 0, ALLOW),
              (RETURN, 0, 0, FAIL | EPERM)]  # fmt: skip
    for name, numbers in OWN.items():
        rules += [(EQUAL, 0, 5, numbers[column]), (LOAD, 0, 0, FIRST), (EQUAL, 1, 0, os.getpid()),
                  (EQUAL, 0, 1, 0 if name == "prlimit64" else os.getpid()), (RETURN, 0, 0, ALLOW),
                  (RETURN, 0, 0, FAIL | EPERM)]  # fmt: skip
    rules.append((RETURN, 0, 0, ALLOW))
    code = (ctypes.c_uint64 * len(rules))(*(a | b << 16 | c << 24 | d << 32 for a, b, c, d in rules))
    call("prctl", SECCOMP, 2, ctypes.byref((ctypes.c_uint64 * 2)(len(rules), ctypes.addressof(code))), 0, 0)


# --- the two processes ---


def run_program(cfg):
    """In the child: never returns."""
    box = f"{cfg['home']}/box"
    if cfg["mode"] != "bare":
        build_root(cfg["home"], cfg["readable"], cfg["disk"])
        box = "/box"
    if cfg["uid"] is not None and cfg["mode"] != "user":
        os.chown(box, cfg["uid"], cfg["uid"])
    os.chdir(box)
    if cfg["mode"] != "user":
        become(cfg["uid"])
    call("prctl", PDEATHSIG, SIGKILL, 0, 0, 0)  # the warden's end is ours, and with pid 1 all others end
    if os.geteuid() == 0:
        drop_capabilities()
    call("prctl", NO_NEW_PRIVS, 1, 0, 0, 0)
    if cfg["mode"] == "bare":
        optional(landlock, cfg["readable"], box)
    filtered = os.uname().machine in MACHINES and optional(filter_calls, cfg["folders"])
    for name, value in cfg["limits"].items():
        # this one counts all processes of a user: too many already, where the program is no user of its own
        if not (name == "RLIMIT_NPROC" and filtered and cfg["mode"] == "bare" and cfg["uid"] is None):
            resource.setrlimit(getattr(resource, name), (value, value))
    os.execve(cfg["argv"][0], cfg["argv"], cfg["env"])


def kill_left(cfg):
    """Kill what a program has left behind without a pid namespace, which would have ended it."""
    if cfg["uid"] is not None:
        killer = os.fork()
        if killer == 0:
            become(cfg["uid"])
            os.kill(-1, SIGKILL)  # all that this user, who exists for one run, has; not ourselves
            os._exit(0)
        os.waitpid(killer, 0)  # or it could be killed with our group before it has done its work
    while True:  # orphans of our child are our children
        try:
            with open(f"/proc/self/task/{os.getpid()}/children") as file:
                for pid in file.read().split():
                    os.kill(int(pid), SIGKILL)
            os.wait()
        except OSError:
            return  # there are none


def main():
    cfg = marshal.loads(bytes.fromhex(sys.argv[1]))
    os.set_inheritable(cfg["report"], False)  # the program must not find it
    os.umask(0o022)
    if cfg["mode"] == "bare":
        call("prctl", SUBREAPER, 1, 0, 0, 0)
    else:
        enter(cfg)
    pid = os.fork()
    if pid == 0:
        try:
            run_program(cfg)
        except BaseException as error:
            os.write(cfg["report"], f"failed {error}\n".encode())
        os._exit(1)
    ended, _, _ = select.select([os.pidfd_open(pid)], [], [], cfg["wall"])
    if not ended:
        os.kill(pid, SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if cfg["mode"] == "bare":
        kill_left(cfg)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    os.write(cfg["report"], f"{status} {int(not ended)} {used.ru_utime + used.ru_stime}".encode())


main()
