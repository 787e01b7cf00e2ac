"""The command line: `sparsejepa doctor | run | reproduce | certify | verify | score`."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Exit, Option, Typer, echo
from typer.core import TyperGroup

from sparsejepa.companion.manifest import RunFailed, stale_runs, trains, valid_trainings
from sparsejepa.companion.parameters import parse_overrides
from sparsejepa.companion.provenance import hardware, notebook_path, repository_root


class OneSentence(TyperGroup):
    """Errors that a user can mend are one sentence, not a traceback, unless --debug is given."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            echo("Interrupted: the same command goes on from the last checkpoint.", err=True)
            raise Exit(130) from error
        except (ValueError, OSError, RunFailed, ModuleNotFoundError) as error:
            if ctx.params["debug"]:
                raise
            file, reason = getattr(error, "filename", None), getattr(error, "strerror", None)
            # OSError(errno, sentence) is one of ours, and says it all.
            sentence = reason or str(error)
            if isinstance(error, ModuleNotFoundError):
                sentence = f"{error.name} is not installed: run pip install -e '.[train,book]'."
            elif file is not None and reason:
                # The system's own errors do not say what to do.
                sentence = f"{file}: {reason}; mend this and give the same command again."
            echo(sentence, err=True)
            raise Exit(1 if isinstance(error, RunFailed) else 2) from error


app = Typer(
    cls=OneSentence, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)
PRESET = Option(help="Settings from notebooks/presets: demo, reference, colab or paper.")


@app.callback()
def options(
    debug: Annotated[bool, Option(help="Show where in the code an error arose.")] = False,
) -> None:
    """Runs the notebooks of the SparseJEPA companion."""


@app.command()
def doctor() -> None:
    """Says whether notebooks can run here, with which device and data, and what is missing."""
    from sparsejepa.companion.doctor import examine

    failed = False
    for state, text in examine(repository_root()):
        failed |= state == "fail"
        echo(f"{state:4}  {text}")
    raise Exit(failed)


@app.command()
def run(
    notebook: Annotated[str, Argument(help="As notebooks/01_pretrain.ipynb.")],
    preset: Annotated[str, PRESET] = "demo",
    run: Annotated[str, Option(help="A run that the preset names.")] = "",
    parameter: Annotated[
        list[str] | None,
        Option("--parameter", "-p", help="name=value, over the preset's; may be repeated."),
    ] = None,
) -> None:
    """Runs one notebook; an interrupted run goes on when the command is given again."""
    from sparsejepa.companion.runs import run_notebook

    root = repository_root()
    overrides = parse_overrides(notebook_path(root, notebook), parameter or [])
    run_notebook(root, notebook, preset, run, overrides)


@app.command()
def reproduce(
    preset: Annotated[str, PRESET] = "demo",
    cores: Annotated[int | None, Option(min=1, help="Cores that runs share; else all.")] = None,
    jobs: Annotated[int | None, Option(min=1, help="Runs at a time; 2, or 1 with a GPU.")] = None,
    dry_run: Annotated[bool, Option("--dry-run", help="Only say what is stale.")] = False,
) -> None:
    """Makes every run of a preset that is missing or stale, and only those.

    An interrupted study goes on where it was when the command is given again.
    """
    from sparsejepa.companion.runs import reproduce as make

    root = repository_root()
    stale, valid = stale_runs(root, preset), valid_trainings(root)
    for study_run, reasons in stale:
        what = "train" if trains(root, study_run, valid) else "only report, no training"
        echo(f"{study_run.id} ({what}): {'; '.join(reasons)}")
    if not stale:
        echo(f"Every run of {preset} is fresh.")
    if dry_run or not stale:
        return
    # Takes seconds, and what is stale is said without it.
    import torch

    cores = cores or hardware()["cores"]
    # On a CPU, two runs side by side get more done than one with twice the threads, which wait for
    # each other at every operation; a GPU is best left to one.
    jobs = min(cores, jobs or (1 if torch.cuda.is_available() else 2))
    make(root, [study_run for study_run, _ in stale], jobs, cores // jobs)
    left = stale_runs(root, preset)
    echo(f"{len(stale) - len(left)} of {len(stale)} runs were made.")
    if left:
        echo(f"Not made: {', '.join(study_run.id for study_run, _ in left)}.", err=True)
        raise Exit(1)


def tell(outcomes: Iterable[Any]) -> int:
    """Prints a line for each run that `certify` or `verify` looked at; how many are wrong."""
    wrong = 0
    for run, state, details in outcomes:
        echo(f"{state:10}{run}: {details}")
        wrong += state in ("stale", "missing", "differs", "edited")
    return wrong


@app.command()
def certify(
    preset: Annotated[str, PRESET] = "reference",
    base: Annotated[str, Option(help="Revision to compare with; else each run's own.")] = "",
    only: Annotated[str, Option(help="A notebook, as 01_pretrain.")] = "",
) -> None:
    """Says whether the code here computes what the code of a preset's runs computed.

    Runs size-reduced copies with both, compares them to the bit, and keeps certificates of those
    that are equal. Exit code 1 if a run is stale.
    """
    from sparsejepa.companion.certify import certify as outcomes_of

    raise Exit(tell(outcomes_of(repository_root(), preset, base, only)) > 0)


@app.command()
def verify(
    preset: Annotated[str, PRESET] = "reference",
    minutes: Annotated[float, Option(min=0, help="Longer reports are left out.")] = 5,
) -> None:
    """Runs reports again from a preset's kept trainings and compares all numbers.

    One line a run; exit code 1 if a number differs, or if a file of a run was edited.
    """
    from sparsejepa.companion.certify import TOLERANCES
    from sparsejepa.companion.certify import verify as checked

    wrong = tell(checked(repository_root(), preset, minutes))
    echo("Numbers may differ a little: " + "; ".join(t[3] for t in TOLERANCES) + ".")
    echo(f"{wrong} runs do not agree.")
    raise Exit(wrong > 0)


@app.command()
def score(
    images: Annotated[str, Argument(help="Folder, Parquet file or Hub set NAME:CONFIGURATION.")],
    backbone: Annotated[str, Option(help="timm's name, hf-hub:NAME or file encoder.safetensors.")],
    out: Annotated[Path, Option(help="The table; its contact sheet is put beside it.")],
    weights: Annotated[Path | None, Option(help="The timm model's weights, a file.")] = None,
    split: Annotated[str, Option(help="Of a Hub data set.")] = "train",
    limit: Annotated[int, Option(min=0, help="Only the first images; 0: all.")] = 0,
    batch_size: Annotated[int, Option(min=1, help="Images at once.")] = 4,
    chunk_size: Annotated[int, Option(min=1, help="Jacobian's rows at once; GPU: 100+.")] = 16,
) -> None:
    """Scores images by JEPA-SCORE; an interrupted call goes on when the command is given again.

    Images that cannot be read are skipped, others converted to RGB; their rows say so.
    """
    for stream in (sys.stdout, sys.stderr):
        # Names of files may be beyond what the terminal's encoding has.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    # Here: it imports torch, during which a user may press Ctrl-C.
    from sparsejepa.density.score_folder import score_images

    sizes = {"limit": limit, "batch_size": batch_size, "chunk_size": chunk_size}
    score_images(images, backbone, out, weights=weights, split=split, **sizes)


if __name__ == "__main__":
    app()
