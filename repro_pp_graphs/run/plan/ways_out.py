"""Options with which a plan passes that is refused: each is tried as a plan before it is named."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from repro_pp_graphs.models import folder as model_folder
from repro_pp_graphs.run.memory import weights
from repro_pp_graphs.run.plan import environments
from repro_pp_graphs.run.plan.options import Options
from repro_pp_graphs.run.plan.refusal import PlanError
from repro_pp_graphs.run_record import Launch
from repro_pp_graphs.server.release.installed import version_numbers
from repro_pp_graphs.server.release.pp_attention import OPTION, WITHOUT

# of a GPU's memory, that is tried where the argument files' share does not hold a model
HIGHER_SHARES = [hundredth / 100 for hundredth in range(86, round(100 * weights.MOST) + 1)]
SMALL_MODEL = "meta-llama/Llama-3.1-8B-Instruct"
Passes = Callable[[Options], bool]
_Changes = dict[str, Any]


class Unfit(PlanError):
    """What was asked for cannot run on these GPUs, or not with this release; other options may."""

    def __init__(self, text: str, model: str, sizes: tuple[int, int]) -> None:
        super().__init__(text)
        self.model = model  # that was asked for
        self.pp_size, self.tp_size = sizes  # likewise, on one node


def offers(options: Options, refused: Unfit, gpus: int, passes: Passes) -> str:
    """`use A, or B`: options to add, each tried; without any, what else there is to do. `gpus`: as
    many as there are."""
    layers = options.layers or _layers(refused.model)
    found = [
        f"{_words(options, changes)}{remark}"
        for split, remark in _splits(options, gpus, refused, passes)
        for changes in _passing(options, split, refused.pp_size, layers, passes)
    ]
    if gpus < refused.pp_size * refused.tp_size:  # not tried: it takes another environment
        sglang = {"--release", "--python"} & set(options.given)
        alone = options.one_gpu or options.ranks_per_gpu or sglang
        found.append(f"--cpu{' alone' if alone else ''} (a rehearsal without graphs)")
    return f"use {', or '.join(found)}" if found else "use more GPUs, or a smaller --model"


def placements(options: Options, gpus: int, launch: Launch, passes: Passes) -> list[str]:
    """Options with which a model whose weights do not fit is placed so that they do, on so many
    GPUs in all: the other pp x tp with the most PP ranks, and a release that splits its layers
    otherwise; each tried."""
    heads = weights.config_of(launch).get("num_attention_heads") or 0
    found: list[_Changes] = []
    for tp_size in (2**power for power in range(gpus.bit_length())):
        split: _Changes = {"pp_size": gpus // tp_size, "tp_size": tp_size}
        changed = (*split.values(),) != (launch.pp_size, launch.tp_size)
        possible = changed and split["pp_size"] > 1 and heads % tp_size == 0
        if possible and passes(_changed(options, split)):
            found.append(split)
            break
    newest = max(environments.releases(options.root), key=version_numbers, default="")
    if newest and passes(_changed(options, {"release": newest})):
        found.append({"release": newest})
    return [
        _words(options, {k: v for k, v in one.items() if (k, v) != ("tp_size", launch.tp_size)})
        for one in found
    ]


def _splits(
    options: Options, gpus: int, refused: Unfit, passes: Passes
) -> Iterator[tuple[Any, str]]:
    """How ranks can be placed, as changed options, and what to say of it; not on two GPUs where the
    plan passes as it is on more of those that there are."""
    pp_size, tp_size = refused.pp_size, refused.tp_size
    yield {}, ""
    yield {"backend": WITHOUT}, ""
    fitting = gpus // tp_size
    smaller = dict.fromkeys(size for size in (min(fitting, pp_size), 2) if 1 < size <= fitting)
    for size in smaller:
        if size != pp_size:
            yield {"pp_size": size}, ""
            if passes(_changed(options, {"pp_size": size})):
                break
    fewest = -(-pp_size * tp_size // gpus)
    if fewest > 1 and not options.one_gpu and fewest != options.ranks_per_gpu:
        shared = "ranks share GPUs in time slices; all on what there is: --one-gpu"
        yield {"ranks_per_gpu": fewest}, f" ({shared})"
    alike = options.model is None and not options.one_gpu and not options.ranks_per_gpu
    if gpus < pp_size * tp_size and fitting and alike:
        alone = " (one PP rank: there is no PP send)" * (fitting == 1)
        yield {"model": SMALL_MODEL, "pp_size": min(fitting, pp_size)}, alone


def _passing(
    options: Options, split: _Changes, pp_size: int, layers: int, passes: Passes
) -> Iterator[_Changes]:
    """The fewest further changes with which a split passes: none or a release; else a higher share
    of the GPUs' memory, which keeps the whole model, and fewer layers."""
    newest = max(environments.releases(options.root), key=version_numbers, default="")
    releases: list[_Changes] = [{}, *([{"release": newest}] if newest else [])]

    def first(more: Iterable[_Changes]) -> Iterator[_Changes]:
        tried = ({**split, **each} for each in more)
        yield from islice((one for one in tried if passes(_changed(options, one))), 1)

    found = list(first(releases))
    yield from found
    if found or "model" in split:
        return
    yield from first({**more, "fraction": share} for more in releases for share in HIGHER_SHARES)
    for more in releases:
        fewer = {**split, **more, "dummy_weights": True}
        least = fewer.get("pp_size", pp_size)
        if most := _most_layers(options, fewer, (least, layers), passes):
            yield {**fewer, "layers": most}
            return


def _most_layers(
    options: Options, changes: _Changes, between: tuple[int, int], passes: Passes
) -> int:
    """The most layers between these with which it passes; 0 where it does not even with the fewest.
    One by one: with fewer layers a rank may have more, where a release leaves the rest to the last.
    """
    fewest, most = between

    def fits(count: int) -> bool:
        return passes(_changed(options, {**changes, "layers": count}))

    if fewest > most or not fits(fewest):
        return 0
    return next(count for count in range(most, fewest - 1, -1) if fits(count))


def _layers(model: str) -> int:
    """Layers of a model whose config.json is at hand; 0 of another."""
    shape = model_folder.shape_of(model)
    path = Path(model, "config.json")
    if not path.is_file() and shape:
        path = model_folder.config_path(shape)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["num_hidden_layers"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return 0
    return found if isinstance(found, int) else 0


def _changed(options: Options, changes: _Changes) -> Options:
    """The options with these changes, of a run that is planned alone."""
    given = dict(changes)
    if release := given.pop("release", ""):
        made = environments.is_made(options.root, release)
        given |= {
            "python": environments.python_of(options.root, release),
            "not_made": "" if made else release,
            "found_by": "",
        }
    return options._replace(dry_run=True, **given)


def _words(options: Options, changes: _Changes) -> str:
    """Changed options as they are typed, but for what is given already."""
    given = {**changes, "backend": None, "fraction": None}
    text = " ".join(
        f"--{name.replace('_', '-')}" + (f" {value}" if value is not True else "")
        for name, value in given.items()
        if value and not (value is True and getattr(options, name))
    )
    if "release" in changes and options.found_by == "--python":
        text += " in place of --python"
    if "fraction" in changes:
        text += f" and {weights.FRACTION} {changes['fraction']:g} in server_args_base.txt"
    if "backend" in changes:
        return " and ".join(filter(None, [text, f"{OPTION} {WITHOUT} in the argument files"]))
    return text
