"""Errors a user can act on: scripts print them as one sentence, without a traceback."""


class UserError(Exception):
    """Something the user gave cannot be used. The message names it, what came and what was expected.

    ``exit_code`` is what a script exits with after printing the message.
    """

    exit_code: int = 1


class ConfigError(UserError):
    """A config, an override or a flag is wrong; nothing has been written yet."""

    exit_code = 2


class DataError(UserError):
    """A data file, folder or sample cannot be read as what it should be."""


class StalledDataError(DataError):
    """No batch has come for so long that the run ended; what was done is saved, and the same may work later."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h


class MissingDataError(DataError):
    """A data set is not where it was looked for: not evaluated, which is not the same as a score of 0."""


class CheckpointError(UserError):
    """A checkpoint is not one, is unsafe to load, or belongs to another architecture."""


class StoppedError(UserError):
    """The work was asked to stop, by a signal, before its end; what was done is saved.

    Args:
        message: What was saved, and how to go on.
        exit_code: 128 + the signal's number.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message, exit_code)
        self.exit_code = exit_code

    def __str__(self) -> str:
        return str(self.args[0])
