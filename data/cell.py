"""The inner half of data/sandbox.py: shut this process in, as told by argv[1] (JSON), then become the program.

Its text is given to a fresh interpreter; it is never imported and uses the standard library alone. Two processes: the
warden stays outside, waits, kills what is left and reports on a pipe; the other one becomes the program.

    mode      "root"   new mount, pid, net, ipc and uts namespaces, made with root's rights; then another user
              "user"   the same inside a user namespace, for ordinary users
              "bare"   resource limits, and another user where we are root
    uid       the user that the program runs as, None to stay who we are;   wall: seconds until it is killed
    home      folder with `box`, the program's files, and, for a namespace, an empty folder `root`
    readable  what it may see of the file system, read-only (namespaces);   limits: {RLIMIT_…: value};   argv, env
"""

import contextlib
import ctypes
import json
import os
import resource
import select
import shutil
import signal
import sys
import time

NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
NOSUID, NODEV, NOEXEC, BIND, REC, PRIVATE = 2, 4, 8, 0x1000, 0x4000, 0x40000
DETACH, PDEATHSIG, DUMPABLE, CAPBSET_DROP, NO_NEW_PRIVS = 2, 1, 4, 24, 38
MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE, READ_ONLY = 442, -100, 0x8000, 1 | 2 | 4  # read-only, no setuid, no devices

libc = ctypes.CDLL(None, use_errno=True)


def call(name, *args):
    """A libc function that returns 0, or OSError."""
    args = [arg.encode() if isinstance(arg, str) else arg for arg in args]
    args = [ctypes.c_ulong(arg) if isinstance(arg, int) else arg for arg in args]
    if getattr(libc, name)(*args):
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")


def bind(source, target, read_only=True):
    call("mount", source, target, None, BIND | REC, None)
    if read_only:  # with everything that is mounted below it
        attributes = (ctypes.c_uint64 * 4)(READ_ONLY, 0, 0, 0)
        call("syscall", MOUNT_SETATTR, AT_FDCWD, target, AT_RECURSIVE, ctypes.byref(attributes), 32)


def build_root(home, readable, disk):
    """A new root on a small tmpfs: `readable`, a few devices, /proc if it may be had, /tmp, and /box to work in."""
    root = f"{home}/root"
    call("mount", "tmpfs", root, "tmpfs", NOSUID | NODEV, f"size={disk},mode=755")
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
    os.mkdir(f"{root}/dev")
    for name in ("null", "zero", "urandom"):
        open(f"{root}/dev/{name}", "x").close()
        bind(f"/dev/{name}", f"{root}/dev/{name}", read_only=False)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        os.symlink(f"/proc/self/fd/{number}", f"{root}/dev/{name}")
    os.mkdir(f"{root}/proc")
    with contextlib.suppress(OSError):  # containers that hide parts of /proc forbid a new one; few programs need it
        call("mount", "proc", f"{root}/proc", "proc", NOSUID | NODEV | NOEXEC, None)
    os.mkdir(f"{root}/tmp")
    os.chmod(f"{root}/tmp", 0o1777)
    shutil.copytree(f"{home}/box", f"{root}/box")
    os.chdir(root)
    call("pivot_root", ".", ".")
    call("umount2", ".", DETACH)


def become(uid):
    if uid is not None:
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)


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


def run_program(cfg):
    """In the child: never returns."""
    call("prctl", PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # the warden's end is ours, and with pid 1 all others end
    box = f"{cfg['home']}/box"
    if cfg["mode"] != "bare":
        build_root(cfg["home"], cfg["readable"], cfg["disk"])
        box = "/box"
    if cfg["uid"] is not None and cfg["mode"] != "user":
        os.chown(box, cfg["uid"], cfg["uid"])
    os.chdir(box)
    for name, value in cfg["limits"].items():
        resource.setrlimit(getattr(resource, name), (value, value))
    if cfg["mode"] != "user":
        become(cfg["uid"])
    if os.geteuid() == 0:  # there is nobody else to become
        with contextlib.suppress(OSError):  # after the last one
            for capability in range(64):
                call("prctl", CAPBSET_DROP, capability, 0, 0, 0)
    call("prctl", NO_NEW_PRIVS, 1, 0, 0, 0)
    os.execve(cfg["argv"][0], cfg["argv"], cfg["env"])


def main():
    cfg = json.loads(sys.argv[1])
    os.set_inheritable(cfg["report"], False)  # the program must not find it
    os.umask(0o022)
    if cfg["mode"] != "bare":
        enter(cfg)
    begin, pid = time.monotonic(), os.fork()
    if pid == 0:
        try:
            run_program(cfg)
        except BaseException as error:
            os.write(cfg["report"], json.dumps({"failed": str(error)}).encode() + b"\n")
        os._exit(1)
    ended, _, _ = select.select([os.pidfd_open(pid)], [], [], cfg["wall"])
    if not ended:
        os.kill(pid, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if cfg["mode"] == "bare" and cfg["uid"] is not None and os.fork() == 0:
        become(cfg["uid"])
        os.kill(-1, signal.SIGKILL)  # all that this user, who exists for one run, has left behind; not ourselves
        os._exit(0)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    report = {"status": status, "timeout": not ended, "cpu": used.ru_utime + used.ru_stime,
              "wall": time.monotonic() - begin}  # fmt: skip
    os.write(cfg["report"], json.dumps(report).encode())


main()
