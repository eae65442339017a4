"""Bringing weights and public data sets, with a bar, and saying how to use them."""

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

from qaclims_ray.data.archives import unpack
from qaclims_ray.data.downloads import Checksum, Told, Wanted, bring_file, require_space
from qaclims_ray.data.public_sets import AUGMENTED_LIST, PUBLIC_SETS, Archive, PublicSet, write_augmented_list
from qaclims_ray.errors import ConfigError, did_you_mean
from qaclims_ray.models.known_weights import FOLDER_VARIABLE, find, weights_folder
from qaclims_ray.models.weight_table import KNOWN_WEIGHTS, SHIPPED, KnownWeight, WeightFile
from qaclims_ray.report.console_text import print_line
from qaclims_ray.report.wording import file_size
from qaclims_ray.stages.console import ALIVE_INTERVAL_S
from qaclims_ray.stages.requests import FetchArguments

_HUB = "https://huggingface.co"
_DATA = "data"
"""Where data sets go, from where the user stands, unless told otherwise."""


def run_fetch(asked: FetchArguments, console: Console) -> None:
    """Bring what was asked for, or list what can be.

    Raises:
        ConfigError: for a name that is not known, or one that cannot be fetched.
        ResourceError: when it cannot be brought.
        DataError: when an archive cannot be unpacked.
    """
    if asked.list or not asked.names:
        _list(console)
        return
    things = [_thing(name) for name in asked.names]  # a wrong name is told before anything is brought
    for thing in things:
        if isinstance(thing, KnownWeight):
            _fetch_weight(thing, asked, console)
        else:
            _fetch_set(thing, asked, console)


def _thing(name: str) -> KnownWeight | PublicSet:
    known: dict[str, KnownWeight | PublicSet] = {one.name: one for one in (*KNOWN_WEIGHTS, *PUBLIC_SETS)}
    if name not in known:
        raise ConfigError(
            f"nothing is known by the name {name!r}; {did_you_mean(name, known)}`qaclims fetch --list` shows all names"
        )
    found = known[name]
    if isinstance(found, KnownWeight) and found.page == SHIPPED:
        raise ConfigError(f"{name} lies in this package already: there is nothing to fetch")
    if isinstance(found, KnownWeight) and not found.files:
        raise ConfigError(
            f"{name} is not fetched here: its library brings it by the name {found.hub}. Without internet copy its "
            f"folder from {found.page} and give that as the setting"
        )
    return found


def _list(console: Console) -> None:
    print_line(console, "weights (`qaclims fetch NAME`); * lies on this machine")
    for weight in KNOWN_WEIGHTS:
        is_here = weight.page == SHIPPED or find(weight.name) is not None
        licence = weight.licence if weight.is_permissive else f"{weight.licence}, {weight.users}"
        print_line(
            console, f"{'*' if is_here else ' '} {weight.name:<24} {file_size(weight.num_bytes):>8}  {weight.title}"
        )
        print_line(console, f"  {'':<24} {'':>8}  {weight.purpose}; {licence}")
    print_line(console, "\ndata sets (`qaclims fetch NAME --to DIR`)")
    for one in PUBLIC_SETS:
        print_line(console, f"  {one.name:<24} {file_size(one.num_bytes):>8}  {one.title}; {one.terms}")
    print_line(console, f"\nfolder of weights: {weights_folder()} (environment variable {FOLDER_VARIABLE})")


def _fetch_weight(weight: KnownWeight, asked: FetchArguments, console: Console) -> None:
    folder = Path(asked.to).expanduser().absolute() if asked.to else weights_folder()
    print_line(console, f"{weight.name}: {weight.title}; {weight.purpose}")
    print_line(console, f"licence  {weight.licence}; {weight.users}")
    if weight.is_folder:
        folder = folder / weight.name
    for file in weight.files:
        where = f"{weight.name}/{file.name}" if weight.is_folder else file.name
        wanted = Wanted(
            folder / file.name, _mirrors(file.urls, where, asked.mirror), _checksum(file), by_hand=weight.page
        )
        _bring(wanted, console)
    place = folder if weight.is_folder else folder / weight.files[0].name
    if asked.to and find(weight.name) != place:
        print_line(
            console, f"use      give {place} as the setting, or set {FOLDER_VARIABLE}={Path(asked.to).absolute()}"
        )


def _checksum(file: WeightFile) -> Checksum | None:
    return Checksum("sha256", file.sha256) if file.sha256 else None


def _fetch_set(one: PublicSet, asked: FetchArguments, console: Console) -> None:
    folder = Path(asked.to or _DATA).expanduser().absolute()
    print_line(console, f"{one.name}: {one.title}; {one.terms}")
    for archive in one.archives:
        _fetch_archive(archive, one, folder, asked, console)
    if one.name == "voc2012-aug":
        print_line(console, f"written  {write_augmented_list(folder)}")
    root = folder / one.root if one.root else folder
    print_line(console, f"use      qaclims run {one.preset} --data-root {root}")
    if one.note and not (folder / AUGMENTED_LIST).is_file():
        print_line(console, f"note     {one.note}")


def _fetch_archive(archive: Archive, one: PublicSet, folder: Path, asked: FetchArguments, console: Console) -> None:
    if (folder / archive.place).is_dir():
        print_line(console, f"there    {folder / archive.place}")
        return
    path = folder / archive.name
    wanted = Wanted(path, _mirrors(archive.urls, archive.name, asked.mirror), archive.checksum, by_hand=one.page)
    _bring(wanted, console)
    require_space(folder, path.stat().st_size)  # photographs do not shrink in archives
    with _bar(console, f"unpacking {archive.name}", is_bytes=False) as told:
        made = unpack(path, folder / archive.into if archive.into else folder, archive.makes, told)
    path.unlink()
    print_line(console, f"written  {made}")


def _mirrors(urls: Sequence[str], where: str, mirror: str) -> tuple[str, ...]:
    """Return where to look, a mirror of the user's own first, and that of the hub where the environment names one."""
    hub = os.environ.get("HF_ENDPOINT", "").rstrip("/")
    found = [url.replace(_HUB, hub, 1) if hub and url.startswith(f"{_HUB}/") else url for url in urls]
    return (f"{mirror.rstrip('/')}/{where}", *found) if mirror else tuple(found)


def _bring(wanted: Wanted, console: Console) -> None:
    with _bar(console, wanted.path.name) as told:
        is_new = bring_file(wanted, told)
    print_line(console, f"{'written ' if is_new else 'there   '} {wanted.path}")


@contextlib.contextmanager
def _bar(console: Console, name: str, *, is_bytes: bool = True) -> Iterator[Told]:
    """Show a bar in a terminal; elsewhere a line now and then."""
    if not console.is_terminal:
        yield _lines(console, name, is_bytes=is_bytes)
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    numbers = (DownloadColumn(), TransferSpeedColumn()) if is_bytes else ()
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), *numbers, TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(name, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total or None)


def _lines(console: Console, name: str, *, is_bytes: bool) -> Told:
    last = time.monotonic()

    def told(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= ALIVE_INTERVAL_S:
            last = time.monotonic()
            of = f" of {file_size(total) if is_bytes else total}" if total else ""
            print_line(console, f"still in {name}: {file_size(done) if is_bytes else done}{of}")

    return told
