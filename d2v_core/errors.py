"""The exceptions with a meaning of their own: for people, for runs that end early, for rows."""


class UserError(Exception):
    """A fault in what was given to us: one sentence that names the file or key and says what to do."""


class Stopped(Exception):  # noqa: N818 - not a fault: what was asked for, with everything saved
    """Training ended early because it was told to, and can go on from there."""


class Interrupted(Exception):  # noqa: N818 - nobody's fault: an accident, after which a run can go on
    """Training ended because another process that takes part in it is gone."""


class Dropped(Exception):  # noqa: N818 - not a fault: the row is counted and the run goes on
    """An item that cannot become a row of a table; ``reason`` is a short category, ``detail`` is for a person."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail
