"""What a sweep names and is not here: what was computed with it is data, and is shown; none of it can be computed again.

No code of a task or of one's own estimator is imported to find out; what an installed package registers is.
"""

from __future__ import annotations

from importlib.util import find_spec

from orchestrator.config.estimator_section import EstimatorSection
from orchestrator.config.schema import Config
from orchestrator.designs.absent import Absent
from orchestrator.store.attributions import read_attributes_of
from orchestrator.store.manifest import read_manifest
from orchestrator.store.paths import SweepPaths
from orchestrator.store.plain_files import is_folder
from workers.errors import ConfigError, LackingError, PluginError, StoreError

UNKNOWN_PACKAGE = "the package that registers it"
MEND = "mend the package"


def absent(config: Config, paths: SweepPaths) -> dict[str, str]:
    """Return what is not here, by its key in the configuration: what follows, and the remedy, in a line."""
    lost = {name: design for name, design in config.designs.items() if isinstance(design, Absent)}
    found = {f"designs.{name}": _lost_kind(design, paths, name) for name, design in lost.items()}
    for label, section in config.estimators.items():
        missing, remedy = _missing(section, paths, label)
        if missing:
            found[f"estimators.{label}"] = (
                f"{missing}: what it gave is kept and shown, and cannot be computed again; {remedy}"
            )
    return found


def with_absent_kinds(config: Config, paths: SweepPaths) -> Config:
    """Return the configuration, its designs of kinds that are not here told what the store knows of them."""
    if not any(isinstance(design, Absent) for design in config.designs.values()) or not is_folder(paths.runs):
        return config
    known = {one.name: one.of_kind for one in read_manifest(paths).designs}
    designs = {
        name: design.told(known[name].serves, known[name].follows, known[name].growth_keys)
        if isinstance(design, Absent) and name in known
        else design
        for name, design in config.designs.items()
    }
    return config.model_copy(update={"designs": designs})


def _lost_kind(design: Absent, paths: SweepPaths, name: str) -> str:
    kept = "its runs are kept and shown, and none can be drawn or trained"
    if design.fault:
        return f"kind {design.kind!r} cannot be loaded here ({design.fault}): {kept}; {MEND}"
    return f"kind {design.kind!r} is not installed here: {kept}; install {_package_of_design(paths, name)}"


def _missing(section: EstimatorSection, paths: SweepPaths, label: str) -> tuple[str, str]:
    """Return what is missing of an estimator, and the remedy; empty where nothing is."""
    file = section.file
    if file is not None:
        return ("", "") if file.is_file() else (f"there is no file {file}", "put it back")
    if section.is_own:
        package = section.estimator.partition(":")[0].partition(".")[0]
        return ("", "") if _can_be_found(package) else (f"there is no module {package!r} here", "install it")
    from estimators.registry import BUILT_IN, find  # whose import nobody pays who asks no such question

    if section.estimator in BUILT_IN:
        return "", ""
    try:
        find(section.estimator)
    except LackingError as error:
        return error.lacking, error.remedy
    except PluginError as error:
        return f"estimator {section.estimator!r} cannot be loaded here ({error})", MEND
    except ConfigError:
        pass
    else:
        return "", ""
    return f"estimator {section.estimator!r} is not installed here", f"install {_package_of(section, paths, label)}"


def _can_be_found(package: str) -> bool:
    """Say whether there is a package or module of that name, without importing it."""
    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):
        return False


def _package_of(section: EstimatorSection, paths: SweepPaths, label: str) -> str:
    """Return the package that registered an estimator when it was computed, as its attribution has it."""
    try:
        kept = read_attributes_of(paths, label)
    except StoreError:  # nothing was computed, or it is damaged: that is said by whoever reads it
        return UNKNOWN_PACKAGE
    return (kept.package if kept.estimator == section.estimator else "") or UNKNOWN_PACKAGE


def _package_of_design(paths: SweepPaths, name: str) -> str:
    known = {one.name: one.of_kind.package for one in read_manifest(paths).designs} if is_folder(paths.runs) else {}
    return known.get(name) or UNKNOWN_PACKAGE
