"""python -m parity A B: whether two models are the same function; twins, train, verify, tpu"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from parity.given import MODULE, local_path
from parity.needed import both_frameworks, progress
from parity.options import check_picture, parser
from transformer_spec import Faults, UserError
from transformer_spec.errors import exit_status

COMMANDS = {
    "twins": "parity.twins_command",
    "train": "parity.training_command",
    "verify": "parity.verify_command",
    "tpu": "parity.tpu_command",
    "mutations": "parity.mutations_command",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """0 where both are the same, 1 where not, 2 for a user's mistake, 130 when interrupted."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] and given[0] in COMMANDS:
        return command(given[0])(given[1:])
    return exit_status(
        lambda: run(parser().parse_args(given)), "stopped before the comparison was complete"
    )


def command(word: str):
    return importlib.import_module(COMMANDS[word]).main


def run(options) -> int:
    check_options(options)
    # The frameworks take seconds to import, which --help must not wait for.
    with both_frameworks():
        from parity.compare import Settings, compare
    from parity.report import as_text

    settings = Settings(
        precisions=tuple(options.precision),
        gradients=options.gradients,
        explain=options.explain,
        longest=options.length,
        ids=options.ids,
        text=options.text,
        seed=options.seed,
        frameworks=(options.a_framework, options.b_framework),
        devices=(options.a_device or options.device, options.b_device or options.device),
        max_ram=options.max_ram,
    )
    with progress() as say:
        report = compare(options.a, options.b, settings, say)
    if options.json:
        from parity.certificate import report_json

        print(report_json(report))
    else:
        print(as_text(report, options.full))
    written(report, options)
    return 0 if report["passed"] else 1


def check_options(options) -> None:
    """Every fault of what is asked for at once, before anything is read."""
    faults = Faults()
    faults.require(options.seed >= 0, f"--seed {options.seed} is negative; the least is 0")
    shortest = options.length is None or options.length >= 1
    faults.require(shortest, f"--length {options.length} is too short; at least 1 is needed")
    if options.plot is not None:
        check_picture(Path(options.plot), faults)
    if options.certificate or options.card:
        flag = "--certificate" if options.certificate else "--card"
        check_place(flag, options.b, faults)
    faults.raise_if_any("cannot compare")


def check_place(flag: str, b: str, faults: Faults) -> None:
    """A certificate and a card lie in B's folder."""
    from parity.certificate import check_folder

    if b.startswith(MODULE):
        faults.add(f"{flag}: it goes into the folder of a checkpoint, and B, {b}, is code")
        return
    try:
        check_folder(local_path(b))
    except UserError as error:
        faults.add(f"{flag}: {error}")


def written(report: dict, options) -> None:
    """The picture and the certificate, and where they are."""
    said = sys.stderr if options.json else sys.stdout
    if options.plot:
        from parity.plot import plot

        print(f"picture: {plot(report, Path(options.plot))}", file=said)
    if options.certificate or options.card:
        from parity.certificate import write_certificate

        print(f"certificate: {write_certificate(local_path(options.b), report)}", file=said)
    if options.card:
        from parity.card import write_card
        from parity.certificate import read_certificate

        folder = local_path(options.b)
        print(f"card: {write_card(folder, read_certificate(folder))}", file=said)


if __name__ == "__main__":
    sys.exit(main())
