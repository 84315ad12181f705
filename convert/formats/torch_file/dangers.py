"""Functions that run programs, or that reach outside a pickle: no weight file calls one.

Nothing that a pickle names is imported or run here, whatever it is. A file that calls one of these
was made to harm those who load it otherwise, or holds weights in a form that is not read.
"""

from functools import lru_cache

# Whatever is called in them, also by way of another module.
MODULES = frozenset("commands ctypes importlib pkgutil pty runpy shutil socket subprocess".split())
FUNCTIONS = frozenset(
    """
    _io.FileIO _io.open _io.open_code _pickle.Unpickler _pickle.load _pickle.loads
    asyncio.create_subprocess_exec asyncio.create_subprocess_shell asyncio.run bdb.Bdb
    builtins.__import__ builtins.apply builtins.breakpoint builtins.compile builtins.delattr
    builtins.eval builtins.exec builtins.execfile builtins.globals builtins.input builtins.locals
    builtins.open builtins.setattr builtins.vars cProfile.run cProfile.runctx cloudpickle.load
    cloudpickle.loads code.InteractiveConsole code.InteractiveInterpreter code.interact codecs.open
    codeop.compile_command dill.load dill.loads distutils.spawn.spawn http.client.HTTPConnection
    http.client.HTTPSConnection io.FileIO io.open io.open_code joblib.load marshal.load
    marshal.loads multiprocessing.Process numpy.fromfile numpy.lib.npyio.load numpy.load pandas.eval
    pandas.read_pickle pdb.run pdb.runcall pdb.runeval pickle.Unpickler pickle.load pickle.loads
    pip.main profile.run profile.runctx pydoc.pipepager requests.get requests.post
    serialization.load shelve.open sys.exit sys.setprofile sys.settrace threading.Thread
    timeit.timeit torch.hub.load torch.jit.load torch.load urllib.request.urlopen
    urllib.request.urlretrieve venv.create webbrowser.open yaml.load yaml.unsafe_load
    """.split()
)
SYSTEM = ("os", "posix", "nt")  # what they have in lower case, and is no record of numbers
RECORDS = ("stat_result", "statvfs_result", "terminal_size", "times_result", "uname_result")
# How tensors look in what pickle.dump, and not torch.save, wrote.
NESTED_FILE = "torch.storage._load_from_bytes"

WARNING = (
    "which runs code or reaches outside the file, as no weight file needs; nothing was run: do not "
    "load this file with torch.load or pickle"
)
PICKLED = (
    "as files of pickle.dump do, whose tensors are not read, and nothing was run: load it where "
    "you trust it, and torch.save what is in it"
)


@lru_cache(maxsize=256)
def danger_of(name: str) -> str:
    """What to say of a call of a function by this name; nothing where it is harmless."""
    if name == NESTED_FILE:
        return PICKLED
    parts = name.split(".")
    runs = any(".".join(parts[-count:]) in FUNCTIONS for count in (2, 3))
    runs = runs or not MODULES.isdisjoint(parts[:-1]) or _is_of_system(parts)
    return WARNING if runs else ""


def _is_of_system(parts: list[str]) -> bool:
    """Whether it is a function of the operating system, also by way of another module."""
    inside = len(parts) > 1 and parts[-2] in SYSTEM
    return inside and parts[-1].islower() and parts[-1] not in RECORDS
