"""unmerge audit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unmerge.cli.arguments import Base, Limit, Tasks
from unmerge.cli.friendly import FAILED, warn
from unmerge.cli.progress import bars

if TYPE_CHECKING:
    from unmerge.auditing import Audit


def audit(
    out: Annotated[Path, typer.Option("--out", help="The folder to make: page, record, bill of materials, recipe, figures.")],
    target: Annotated[Path | None, typer.Argument(help="A PEFT adapter or a checkpoint, a folder or a name on the hub. None with --record.")] = None,
    base: Base = None,
    dictionary: Annotated[
        list[Path] | None,
        typer.Option("--dictionary", help="As for decompose. May be given again."),
    ] = None,
    tasks: Tasks = None,
    limit: Limit = None,
    fail_on: Annotated[
        list[str] | None,
        typer.Option(
            "--fail-on",
            help="Exit with status 4 where this holds: unknown-share=X, component=NAME, relative=NAME, relative, licence-conflict, licence-unknown, "
            "not-verified, no-recipe or warning. May be given again.",
        ),
    ] = None,
    record: Annotated[Path | None, typer.Option("--record", help="Draw an audit again from its audit.json, without the model.")] = None,
) -> None:
    """Find out everything about one target, and write one page that a person can read."""
    from unmerge.core.errors import need

    need("cyclonedx", "audit")  # now, and not after the work
    need("jinja2", "audit")
    from unmerge.report.audit import PAGE, sentence

    done = _again(record, out, fail_on or [], {"a target": target, "--base": base, "--dictionary": dictionary, "--tasks": tasks}) if record else None
    done = done or _run(target, base, dictionary or [], tasks, limit, out, fail_on or [])
    warn(done.decomposition.warnings)
    warn(finding.text for finding in done.licences.findings)
    typer.echo(f"{sentence(done)}\n{out / PAGE}")
    failed = [gate for gate in done.gates if gate.failed]
    for gate in failed:
        typer.echo(f"unmerge: {gate.condition}: {gate.because}", err=True)
    if failed:
        raise typer.Exit(FAILED)


def _run(
    target: Path | None, base: Path | None, dictionary: list[Path], tasks: Path | None, limit: int | None, out: Path, fail_on: list[str]
) -> Audit:
    """Audit a target."""
    from unmerge.auditing import Request, Watches, parse_gates, run_audit
    from unmerge.core.errors import BadInput
    from unmerge.core.staging import staged
    from unmerge.decomposition import open_base, open_dictionary, open_vector
    from unmerge.report.audit import write_audit
    from unmerge.verification.tasks import read_tasks

    for what, given in (("a target", target), ("a dictionary with --dictionary", dictionary)):
        if not given:
            raise BadInput(expected=what, found="none", where="audit", hint="name it, or draw an audit again with --record")
    assert target is not None
    if tasks and base is None:
        raise BadInput(expected="a base to measure on", found="none", where="--tasks", hint="give it with --base, or leave --tasks out")
    opened = open_base(base) if base else None
    atoms = open_dictionary(dictionary, opened)
    vector = open_vector(target, opened)
    gates = parse_gates(fail_on, [atom.name for atom in atoms.atoms])
    listed = read_tasks(tasks, atoms) if tasks else None
    sources = [vector.source(), *([opened.source()] if opened else []), *(atom.source() for atom in atoms.atoms)]
    job = {"audit": [source.model_dump(mode="json") for source in sources], "tasks": str(listed), "limit": limit}
    with staged(out, job) as stage, bars() as progress:
        done = run_audit(Request(vector, atoms, opened, listed, limit, gates), stage, Watches(progress.over, progress.steps))
        write_audit(done, stage.folder)
    return done


def _again(record: Path, out: Path, fail_on: list[str], others: dict[str, object]) -> Audit:
    """Draw an audit from its record; in its own folder, each file takes the place of the old one."""
    from unmerge.auditing import parse_gates, read_audit
    from unmerge.core.errors import BadInput
    from unmerge.core.staging import staged
    from unmerge.report.audit import write_audit

    for what, given in others.items():
        if given:
            raise BadInput(expected="a record alone", found=what, where="--record", hint="leave one of the two out")
    done = read_audit(record)
    if fail_on:
        gates = parse_gates(fail_on, done.decomposition.dictionary)
        done = done.model_copy(update={"gates": [gate.check(done) for gate in gates]})
    if out.resolve() == record.parent.resolve():
        write_audit(done, out)
        return done
    with staged(out, done.model_dump(mode="json")) as stage:
        write_audit(done, stage.folder)
    return done
