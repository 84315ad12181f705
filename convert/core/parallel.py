"""Work on many tensors in several threads, with a bound on the memory that it takes."""

from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from transformer_spec.cores import cores

THREADS = min(8, cores() + 1)  # one more than can compute, for one that waits for the disk
ROOM = 96 * 2**20
LITTLE = 2**20  # bytes on which threads wait for each other for longer than they work


def in_threads(
    sizes: Mapping[str, int],
    work: Callable[[str], object],
    prepare: Callable[[str], object] = lambda name: None,
) -> None:
    """Call ``work`` with every name, several at once; the first error ends it and is raised.

    Before a thread is given a name, this one calls ``prepare`` with it.

    ``sizes`` are bytes: what is worked on together is at most ``ROOM`` more than the largest one.
    Large ones come first, so that none is left over when the other threads have nothing to do.
    Where all together are no more than ``LITTLE``, this thread works alone.
    """
    if sum(sizes.values()) <= LITTLE:
        for name in sizes:
            work(name)
        return
    limit = ROOM + max(sizes.values(), default=0)
    running: dict[Future[object], int] = {}
    with ThreadPoolExecutor(THREADS) as pool:
        try:
            for name in sorted(sizes, key=lambda name: sizes[name] <= ROOM):
                while len(running) == THREADS or sum(running.values()) + sizes[name] > limit:
                    _take_finished(running)
                prepare(name)
                running[pool.submit(work, name)] = sizes[name]
            while running:
                _take_finished(running)
        finally:
            for future in running:
                future.cancel()


def _take_finished(running: dict[Future[object], int]) -> None:
    done, _ = wait(running, return_when=FIRST_COMPLETED)
    for future in done:
        del running[future]
        future.result()
