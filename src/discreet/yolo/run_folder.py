"""A run's folder: `internal/`, which stays, and beside it `release/`, which may leave."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

from discreet.storage import lock_folder, make_folder, write_text
from discreet.yolo.checkpoint import claim_run_folder
from discreet.yolo.journal import count_resumes
from discreet.yolo.preparation import PreparedRun

_NOT_PRIVATE = (
    "Nothing in this folder is covered by the privacy guarantee: logs, losses, checkpoints and\n"
    "paths tell about the private images. Only the folder `release` beside it may be shared.\n"
)


def _nothing() -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """A folder that is locked for one run.

    Attributes:
        root: The folder.
        resumes: How often the run went on after an interruption, this time included.
        unlock: Lets others have it.
    """

    root: Path
    resumes: int
    unlock: Callable[[], None]

    @property
    def internal(self) -> Path:
        """Logs, losses, checkpoints: private."""
        return self.root / "internal"

    @property
    def release(self) -> Path:
        """Weights and statement, made whole at the end of the run."""
        return self.root / "release"

    @classmethod
    def of_follower(cls, prepared: PreparedRun) -> RunFolder:
        """A temporary one, for what Ultralytics insists to write.

        Who does not lead a team of processes writes nothing.
        """
        root = Path(mkdtemp(prefix="discreet-"))
        make_folder(root / "internal")
        return cls(root=root, resumes=int(prepared.resumed is not None), unlock=_nothing)

    @classmethod
    def begin(cls, prepared: PreparedRun) -> RunFolder:
        """Claim a new folder, or the one of the interrupted run that goes on.

        Raises:
            DiscreetError: It is in use, would be inside the data set, or cannot be written.
        """
        dataset = prepared.dataset
        records = (*dataset.train, *dataset.val, *dataset.test)
        files = [path for record in records for path in (record.image, record.label) if path]
        root = prepared.resumed or claim_run_folder(
            prepared.project,
            name=prepared.name,
            exist_ok=bool(prepared.settings.get("exist_ok")),
            images={path.parent for path in files},
        )
        internal = root / "internal"
        make_folder(internal)
        lock = lock_folder(internal)
        resumes = count_resumes(internal, resumed=prepared.resumed is not None)
        folder = cls(root=root, resumes=resumes, unlock=lock.close)
        if prepared.resumed is None:
            try:
                write_text(internal / "NOT-PRIVATE.txt", _NOT_PRIVATE)
                prepared.state.save(internal)
            except BaseException:
                folder.discard()
                raise
        return folder

    def close(self) -> None:
        """Let the folder go, with what is in it."""
        self.unlock()

    def discard(self) -> None:
        """Take the folder away: nothing was spent in it."""
        self.unlock()
        shutil.rmtree(self.internal, ignore_errors=True)
        with suppress(OSError):  # not empty: somebody else's files are there
            self.root.rmdir()
