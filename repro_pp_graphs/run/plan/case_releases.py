"""The interpreter of each case and the sglang in it: does that have what the case asks for?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from repro_pp_graphs.run.plan import environments
from repro_pp_graphs.run.plan.options import Options
from repro_pp_graphs.run.plan.refusal import PlanError
from repro_pp_graphs.server.case import flags, needs
from repro_pp_graphs.server.case.argfile import ServerArgs
from repro_pp_graphs.server.case.needs import Abilities
from repro_pp_graphs.server.release import pp_loop
from repro_pp_graphs.server.release.installed import Prober, Release, version_numbers, without_gpus
from repro_pp_graphs.server.release.release_facts import pp_sends


class CaseReleases:
    """Asks each interpreter once for its release."""

    def __init__(self, options: Options, probe: Prober) -> None:
        self.options = options
        self.probe = probe
        self.not_made: list[str] = []  # releases that cases name whose environments are not there

    def python_of(self, args: ServerArgs, case: str, mode: str, gpus: int) -> str:
        """The interpreter of a case, of a release if it names one; `gpus`: as many as it needs.

        Raises PlanError.
        """
        root, release = self.options.root, args.release
        if not release:
            return args.python or self.options.python
        name = f"server_args_{case}.txt: RELEASE={release}"
        if mode == "cpu":
            raise PlanError(
                f"{name}: a rehearsal on the CPU runs one sglang, the one it is called with: leave "
                f"this case out, or see its plan: --dry-run --gpus {gpus}"
            )
        if release not in environments.releases(root):
            known = ", ".join(environments.releases(root))
            raise PlanError(
                f"{name}: there is no lock for it, only for {known}; PYTHON=/path names another"
            )
        return environments.python_of(root, release)

    def ask(self, python: str, args: ServerArgs) -> Release | None:
        """The release of a case's interpreter; None where its environment is not made yet, or not
        whole. Raises ProbeError."""
        options = self.options
        if args.release and not environments.is_made(options.root, args.release):
            self.not_made.append(args.release)
            return None
        if options.not_made and python == options.python:
            return None
        return self.probe(python, args.env)

    def fit(
        self, args: ServerArgs, release: Release | None, version: str
    ) -> tuple[ServerArgs, list[str]]:
        """The arguments as the release knows them, and notes. Of one that is not installed yet its
        names are known where a list of them is kept. Raises FlagError."""
        if release:
            return flags.fit(args, release)
        absent = f"{f'sglang {version}' if version else 'sglang'} is not installed yet: a real run"
        names = environments.arguments(self.options.root, version)
        if not names:
            return args, [f"{absent} checks whether it takes these arguments"]
        args, renamed = flags.fit(args, Release(version, names, Path()))
        note = f"{absent} checks the values of these arguments; their names it has"
        return args, [*renamed, note]

    def serves_gpus(self, python: str, release: Release | None, mode: str) -> list[str]:
        """Notes on an interpreter that serves none. Raises PlanError where the GPUs are here."""
        if mode == "cpu" or release is None or not release.cpu_torch:
            return []
        text = without_gpus(python, release.cpu_torch)
        if not self.options.gpus:
            raise PlanError(text)
        return [text]


def check_abilities(
    args: ServerArgs,
    case: str,
    release: Release | None,
    version: str,
    options: Options,
    *,
    others: Callable[[], Mapping[str, ServerArgs]],
) -> None:
    """Raises PlanError where the release, installed or not, lacks what the case or --sends asks
    for beyond arguments. `others` reads the run's other cases: a way out must be one for them too.
    """
    can = needs.installed(release) if release else needs.looked_up(version)
    installable = environments.releases(options.root)
    if can and options.sends != "as_released":
        _check_sends(options.sends, can)
    if can and needs.unmet(args, can):
        alike = {name: its for name, its in others().items() if not (its.release or its.python)}
        lack = needs.unmet(args, can, installable, alike)
        raise PlanError(f"server_args_{case}.txt: {lack}")


def _check_sends(asked: str, release: Abilities) -> None:
    """Raises PlanError where the release sends synchronously already: it has no second way."""
    if release.loop.misfit == pp_loop.ALREADY_SYNCHRONOUS:
        how = pp_sends(version_numbers(release.version))
        named = f"are {how} as released" if how != "unknown" else "hold the host as released"
        raise PlanError(
            f"--sends {asked}: PP sends of sglang {release.version} {named}: there is no second "
            "way to compare with; leave --sends out, or use 0.5.7 or newer (--release 0.5.23, "
            "--python)"
        )
