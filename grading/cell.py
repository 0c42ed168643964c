"""Isolate this process as the order from grading/programs.py says, then run a program in it.

The compiled text of this file is given to a fresh interpreter, so it uses little of the standard library. The process
gives up all rights and becomes the program; what fails before that is the machine's fault, and the order is then left
as it is. The order is a dict:

    program   Python, as bytes
    function  name of the one to call with the JSON arguments on stdin; None: the program itself reads stdin
    names     {name: module that has it}, imported for a program that mentions them
    packages  folders for sys.path;   readable: what it may read of the file system;   box: the folder it works in
    bare      True where there is no bubblewrap around: then Landlock closes the file system
    limits    {RLIMIT_…: value};   recursion: depth of calls

A filter of system calls (on x86-64 and ARM) leaves the program one process with threads: no other process, signals to
itself only, no sockets, no namespaces, no memory that its limit does not count.
"""

import _thread
import builtins
import contextlib
import ctypes
import os
import resource
import sys

PDEATHSIG, SECCOMP, NO_NEW_PRIVS = 1, 22, 38  # of prctl
LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT = 444, 445, 446
SIGKILL, EPERM, ENOSYS = 9, 1, 38

libc = ctypes.CDLL(None, use_errno=True)


def call(name: str, *args) -> int:
    """Call a libc function that returns 0 or more. Raises OSError otherwise."""
    args = [ctypes.c_ulong(arg) if isinstance(arg, int) else arg for arg in args]
    result = getattr(libc, name)(*args)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")
    return result


# --- privileges ---


def drop_capabilities() -> None:
    """Give up what root may do beyond others; NO_NEW_PRIVS must see to it that exec gives none of it back."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    call("capset", ctypes.byref(header), ctypes.byref((ctypes.c_uint32 * 6)()))


EXECUTE, WRITE, READ, LIST = 1, 2, 4, 8


def landlock(readable: list[str], box: str) -> None:
    """Close the file system but for `readable` and the box. Raises PermissionError where the kernel has no Landlock."""
    version = libc.syscall(LANDLOCK_CREATE, None, 0, 1)
    if version <= 0:
        raise PermissionError("this kernel has no Landlock")

    # every right that this version knows is taken away unless a rule gives it back
    known = (1 << (13 + (version >= 2) + (version >= 3))) - 1 | (1 << 15) * (version >= 5)
    rules = ctypes.c_uint64(known)
    ruleset = call("syscall", LANDLOCK_CREATE, ctypes.byref(rules), 8, 0)

    # /proc/self/fd/0 is standard input, which may be opened by name
    places = dict.fromkeys(readable, EXECUTE | READ | LIST) | dict.fromkeys(("/dev/zero", "/dev/urandom"), READ)
    for path, access in {**places, "/dev/null": READ | WRITE, "/proc/self/fd/0": READ, box: known & ~EXECUTE}.items():
        handle = os.open(path, os.O_PATH)
        if not os.path.isdir(path):
            access &= ~LIST
        rule = (ctypes.c_char * 12).from_buffer_copy(access.to_bytes(8, "little") + handle.to_bytes(4, "little"))
        call("syscall", LANDLOCK_ADD, ruleset, 1, ctypes.byref(rule), 0)
        os.close(handle)
    call("syscall", LANDLOCK_RESTRICT, ruleset, 0)
    os.close(ruleset)


# --- system calls; their numbers on x86-64 and on ARM (None: not there) ---

FORBIDDEN = {
    # other processes, the network, and parts of the kernel that no program needs
    "fork": (57, None), "vfork": (58, None), "unshare": (272, 97), "setns": (308, 268),
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


def filter_calls(bare: bool) -> None:
    """Refuse what a program that computes never asks for. Raises PermissionError where the kernel cannot do it.

    A rule is (operation, rules to skip if true, rules to skip if false, operand).
    """
    if os.uname().machine not in MACHINES:
        raise PermissionError(f"no filter of system calls for {os.uname().machine}")
    column, machine = MACHINES[os.uname().machine]
    refuse, allow = (RETURN, 0, 0, FAIL | EPERM), (RETURN, 0, 0, ALLOW)

    # calls in the manner of another machine (32 bits) would have other numbers
    rules = [(LOAD, 0, 0, MACHINE), (EQUAL, 1, 0, machine), refuse, (LOAD, 0, 0, NUMBER)]
    rules += [(AT_LEAST, 0, 1, 0x40000000), refuse]

    # what is refused whatever its arguments are
    for numbers in (FORBIDDEN | FOLDERS if bare else FORBIDDEN).values():
        rules += [(EQUAL, 0, 1, numbers[column]), refuse] if numbers[column] is not None else []

    # threads, but no processes; without clone3, whose flags a filter cannot see, libraries use clone
    rules += [(EQUAL, 0, 1, CLONE3[column]), (RETURN, 0, 0, FAIL | ENOSYS)]
    rules += [(EQUAL, 0, 4, CLONE[column]), (LOAD, 0, 0, FIRST), (ANY_BIT, 0, 1, THREAD), allow, refuse]

    # what may name this process only, which is 0 for prlimit64
    for name, numbers in OWN.items():
        other_name = 0 if name == "prlimit64" else os.getpid()
        rules += [(EQUAL, 0, 5, numbers[column]), (LOAD, 0, 0, FIRST), (EQUAL, 1, 0, os.getpid())]
        rules += [(EQUAL, 0, 1, other_name), allow, refuse]
    rules.append(allow)

    # into the kernel's form: 8 bytes per rule, and their number and address
    code = (ctypes.c_uint64 * len(rules))(*(a | b << 16 | c << 24 | d << 32 for a, b, c, d in rules))
    program = (ctypes.c_uint64 * 2)(len(rules), ctypes.addressof(code))
    call("prctl", SECCOMP, 2, ctypes.byref(program), 0, 0)


# --- the process ---


def isolate(order: dict) -> None:
    """Give up all that the program may not have. Raises OSError where the machine cannot see to that."""
    os.chdir(order["box"])
    call("prctl", PDEATHSIG, SIGKILL, 0, 0, 0)  # it ends with who started it
    drop_capabilities()

    # what the kernel refuses from here on
    call("prctl", NO_NEW_PRIVS, 1, 0, 0, 0)
    if order["bare"]:
        landlock(order["readable"], order["box"])
    filter_calls(order["bare"])

    # last, since they count for what stands above too
    for name, value in order["limits"].items():
        resource.setrlimit(getattr(resource, name), (value, value))


def prepare(order: dict) -> None:
    """Make the interpreter what programs expect, without `site`, which takes longer than the interpreter's start."""
    builtins.exit = builtins.quit = sys.exit
    sys.argv = ["main.py"]
    sys.path += order["packages"]
    sys.setrecursionlimit(order["recursion"])
    _thread.stack_size(16 << 20)  # by default a thread takes as much address space as the main one's large stack

    # a program that asks for more than its limit continues under the limit it has
    set_limit = resource.setrlimit

    def setrlimit(*words):
        with contextlib.suppress(ValueError):
            set_limit(*words)

    resource.setrlimit = setrlimit


def add_imports(program: bytes, names: dict, scope: dict) -> None:
    """Put into `scope` the names that a program mentions (not as attributes) and may have forgotten to import."""
    import symtable

    tables = [symtable.symtable(program, "main.py", "exec")]
    for table in tables:
        tables += table.get_children()
    for name in sorted({name for table in tables for name in table.get_identifiers()} & names.keys()):
        module = __import__(names[name])
        scope[name] = module if name == names[name] else getattr(module, name)


def run_program(order: dict) -> None:
    """Execute the program; with a function, call that one and print its result as JSON."""
    program, function = order["program"], order["function"]
    module = type(sys)("solution" if function else "__main__")
    sys.modules[module.__name__] = module

    # only the result of a function goes to stdout; what is printed while it runs goes to stderr
    if function:
        import json

        arguments, out = json.load(sys.stdin), os.dup(1)
        os.dup2(2, 1)

    # sys.exit(main()) is no error: what was printed before it counts, as in LiveCodeBench
    code = compile(program, "main.py", "exec", dont_inherit=True)
    add_imports(program, order["names"], vars(module))
    try:
        exec(code, vars(module))
    except SystemExit:
        if function:
            raise

    # the function may be a method of a class Solution, as in LeetCode
    if function:
        holder = module.Solution() if hasattr(module, "Solution") else module
        result = (getattr(holder, function, None) or getattr(module, function))(*arguments)
        with open(out, "w") as file:
            json.dump(result, file, default=plain)


def plain(value: object) -> object:
    """Return what JSON has instead of a number or array of numpy, or of a deque."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if type(value).__name__ == "deque":
        return list(value)
    raise TypeError(f"the result holds a {type(value).__name__}")


def main(order: dict, file: int) -> None:
    """Isolate this process, empty the order (file: its descriptor), which tells that this is done, run the program."""
    isolate(order)
    prepare(order)
    os.ftruncate(file, 0)
    os.close(file)
    run_program(order)
