"""Every exception counterfactory raises on purpose, under one root.

A user's mistake is a `UserError`: the command line prints its one line and exits with code 2, without a traceback.
"""


class CounterfactoryError(Exception):
    """Root of all exceptions raised on purpose by counterfactory."""


class UserError(CounterfactoryError):
    """Something the user can put right; its message is one line: what is wrong, where, and what would be right."""


class ConfigError(UserError, ValueError):
    """A configuration that cannot be run."""


class PluginError(ConfigError):
    """An entry point of an installed package that cannot be loaded; the message names package, entry point and error."""


class LackingError(PluginError):
    """Something that needs a package which is not installed."""

    def __init__(self, what: str, package: str, remedy: str):
        super().__init__(f"{what} needs {package}: {remedy}")
        self.lacking, self.remedy = f"{what} needs {package}", remedy


class TaskError(UserError, TypeError):
    """A task that cannot be loaded or does not keep the task contract."""


class DataError(UserError, ValueError):
    """Data (a file, an array) of the wrong shape, type or content."""


class StoreError(UserError, RuntimeError):
    """A sweep folder that cannot be used as asked."""


class LeaseError(StoreError):
    """A sweep folder that another live process is writing."""


class DivergedError(CounterfactoryError, ArithmeticError):
    """A training whose outputs are not finite; it becomes one failed run."""


LISTED = 30
"""Names that an error message lists at most."""


def near(name: str, known: list[str]) -> str:
    """Return `known` as a phrase that puts the names nearest to `name` first, for the end of an error message."""
    import difflib

    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    listed = ", ".join(sorted(known)[:LISTED]) or "none"
    if len(known) > LISTED:
        listed += f" and {len(known) - LISTED} more"
    return f"did you mean {' or '.join(close)}? (known: {listed})" if close else f"known: {listed}"


def one_line(error: BaseException) -> str:
    """Return an error's kind and the first line of its message."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or ['(no message)'])[0]}"
